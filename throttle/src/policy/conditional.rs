//! The part of a policy that holds for some versions only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rule::Rule;
use crate::resource::Scope;

/// Rules and limits that hold for some versions only; see [`Policy::when`](super::Policy::when).
///
/// # Examples
///
/// ```
/// use throttle::{Class, Conditional, Policy, Rule, Scope};
///
/// let old = Conditional::new().rule(Scope::Item, "data/log", Rule::Wait);
/// let policy = Policy::new()
///     .class(Class::new("data"))
///     .class(Class::new("log"))
///     .rule(Scope::Item, "data/log", Rule::Allow)
///     .when("engine<9", old);
/// policy.compile_for(&"16.0".parse()?)?;
/// # Ok::<(), throttle::PolicyError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use = "it does nothing until it is part of a policy"]
pub struct Conditional {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) rules: BTreeMap<Scope, BTreeMap<String, Rule>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) limits: BTreeMap<Scope, BTreeMap<String, u32>>,
}

impl Conditional {
    /// Neither rules nor limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// A rule that counts before every rule without a condition, whatever that names.
    pub fn rule(mut self, scope: Scope, pair: impl Into<String>, rule: Rule) -> Self {
        self.rules.entry(scope).or_default().insert(pair.into(), rule);
        self
    }

    /// A limit; where the policy has one of the same name, the smaller one counts.
    pub fn limit(mut self, scope: Scope, limit: impl Into<String>, capacity: u32) -> Self {
        self.limits.entry(scope).or_default().insert(limit.into(), capacity);
        self
    }
}
