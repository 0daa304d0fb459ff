//! Who works on one resource, and who wants to.

use smallvec::SmallVec;

use super::groups::Groups;
use super::line::Line;
use super::request_state::Place;
use super::rulebook::{ClassRef, Rulebook};
use super::table::Slot;
use crate::request_id::RequestId;
use crate::resource::Scope;

/// Who works on one resource, and who wants to.
#[derive(Debug)]
pub(super) struct ExclusionSite {
    pub(super) scope: Scope,
    /// By class, who holds it and the root operation of each. A class that nobody holds is
    /// kept if it is the only one, as room for the next.
    holders: SmallVec<[(ClassRef, Line<RequestId, Slot>); 1]>,
    /// Every waiter that needs the resource, wherever it is parked.
    pub(super) line: Groups<ClassRef>,
    /// The waiters that are parked here.
    pub(super) parked: Groups<ClassRef>,
    /// Those in line that have units set aside, since they wait for capacity alone.
    pub(super) pinned: Groups<ClassRef>,
    /// Whether the site is among those that gained something.
    pub(super) has_gained: bool,
}

impl ExclusionSite {
    pub(super) fn new(scope: Scope) -> Self {
        Self {
            scope,
            holders: SmallVec::new(),
            line: Groups::new(),
            parked: Groups::new(),
            pinned: Groups::new(),
            has_gained: false,
        }
    }

    #[inline]
    pub(super) fn hold(&mut self, class: ClassRef, id: RequestId, root: Slot) {
        if let [(only, held)] = &mut *self.holders
            && (*only == class || held.is_empty())
        {
            *only = class;
            held.insert(id, root);
            return;
        }
        let index = self.search(class).unwrap_or_else(|index| {
            self.holders.insert(index, (class, Line::new()));
            index
        });
        self.holders[index].1.insert(id, root);
    }

    #[inline(always)]
    pub(super) fn release(&mut self, class: ClassRef, id: RequestId) {
        if let Ok(index) = self.search(class) {
            let held = &mut self.holders[index].1;
            held.remove(&id);
            if held.is_empty() && self.holders.len() > 1 {
                self.holders.remove(index);
            }
        }
    }

    /// Notes that somebody may be able to pass now. False if that is known, or if nobody is parked
    /// here.
    #[inline]
    pub(super) fn gain(&mut self) -> bool {
        !self.parked.is_empty() && !std::mem::replace(&mut self.has_gained, true)
    }

    /// The holders other than `root` with their classes.
    pub(super) fn strangers(&self, root: Slot) -> impl Iterator<Item = (ClassRef, RequestId)> {
        self.holders.iter().flat_map(move |(class, held)| {
            held.iter().filter(move |&(_, holder)| *holder != root).map(move |(id, _)| (*class, id))
        })
    }

    /// Whether nobody is there, neither at work nor in line.
    #[inline]
    pub(super) fn is_deserted(&self) -> bool {
        let is_deserted =
            self.line.is_empty() && self.holders.iter().all(|(_, held)| held.is_empty());
        is_deserted || cfg!(mutant = "whoever_comes_again_sees_nobody")
    }

    /// Whether `class` can be taken now by `root` at `place`.
    ///
    /// A stranger that holds a conflicting class stands in the way. So does a conflicting
    /// waiter whose turn comes first, except for a borrower: the waiter may be waiting for
    /// the very operation that the borrower is part of.
    #[inline]
    pub(super) fn passes(
        &self,
        rules: &Rulebook,
        class: ClassRef,
        place: Place,
        root: Slot,
        standing: Standing,
    ) -> bool {
        let is_free = self.holders.iter().all(|(held, holders)| {
            holders.is_empty()
                || rules.may_join(self.scope, *held, class)
                || holders.iter().all(|(_, holder)| *holder == root)
        });
        let is_free = is_free || cfg!(mutant = "holders_do_not_conflict");
        is_free
            && (standing == Standing::Borrower
                || cfg!(mutant = "anybody_passes_at_exclusions")
                || self.line.heads().all(|(queued, first)| {
                    first >= place || rules.may_mix(self.scope, queued, class)
                }))
    }

    #[inline]
    fn search(&self, class: ClassRef) -> Result<usize, usize> {
        self.holders.binary_search_by(|(held, _)| held.cmp(&class))
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
