//! What is counted, by what the counters are about.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use super::Core;
use super::request_state::Need;
use super::rulebook::{ClassRef, LimitKey};
use crate::metrics::{Counts, Metrics, Subject};
use crate::resource::{Resource, Scope};

/// The counters. Classes and limits are kept by number, so that counting looks up no names.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// For each workload and each of its classes, by scope.
    classes: Vec<Vec<[Counts; SCOPES]>>,
    limits: Vec<Counts>,
    limit_names: BTreeMap<Scope, BTreeMap<String, CounterIndex>>,
    /// Counted where nothing is changed.
    evaluations: Cell<u64>,
}

/// Every scope, at the index that counters are kept by.
const SCOPES_IN_ORDER: [Scope; SCOPES] =
    [Scope::Custom, Scope::Item, Scope::Instance, Scope::Workload, Scope::Node];

/// How many scopes there are.
const SCOPES: usize = Scope::Node as usize + 1;

/// The number of the counters of a limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct CounterIndex(usize);

impl Counters {
    /// The counters of the limits of this name of all resources of `scope`.
    pub(super) fn of_limit(&mut self, scope: Scope, limit: &str) -> CounterIndex {
        let names = self.limit_names.entry(scope).or_default();
        if let Some(&index) = names.get(limit) {
            return index;
        }
        let index = CounterIndex(self.limits.len());
        names.insert(limit.to_owned(), index);
        self.limits.push(Counts::default());
        index
    }

    fn of_class(&mut self, scope: Scope, class: ClassRef) -> &mut Counts {
        let (workload, class) = class.indices();
        if self.classes.len() <= workload {
            self.classes.resize_with(workload + 1, Vec::new);
        }
        let classes = &mut self.classes[workload];
        if classes.len() <= class {
            classes.resize_with(class + 1, Default::default);
        }
        &mut classes[class][scope as usize]
    }

    #[inline]
    pub(super) fn count_evaluation(&self) {
        self.evaluations.set(self.evaluations.get().wrapping_add(1));
    }
}

impl Core {
    /// Counts something for each of the needs.
    pub(super) fn count(&mut self, needs: &[Need], mut count: impl FnMut(&mut Counts)) {
        for &need in needs {
            match need {
                Need::Exclusion { site, class } => {
                    let scope = self.exclusions.get(site).scope;
                    count(self.counters.of_class(scope, class));
                }
                Need::Capacity { site, .. } => {
                    let CounterIndex(index) = self.limits.get(site).counter;
                    count(&mut self.counters.limits[index]);
                }
            }
        }
    }

    /// Counts that a request was held against one or all of its needs.
    #[inline]
    pub(super) fn count_evaluation(&self) {
        self.counters.count_evaluation();
    }

    /// Counts a grant after a wait.
    pub(super) fn count_grant(&mut self, needs: &[Need], waited: Duration, overtakes: u32) {
        let whole_ms = waited.as_secs().saturating_mul(1_000);
        let waited_ms = whole_ms.saturating_add(u64::from(waited.subsec_millis()));
        self.count(needs, |counts| {
            counts.granted += 1;
            counts.waits_ms.record(waited_ms, 1);
            counts.overtakes.record(u64::from(overtakes), 1);
        });
    }

    pub(crate) fn used(&self, resource: &Resource, limit: &str) -> u64 {
        let slot = self.limits.find(&LimitKey(resource, limit));
        slot.map_or(0, |slot| self.limits.get(slot).used)
    }

    pub(crate) fn metrics(&mut self) -> Metrics {
        for (needs, times) in self.prepared.take_granted_again() {
            self.count(&needs, |counts| counts.handed_in_and_granted(times));
        }
        let mut metrics =
            Metrics { evaluations: self.counters.evaluations.get(), ..Metrics::default() };
        for (workload, classes) in self.counters.classes.iter().enumerate() {
            for (class, scopes) in classes.iter().enumerate() {
                let class = ClassRef::from_indices(workload, class);
                let counted = SCOPES_IN_ORDER.into_iter().zip(scopes);
                for (scope, counts) in counted.filter(|(_, counts)| **counts != Counts::default()) {
                    let (workload, class) = self.rules.class_name(class);
                    let (workload, class) = (workload.to_owned(), class.to_owned());
                    metrics
                        .counts
                        .insert(Subject::Class { scope, workload, class }, counts.clone());
                }
            }
        }
        for (&scope, limits) in &self.counters.limit_names {
            for (limit, &CounterIndex(index)) in limits {
                let counts = &self.counters.limits[index];
                if *counts != Counts::default() {
                    let limit = limit.clone();
                    metrics.counts.insert(Subject::Limit { scope, limit }, counts.clone());
                }
            }
        }
        for ((resource, limit), site) in self.limits.iter() {
            let debt = site.used.saturating_sub(u64::from(site.capacity));
            if debt > 0 {
                let subject = Subject::Limit { scope: resource.scope(), limit: limit.clone() };
                *metrics.debt.entry(subject).or_default() += debt;
            }
        }
        metrics
    }
}
