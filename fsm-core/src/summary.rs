//! A run in one line, as a list shows it.

use serde::{Deserialize, Serialize};

use crate::{Ending, RunId, RunSnapshot, Status, Timestamp};

/// A run without its data: what a list shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// The run that spawned it.
    pub parent: Option<RunId>,
    /// The machine's name.
    pub machine: String,
    /// The version of the machine that wrote the state.
    pub version: u32,
    /// Who registered the machine.
    pub origin: String,
    /// The state's name.
    pub state: String,
    /// Which entry into a state this is.
    pub entry: u64,
    /// Whether it runs, waits for an operator or has ended.
    pub standing: Standing,
    /// The state's step runs no sooner than this.
    pub wake_at: Option<Timestamp>,
    /// When its last record was written.
    pub updated: Timestamp,
}

/// A [`Status`] without its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It runs, or waits for a time, a signal or a child.
    Active,
    /// It waits for an operator.
    Paused,
    /// It ended.
    Ended(Ending),
}

impl Standing {
    /// The standing as one lower-case word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Standing::Active => "active",
            Standing::Paused => "paused",
            Standing::Ended(ending) => ending.as_str(),
        }
    }
}

impl From<&Status> for Standing {
    fn from(status: &Status) -> Self {
        match status {
            Status::Active => Standing::Active,
            Status::Paused(_) => Standing::Paused,
            Status::Ended(ending, _) => Standing::Ended(*ending),
        }
    }
}

impl From<&RunSnapshot> for RunSummary {
    fn from(snapshot: &RunSnapshot) -> Self {
        RunSummary {
            run: snapshot.run.clone(),
            parent: snapshot.carried.parent.clone(),
            machine: snapshot.machine.clone(),
            version: snapshot.version,
            origin: snapshot.origin.clone(),
            state: snapshot.state.clone(),
            entry: snapshot.entry,
            standing: Standing::from(&snapshot.status),
            wake_at: snapshot.wake_at,
            updated: snapshot.at,
        }
    }
}
