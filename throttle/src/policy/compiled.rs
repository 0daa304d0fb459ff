//! A policy that was checked and is ready to be looked up.

use std::collections::BTreeMap;

use super::rule::Rule;
use crate::priority::Priority;
use crate::resource::Scope;

/// The number of a class in its policy.
pub(crate) type ClassIndex = u8;

/// A policy that was checked by [`Policy::compile`](crate::Policy::compile).
///
/// It is given to [`Admission::register`](crate::Admission::register).
#[derive(Clone, Debug)]
pub struct CompiledPolicy {
    pub(super) names: Vec<String>,
    pub(super) priorities: Vec<Priority>,
    /// For each class the scope at which equal requests are one.
    pub(super) coalesce: Vec<Option<Scope>>,
    pub(super) lookup: BTreeMap<String, ClassIndex>,
    /// For each scope one cell a pair: running class * number of classes + new class.
    pub(super) cells: BTreeMap<Scope, Vec<Rule>>,
    pub(super) limits: BTreeMap<(Scope, String), u32>,
}

impl CompiledPolicy {
    /// The proper name of the class that is called `name`, by that name or an alias.
    pub fn proper_name(&self, name: &str) -> Option<&str> {
        self.class(name).map(|class| self.name(class))
    }

    /// Whether the policy bounds the limit `limit` of the resources of `scope`.
    pub fn bounds(&self, scope: Scope, limit: &str) -> bool {
        self.limit(scope, limit).is_some()
    }

    /// The class that is called `name`, by its name or an alias.
    pub(crate) fn class(&self, name: &str) -> Option<ClassIndex> {
        self.lookup.get(name).copied()
    }

    /// The proper names of all classes.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The proper name of a class.
    pub(crate) fn name(&self, class: ClassIndex) -> &str {
        &self.names[usize::from(class)]
    }

    pub(crate) fn priority(&self, class: ClassIndex) -> Priority {
        self.priorities[usize::from(class)]
    }

    /// Whether requests of `class` that wait for one resource of `scope` can be one.
    pub(crate) fn is_coalescing(&self, scope: Scope, class: ClassIndex) -> bool {
        self.coalesce[usize::from(class)] == Some(scope)
            || *self.rule(scope, class, class) == Rule::Coalesce
    }

    /// What happens to `asked` while `running` runs on the same resource of `scope`.
    pub(crate) fn rule(&self, scope: Scope, running: ClassIndex, asked: ClassIndex) -> &Rule {
        match self.cells.get(&scope) {
            Some(cells) => &cells[usize::from(running) * self.names.len() + usize::from(asked)],
            None => &Rule::Wait,
        }
    }

    /// The bound of the policy for a limit of the resources of `scope`.
    pub(crate) fn limit(&self, scope: Scope, limit: &str) -> Option<u32> {
        // The key is owned because a borrowed pair cannot be looked up; this happens once
        // for each claim, outside of the waiting line.
        self.limits.get(&(scope, limit.to_owned())).copied()
    }
}
