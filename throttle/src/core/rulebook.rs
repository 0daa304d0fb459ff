//! What the host and the workloads have declared.

use std::collections::BTreeMap;
use std::time::Duration;

use hashbrown::Equivalent;

use super::request_state::nanoseconds;
use crate::limits::Limits;
use crate::policy::{ClassIndex, CompiledPolicy, PolicyError, PolicyErrorKind, Rule};
use crate::priority::Priority;
use crate::resource::{Resource, Scope};

/// A class of a workload. It means the same after the policy was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClassRef {
    workload: u16,
    /// Its number among the names that the workload has ever used.
    class: u16,
}

impl ClassRef {
    /// The numbers of its workload and of the class in it.
    pub(super) fn indices(self) -> (usize, usize) {
        (usize::from(self.workload), usize::from(self.class))
    }

    pub(super) fn from_indices(workload: usize, class: usize) -> Self {
        let number = |index| u16::try_from(index).expect("few classes");
        Self { workload: number(workload), class: number(class) }
    }
}

/// A limit: whose it is, and its name.
pub(super) type LimitName = (Resource, String);

/// The name of a limit that is only looked up. It is hashed like [`LimitName`].
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct LimitKey<'a>(pub(super) &'a Resource, pub(super) &'a str);

impl LimitKey<'_> {
    pub(super) fn to_name(self) -> LimitName {
        (self.0.clone(), self.1.to_owned())
    }
}

impl Equivalent<LimitName> for LimitKey<'_> {
    fn equivalent(&self, name: &LimitName) -> bool {
        *self.1 == name.1 && *self.0 == name.0
    }
}

/// The numbers that hold for a limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) capacity: u32,
    /// The most units that a request may ask for, even while the capacity is smaller.
    pub(super) ceiling: u32,
}

#[derive(Debug)]
pub(super) struct Rulebook {
    limits: Limits,
    /// The largest capacity of the limits that were changed since.
    ceilings: BTreeMap<LimitName, u32>,
    workloads: BTreeMap<String, u16>,
    policies: Vec<Registered>,
    /// Changes whenever a name may mean something else than before, or less can be had.
    edition: u64,
}

/// The policy of a workload.
#[derive(Debug)]
struct Registered {
    workload: String,
    policy: CompiledPolicy,
    /// The proper name of every class that was ever used.
    names: Vec<String>,
    /// What each of them is in the present policy, by its name or an alias.
    present: Vec<Option<ClassIndex>>,
    /// The number of each class of the present policy among the names.
    numbers: Vec<u16>,
}

impl Registered {
    fn new(workload: &str, policy: CompiledPolicy) -> Self {
        let names = policy.names().to_vec();
        let present = names.iter().map(|name| policy.class(name)).collect();
        let numbers = numbers(&policy, &names);
        Self { workload: workload.to_owned(), policy, names, present, numbers }
    }

    fn replace(&mut self, policy: CompiledPolicy) {
        let new = policy.names().iter().filter(|name| !self.names.contains(name)).cloned();
        let new: Vec<_> = new.collect();
        self.names.extend(new);
        self.present = self.names.iter().map(|name| policy.class(name)).collect();
        self.numbers = numbers(&policy, &self.names);
        self.policy = policy;
    }

    fn rule(&self, scope: Scope, running: u16, asked: u16) -> &Rule {
        match (self.present[usize::from(running)], self.present[usize::from(asked)]) {
            (Some(running), Some(asked)) => self.policy.rule(scope, running, asked),
            // Nothing is known any more of a class that is gone, so it excludes everything.
            _ => &Rule::Wait,
        }
    }
}

/// The number of each class of `policy` among `names`.
fn numbers(policy: &CompiledPolicy, names: &[String]) -> Vec<u16> {
    let number = |name| (0..).zip(names).find(|&(_, known)| known == name);
    let number = |name| number(name).expect("every class of a policy has a number").0;
    policy.names().iter().map(number).collect()
}

impl Rulebook {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            ceilings: BTreeMap::new(),
            workloads: BTreeMap::new(),
            policies: Vec::new(),
            edition: 0,
        }
    }

    pub(super) fn register(
        &mut self,
        workload: &str,
        policy: CompiledPolicy,
    ) -> Result<(), PolicyError> {
        if self.workloads.contains_key(workload) {
            return Err(PolicyError::new(PolicyErrorKind::AlreadyRegistered, workload));
        }
        let index = u16::try_from(self.policies.len()).expect("fewer than 2^16 workloads");
        self.workloads.insert(workload.to_owned(), index);
        self.policies.push(Registered::new(workload, policy));
        self.edition += 1;
        Ok(())
    }

    pub(super) fn replace(
        &mut self,
        workload: &str,
        policy: CompiledPolicy,
    ) -> Result<(), PolicyError> {
        match self.workloads.get(workload) {
            Some(&index) => {
                self.policies[usize::from(index)].replace(policy);
                self.edition += 1;
                Ok(())
            }
            None => Err(PolicyError::new(PolicyErrorKind::NotRegistered, workload)),
        }
    }

    pub(super) fn set_capacity(&mut self, name: LimitName, capacity: u32) {
        let before = self.host_limit(&name).map_or(0, |(_, ceiling)| ceiling);
        // A limit that the host did not bound yet may have been larger.
        self.edition += u64::from(before == 0);
        self.ceilings.insert(name.clone(), before.max(capacity));
        self.limits.exact.insert(name, capacity);
    }

    /// The limits that the host has named, whose they are included.
    pub(super) fn host_limits(&self) -> Vec<LimitName> {
        self.limits.exact.keys().cloned().collect()
    }

    /// The numbers for a limit: the smallest that anybody declared, if anybody did.
    pub(super) fn bounds(&self, name: &LimitName) -> Option<Bounds> {
        let (resource, limit) = name;
        let bound = self
            .policies
            .iter()
            .filter(|registered| resource.belongs_to(&registered.workload))
            .filter_map(|registered| registered.policy.limit(resource.scope(), limit))
            .min();
        match (self.host_limit(name), bound) {
            (Some((capacity, ceiling)), bound) => {
                let bound = bound.unwrap_or(u32::MAX);
                Some(Bounds { capacity: capacity.min(bound), ceiling: ceiling.min(bound) })
            }
            (None, Some(bound)) => Some(Bounds { capacity: bound, ceiling: bound }),
            (None, None) => None,
        }
    }

    fn host_limit(&self, name: &LimitName) -> Option<(u32, u32)> {
        let each = || self.limits.each.get(&(name.0.scope(), name.1.clone()));
        let capacity = *self.limits.exact.get(name).or_else(each)?;
        Some((capacity, self.ceilings.get(name).copied().unwrap_or(capacity)))
    }

    /// The class that `workload` calls `class`.
    pub(super) fn class(&self, workload: &str, class: &str) -> Result<ClassRef, UnknownName> {
        let index = *self.workloads.get(workload).ok_or(UnknownName::Workload)?;
        let registered = &self.policies[usize::from(index)];
        let class = registered.policy.class(class).ok_or(UnknownName::Class)?;
        Ok(ClassRef { workload: index, class: registered.numbers[usize::from(class)] })
    }

    /// The workload and the proper name of a class.
    pub(super) fn class_name(&self, class: ClassRef) -> (&str, &str) {
        let registered = &self.policies[usize::from(class.workload)];
        (&registered.workload, &registered.names[usize::from(class.class)])
    }

    pub(super) fn class_priority(&self, class: ClassRef) -> Priority {
        let registered = &self.policies[usize::from(class.workload)];
        let present = registered.present[usize::from(class.class)];
        present.map_or_else(Priority::default, |class| registered.policy.priority(class))
    }

    /// What happens to `asked` while `running` runs on the same resource.
    pub(super) fn rule(&self, scope: Scope, running: ClassRef, asked: ClassRef) -> &Rule {
        if running.workload != asked.workload {
            return &Rule::Wait;
        }
        self.policies[usize::from(running.workload)].rule(scope, running.class, asked.class)
    }

    /// Whether equal requests of the class for one resource of `scope` are one.
    pub(super) fn is_coalescing(&self, scope: Scope, class: ClassRef) -> bool {
        let registered = &self.policies[usize::from(class.workload)];
        registered.present[usize::from(class.class)]
            .is_some_and(|class| registered.policy.is_coalescing(scope, class))
    }

    pub(super) fn may_join(&self, scope: Scope, running: ClassRef, asked: ClassRef) -> bool {
        *self.rule(scope, running, asked) == Rule::Allow
    }

    /// Whether it makes no difference which of the two starts first.
    pub(super) fn may_mix(&self, scope: Scope, one: ClassRef, other: ClassRef) -> bool {
        self.may_join(scope, one, other) && self.may_join(scope, other, one)
    }

    #[inline]
    pub(super) fn edition(&self) -> u64 {
        self.edition
    }

    pub(super) fn overtakes_max(&self) -> u32 {
        self.limits.overtakes_max
    }

    pub(super) fn claim_within(&self) -> Duration {
        self.limits.claim_within
    }

    /// The head start of a priority, in nanoseconds.
    pub(super) fn head_start(&self, priority: Priority) -> i64 {
        let step = nanoseconds(self.limits.priority_step).min(i64::MAX / 8);
        if cfg!(mutant = "urgent_is_last") {
            -priority.level() * step
        } else {
            priority.level() * step
        }
    }
}

/// A name in a claim that nobody declared.
#[derive(Clone, Copy, Debug)]
pub(super) enum UnknownName {
    Workload,
    Class,
}
