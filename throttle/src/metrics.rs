//! What an admission has counted.

use std::collections::BTreeMap;

use crate::resource::Scope;

/// What an admission has counted since it was made. Counters never go back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// By class of a workload and by limit. A request counts once for each of its claims.
    pub counts: BTreeMap<Subject, Counts>,
    /// How often a request was held against one or all of its claims, to see whether it can
    /// start. The same on every machine; what a waiter adds to it does not grow with the
    /// number of those who wait.
    pub evaluations: u64,
    /// The units that are held beyond the capacity at this moment, by limit. Only limits
    /// that owe something are in it.
    pub debt: BTreeMap<Subject, u64>,
}

/// What a counter is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Subject {
    /// Exclusions of a class on resources of a scope.
    Class {
        /// The scope of the resources.
        scope: Scope,
        /// The workload that declares the class.
        workload: String,
        /// The proper name of the class.
        class: String,
    },
    /// Units of a limit of resources of a scope.
    Limit {
        /// The scope of the resources.
        scope: Scope,
        /// The name of the limit.
        limit: String,
    },
}

/// What became of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Requests that were handed in and not malformed.
    pub submitted: u64,
    /// Those that were granted; one that was revoked and granted again counts again.
    pub granted: u64,
    /// Those that a rule rejected.
    pub rejected: u64,
    /// Those that were not to wait, or could not without a deadlock.
    pub refused: u64,
    /// Those whose deadline came first.
    pub expired: u64,
    /// Those whose future was dropped while they waited.
    pub cancelled: u64,
    /// Those that were one with another request.
    pub coalesced: u64,
    /// Grants that were taken back because nobody came for them.
    pub revoked: u64,
    /// How long those that were granted had waited, in milliseconds.
    pub waits_ms: Histogram<WaitBounds>,
    /// How often those that were granted had been overtaken.
    pub overtakes: Histogram<OvertakeBounds>,
}

/// The bounds of a histogram.
pub trait Bounds: sealed::Sealed {
    /// The largest value of each bucket but the last, which has no bound.
    const BOUNDS: [u64; 7];
}

/// From a tenth of a second to six hours, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitBounds;

/// From none to more than 256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OvertakeBounds;

impl Bounds for WaitBounds {
    const BOUNDS: [u64; 7] = [100, 1_000, 10_000, 60_000, 600_000, 3_600_000, 21_600_000];
}

impl Bounds for OvertakeBounds {
    const BOUNDS: [u64; 7] = [0, 1, 4, 16, 64, 128, 256];
}

mod sealed {
    pub trait Sealed: Default {}
    impl Sealed for super::WaitBounds {}
    impl Sealed for super::OvertakeBounds {}
}

/// How many values fell into each of eight buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram<B> {
    counts: [u64; 8],
    bounds: std::marker::PhantomData<B>,
}

impl Counts {
    /// Counts so many requests that were granted as soon as they were handed in.
    pub(crate) fn handed_in_and_granted(&mut self, times: u64) {
        self.submitted += times;
        self.granted_at_once(times);
    }

    /// Counts so many grants without a wait.
    pub(crate) fn granted_at_once(&mut self, times: u64) {
        self.granted += times;
        self.waits_ms.record(0, times);
        self.overtakes.record(0, times);
    }
}

impl<B: Bounds> Histogram<B> {
    pub(crate) fn record(&mut self, value: u64, times: u64) {
        let bucket = B::BOUNDS.iter().position(|&bound| value <= bound);
        self.counts[bucket.unwrap_or(B::BOUNDS.len())] += times;
    }

    /// Every bucket with its largest value; the last one has none.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let bounds = B::BOUNDS.into_iter().map(Some).chain([None]);
        bounds.zip(self.counts)
    }

    /// How many values there are.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}
