//! How urgent a request is.

use serde::{Deserialize, Serialize};

/// How urgent a request is, from what can wait to what cannot.
///
/// A level is worth a fixed head start in time (see
/// [`Limits::priority_step`](crate::Limits::priority_step)): a request is examined as if
/// it had arrived that much earlier for each level. Everybody ages alike, so a low
/// request is never put behind one that arrives later than the difference.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Priority {
    /// Housekeeping.
    Low,
    /// Ordinary work.
    #[default]
    Normal,
    /// Work whose delay hurts, such as a log backup.
    High,
    /// Work that somebody is waiting for, such as a restore.
    Urgent,
}

impl Priority {
    /// How many head starts the priority is worth.
    pub(crate) fn level(self) -> i64 {
        self as i64
    }
}
