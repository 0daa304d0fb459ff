//! What a runtime tells about its runs.

use serde::{Deserialize, Serialize};

use crate::{Data, Ending, Fault, Progress, RunId};

/// Hears of everything that happens to runs, in order for each run.
///
/// Called on the tasks of the runs: an observer that blocks, blocks them. One that panics has
/// heard of the event, and the run goes on.
pub trait Observer: Send + Sync + 'static {
    /// `event` has happened to `run`. What is durable was made durable before the call.
    fn observe(&self, run: &RunId, event: RunEvent);
}

impl Observer for () {
    fn observe(&self, _: &RunId, _: RunEvent) {}
}

/// Something that happened to a run.
///
/// Its beginning is none of these: whoever starts a run knows of it, and of the children that a run
/// has spawned its record of the next state tells. So the first state that is told is a run's
/// second one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunEvent {
    /// It entered a state, durably.
    Entered {
        /// The state's name.
        state: String,
        /// Counted over the run from 1.
        entry: u64,
    },
    /// An attempt failed; another one follows.
    AttemptFailed {
        /// Which one, counted over the entry from 1.
        attempt: u32,
        /// Why.
        fault: Fault,
    },
    /// Its step reported progress. Not durable.
    Progressed(Progress),
    /// It was told something, durably.
    Signalled {
        /// The signal's id.
        id: String,
        /// Its name.
        name: String,
    },
    /// Somebody asked it to stop, and said why.
    CancelRequested(String),
    /// It waits for an operator.
    Paused(Fault),
    /// An operator let it continue.
    Resumed,
    /// It cannot be run here: its machine is missing, or its state cannot be read. It stays in
    /// the journal and is tried again at the next start.
    Quarantined(String),
    /// The journal refused a record, or could not be read, and why. A run whose journal was full or
    /// busy tries again by itself; any other stands still in this process.
    Stalled(String),
    /// It ended.
    Ended(End),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct End {
    /// How.
    pub ending: Ending,
    /// The state in which it ended.
    pub state: String,
    /// The state's data: the result, if the state is terminal.
    pub data: Data,
    /// Why, unless it completed.
    pub fault: Option<Fault>,
}
