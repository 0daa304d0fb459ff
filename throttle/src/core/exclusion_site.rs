//! Who works on one resource, and who wants to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::groups::Groups;
use super::request_state::Place;
use super::rulebook::{ClassRef, Rulebook};
use crate::request_id::RequestId;
use crate::resource::Scope;

/// Who works on one resource, and who wants to.
#[derive(Debug)]
pub(super) struct ExclusionSite {
    pub(super) scope: Scope,
    /// By class, the root operations that hold it.
    pub(super) holders: BTreeMap<ClassRef, BTreeMap<RequestId, Arc<str>>>,
    /// Every waiter that needs the resource, wherever it is parked.
    pub(super) line: Groups<ClassRef>,
    /// The waiters that are parked here.
    pub(super) parked: Groups<ClassRef>,
}

impl ExclusionSite {
    pub(super) fn new(scope: Scope) -> Self {
        Self { scope, holders: BTreeMap::new(), line: BTreeMap::new(), parked: BTreeMap::new() }
    }

    pub(super) fn hold(&mut self, class: ClassRef, id: RequestId, root: &Arc<str>) {
        self.holders.entry(class).or_default().insert(id, Arc::clone(root));
    }

    pub(super) fn release(&mut self, class: ClassRef, id: RequestId) {
        if let Some(held) = self.holders.get_mut(&class) {
            held.remove(&id);
            if held.is_empty() {
                self.holders.remove(&class);
            }
        }
    }

    /// The holders other than `root` with their classes.
    pub(super) fn strangers<'a>(
        &'a self,
        root: &'a str,
    ) -> impl Iterator<Item = (ClassRef, RequestId)> + 'a {
        self.holders.iter().flat_map(move |(&class, held)| {
            held.iter()
                .filter(move |(_, holder)| &***holder != root)
                .map(move |(&id, _)| (class, id))
        })
    }

    /// Whether `class` can be taken now by `root` at `place`.
    ///
    /// A stranger that holds a conflicting class stands in the way. So does a conflicting
    /// waiter whose turn comes first, except for a borrower: the waiter may be waiting for
    /// the very operation that the borrower is part of.
    pub(super) fn passes(
        &self,
        rules: &Rulebook,
        class: ClassRef,
        place: Place,
        root: &str,
        standing: Standing,
    ) -> bool {
        let is_free = self.holders.iter().all(|(&held, holders)| {
            rules.may_join(self.scope, held, class)
                || holders.values().all(|holder| **holder == *root)
        });
        let is_free = is_free || cfg!(mutant = "holders_do_not_conflict");
        is_free
            && (standing == Standing::Borrower
                || cfg!(mutant = "anybody_passes_at_exclusions")
                || self.line.iter().all(|(&queued, places)| {
                    places.first().is_none_or(|first| *first >= place)
                        || rules.may_mix(self.scope, queued, class)
                }))
    }

    /// The first of each class that is parked here. If the first cannot pass, no later one
    /// of its class can, borrowers apart.
    pub(super) fn parked_heads(&self) -> impl Iterator<Item = (ClassRef, Place)> + '_ {
        self.parked.iter().filter_map(|(&class, places)| Some((class, *places.first()?)))
    }
}

/// How a request stands towards those who wait before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It waits its turn.
    InLine,
    /// Its root operation holds exclusions already.
    Borrower,
}
