//! A policy as its author writes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::compiled::CompiledPolicy;
use super::conditional::Conditional;
use super::error::PolicyError;
use super::rule::Rule;
use super::version::EngineVersion;
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) coalesce: Option<Scope>,
}

impl Class {
    /// A class of normal priority without aliases.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), aliases: Vec::new(), priority: Priority::Normal, coalesce: None }
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

    /// Makes requests of this class one if they wait for the same resource of `scope` and
    /// have the same [key](crate::Request::coalesce_key).
    ///
    /// [`Rule::Coalesce`] on the class with itself does the same, and says besides that the
    /// class waits for itself. This one leaves open what the rules say about running work.
    pub fn coalesce(mut self, scope: Scope) -> Self {
        self.coalesce = Some(scope);
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
/// direction. Rules [under a condition](Policy::when) that holds count before all others.
/// **Classes without a rule conflict**: forgetting a rule costs time, never
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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) when: BTreeMap<String, Conditional>,
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

    /// Adds rules and limits that hold for some versions of the system.
    ///
    /// The condition compares the word `engine` with a version: `engine<9`, `engine>=9`,
    /// `engine=9.0.2047`; several comparisons, with commas between them, have to hold
    /// together. A second part for the same text replaces the first.
    pub fn when(mut self, condition: impl Into<String>, part: Conditional) -> Self {
        self.when.insert(condition.into(), part);
        self
    }

    /// Checks the policy and makes it ready for use with any version.
    ///
    /// # Errors
    ///
    /// A [`PolicyError`] for the first thing that is wrong, by the kinds of
    /// [`PolicyErrorKind`](crate::PolicyErrorKind). A policy with conditions needs a
    /// version: [`compile_for`](Self::compile_for).
    pub fn compile(&self) -> Result<CompiledPolicy, PolicyError> {
        super::compile::compile(self, None)
    }

    /// Checks the policy and makes it ready for use with one version of the system.
    ///
    /// The parts under conditions that do not hold are checked, too. When the version
    /// changes, compile again and [replace](crate::Admission::replace) the policy.
    ///
    /// # Errors
    ///
    /// As [`compile`](Self::compile), but it needs no other version.
    pub fn compile_for(&self, engine: &EngineVersion) -> Result<CompiledPolicy, PolicyError> {
        super::compile::compile(self, Some(engine))
    }
}
