//! What a journal keeps of a run: records, one durable write each.

use serde::{Deserialize, Serialize};

use crate::{Data, Ending, Fault, RunId, Timestamp};

/// One record of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The run.
    pub run: RunId,
    /// Its place among the run's records, counted from 1 without a gap.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// What happened.
    pub body: Body,
}

/// What happened to a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Body {
    /// It entered a state. Complete in itself: a run can be continued from its last one alone.
    Enter {
        /// Counted over the run from 1.
        entry: u64,
        /// The machine's name.
        machine: String,
        /// The machine's version.
        version: u32,
        /// Who registered the machine (a plugin and its version), as the embedder names it.
        origin: String,
        /// [`Graph::fingerprint`](crate::Graph::fingerprint) of the machine.
        graph: String,
        /// The state's name.
        state: String,
        /// Its data.
        data: Data,
        /// Its step runs no sooner than this.
        wake_at: Option<Timestamp>,
        /// The request to cancel that is not settled yet.
        cancel: Option<String>,
    },
    /// An effect is about to run.
    Intent {
        /// The effect's name.
        effect: String,
    },
    /// An effect has run.
    Result {
        /// The effect's name.
        effect: String,
        /// What it returned.
        data: Data,
    },
    /// An attempt at the state failed, and another one follows.
    Attempt {
        /// Which attempt, counted over the entry from 1.
        attempt: u32,
        /// Why it failed.
        fault: Fault,
        /// When the next one starts.
        next_at: Timestamp,
    },
    /// Somebody asked the run to stop.
    Cancel {
        /// Why.
        reason: String,
    },
    /// No attempt is left, and the state's policy leaves what follows to an operator.
    Pause {
        /// Why the last attempt failed.
        fault: Fault,
    },
    /// An operator let a paused run continue, with all its attempts.
    Resume,
    /// It ended.
    End {
        /// How.
        ending: Ending,
        /// Why, unless it completed.
        fault: Option<Fault>,
    },
}

impl Body {
    /// The kind as one lower-case word.
    pub const fn kind(&self) -> &'static str {
        match self {
            Body::Enter { .. } => "enter",
            Body::Intent { .. } => "intent",
            Body::Result { .. } => "result",
            Body::Attempt { .. } => "attempt",
            Body::Cancel { .. } => "cancel",
            Body::Pause { .. } => "pause",
            Body::Resume => "resume",
            Body::End { .. } => "end",
        }
    }
}
