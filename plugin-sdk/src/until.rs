//! Where a restore stops.

use std::fmt;

use fsm_core::Timestamp;
use serde::{Deserialize, Serialize};

/// A moment inside what a point covers, at which a restore stops: a log covers every moment since
/// the point before it. Without one a restore goes to the end of its point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Until {
    /// What was committed up to this time, by the clock of the system that was backed up.
    Time(Timestamp),
    /// A place in the log, in the workload's own terms (a log sequence number, a named mark).
    Position(String),
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Until::Time(time) => write!(f, "{time}"),
            Until::Position(position) => f.write_str(position),
        }
    }
}
