//! A policy as its author writes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::compiled::CompiledPolicy;
use super::error::PolicyError;
use super::rule::Rule;
use crate::priority::Priority;
use crate::resource::Scope;

/// A kind of work that a workload does, such as `data` or `log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) aliases: Vec<String>,
    #[serde(default)]
    pub(super) priority: Priority,
}

impl Class {
    /// A class of normal priority without aliases.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), aliases: Vec::new(), priority: Priority::Normal }
    }

    /// Adds another name for the class (`full` for `data`).
    pub fn alias(mut self, alias: impl Into<String>) -> Self {
        self.aliases.push(alias.into());
        self
    }

    /// The priority of requests that claim the class and name no priority themselves.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }
}

/// What a workload declares about its own work: classes, rules, limits. Plain data.
///
/// A rule is about a pair of classes that meet on one resource of a scope:
///
/// | pair | meaning |
/// | --- | --- |
/// | `a/b` | one of them runs and the other is asked for |
/// | `a>b` | `a` runs and `b` is asked for |
/// | `*` in place of a class | any class |
///
/// Of the rules that fit, the one with more names counts, and of those the one with a
/// direction. **Classes without a rule conflict**: forgetting a rule costs time, never
/// correctness.
///
/// # Examples
///
/// ```
/// use throttle::{Class, Policy, Priority, Rule, Scope};
///
/// let policy = Policy::new()
///     .class(Class::new("data").alias("full").alias("diff"))
///     .class(Class::new("log").priority(Priority::High))
///     .class(Class::new("restore").priority(Priority::Urgent))
///     .rule(Scope::Item, "data/log", Rule::Allow)
///     .rule(Scope::Item, "restore>data", Rule::reject("restore-running"))
///     .limit(Scope::Workload, "streams", 20);
/// policy.compile()?;
/// # Ok::<(), throttle::PolicyError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use = "a policy does nothing until it is compiled and registered"]
pub struct Policy {
    #[serde(default)]
    pub(super) classes: Vec<Class>,
    #[serde(default)]
    pub(super) rules: BTreeMap<Scope, BTreeMap<String, Rule>>,
    #[serde(default)]
    pub(super) limits: BTreeMap<Scope, BTreeMap<String, u32>>,
}

impl Policy {
    /// The most classes that a policy may have.
    pub const CLASSES_MAX: usize = 64;

    /// A policy without classes, rules or limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a class.
    pub fn class(mut self, class: Class) -> Self {
        self.classes.push(class);
        self
    }

    /// Says what happens when the classes of `pair` meet on one resource of `scope`.
    ///
    /// A second rule for the same text replaces the first.
    pub fn rule(mut self, scope: Scope, pair: impl Into<String>, rule: Rule) -> Self {
        self.rules.entry(scope).or_default().insert(pair.into(), rule);
        self
    }

    /// Bounds the limit `limit` of every resource of `scope` that belongs to the workload.
    ///
    /// The host's own number counts where it is smaller. On [`Scope::Node`] the bound
    /// holds for the whole node, other workloads included.
    pub fn limit(mut self, scope: Scope, limit: impl Into<String>, capacity: u32) -> Self {
        self.limits.entry(scope).or_default().insert(limit.into(), capacity);
        self
    }

    /// Checks the policy and makes it ready for use.
    ///
    /// # Errors
    ///
    /// A [`PolicyError`] for the first thing that is wrong, by the kinds of
    /// [`PolicyErrorKind`](crate::PolicyErrorKind).
    pub fn compile(&self) -> Result<CompiledPolicy, PolicyError> {
        super::compile::compile(self)
    }
}
