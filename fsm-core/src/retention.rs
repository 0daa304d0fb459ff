//! How much of the past a journal keeps.

use std::time::Duration;

/// What a journal may forget. Nothing by default.
///
/// A run that has not ended is never forgotten, and neither is a child whose parent has not
/// ended; of their histories nothing goes that is needed to continue them. The id of a run that was
/// forgotten is free again: a run that is started under it is another one, whose effects have the
/// keys of the first.
///
/// ```
/// use fsm_core::Retention;
/// use std::time::Duration;
///
/// let month = Retention::default()
///     .finished_for(Duration::from_secs(30 * 86_400))
///     .finished_count(100_000)
///     .records_per_run(10_000);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    finished_for: Option<Duration>,
    finished_count: Option<usize>,
    records_per_run: Option<u64>,
}

impl Retention {
    /// Forgets runs that ended longer ago than this.
    #[must_use]
    pub const fn finished_for(mut self, age: Duration) -> Self {
        self.finished_for = Some(age);
        self
    }

    /// Forgets all ended runs but this many, oldest end first.
    #[must_use]
    pub const fn finished_count(mut self, count: usize) -> Self {
        self.finished_count = Some(count);
        self
    }

    /// Forgets the oldest records of a run that has more than this many, up to its last entry
    /// into a state.
    #[must_use]
    pub const fn records_per_run(mut self, count: u64) -> Self {
        self.records_per_run = Some(count);
        self
    }

    /// How long an ended run is kept.
    pub const fn age(&self) -> Option<Duration> {
        self.finished_for
    }

    /// How many ended runs are kept.
    pub const fn count(&self) -> Option<usize> {
        self.finished_count
    }

    /// How many records of one run are kept.
    pub const fn records(&self) -> Option<u64> {
        self.records_per_run
    }
}

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ended runs.
    pub runs: u64,
    /// Records, those of the runs included.
    pub records: u64,
}
