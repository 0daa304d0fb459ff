//! What is counted, by what the counters are about.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use super::Core;
use super::request_state::Need;
use super::rulebook::ClassRef;
use crate::metrics::{Counts, Metrics, Subject};
use crate::resource::{Resource, Scope};

/// The counters. A class is kept by number, so that counting makes no names.
#[derive(Debug, Default)]
pub(super) struct Counters {
    classes: BTreeMap<(Scope, ClassRef), Counts>,
    limits: BTreeMap<Scope, BTreeMap<String, Counts>>,
    /// Counted where nothing is changed.
    evaluations: Cell<u64>,
}

impl Core {
    /// Counts something for each of the needs.
    pub(super) fn count(&mut self, needs: &[Need], mut count: impl FnMut(&mut Counts)) {
        for &need in needs {
            match need {
                Need::Exclusion { site, class } => {
                    let scope = self.exclusions.get(site).scope;
                    count(self.counters.classes.entry((scope, class)).or_default());
                }
                Need::Capacity { site, .. } => {
                    let (resource, limit) = self.limits.name(site);
                    let limits = self.counters.limits.entry(resource.scope()).or_default();
                    match limits.get_mut(limit) {
                        Some(counts) => count(counts),
                        None => count(limits.entry(limit.clone()).or_default()),
                    }
                }
            }
        }
    }

    /// Counts that a request was held against one or all of its needs.
    pub(super) fn count_evaluation(&self) {
        let evaluations = &self.counters.evaluations;
        evaluations.set(evaluations.get().wrapping_add(1));
    }

    /// Counts a grant after a wait.
    pub(super) fn count_grant(&mut self, needs: &[Need], waited: Duration, overtakes: u32) {
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        self.count(needs, |counts| {
            counts.granted += 1;
            counts.waits_ms.record(waited_ms);
            counts.overtakes.record(u64::from(overtakes));
        });
    }

    pub(crate) fn used(&self, resource: &Resource, limit: &str) -> u64 {
        let slot = self.limits.find(&(resource.clone(), limit.to_owned()));
        slot.map_or(0, |slot| self.limits.get(slot).used)
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let mut metrics =
            Metrics { evaluations: self.counters.evaluations.get(), ..Metrics::default() };
        for (&(scope, class), counts) in &self.counters.classes {
            let (workload, class) = self.rules.class_name(class);
            let (workload, class) = (workload.to_owned(), class.to_owned());
            metrics.counts.insert(Subject::Class { scope, workload, class }, counts.clone());
        }
        for (&scope, limits) in &self.counters.limits {
            for (limit, counts) in limits {
                let limit = limit.clone();
                metrics.counts.insert(Subject::Limit { scope, limit }, counts.clone());
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
