//! What a journal keeps of a run: records, one durable write each.

use serde::{Deserialize, Serialize};

use crate::{Child, Data, End, Ending, Fault, Pending, RunId, Timestamp};

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
        /// What the run takes along from the states before.
        #[serde(default, skip_serializing_if = "Carried::is_empty")]
        carried: Box<Carried>,
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
    /// Its deadline has passed; from here on it is as if somebody had asked it to stop.
    Deadline,
    /// It waits for an operator: because no attempt is left, or because the operator said so.
    Pause {
        /// Why.
        fault: Fault,
        /// Whether no step of the state was at work by then, so that none can be found interrupted
        /// as long as the run waits.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        between_steps: bool,
    },
    /// An operator let a paused run continue, with all its attempts.
    Resume,
    /// Somebody told it something.
    Signal(Pending),
    /// A child of it has ended.
    ChildEnded {
        /// The child.
        run: RunId,
        /// How it ended.
        end: End,
    },
    /// An operator let a failed run continue at the state in which it failed, with all its
    /// attempts.
    Redrive,
    /// It ended.
    End {
        /// How.
        ending: Ending,
        /// Why, unless it completed.
        fault: Option<Fault>,
    },
}

/// What a run takes along from state to state, beside the state's data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Carried {
    /// The request to cancel that is not settled yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel: Option<String>,
    /// Why somebody has asked the run to stop, for the first time and whether or not that is
    /// settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// When the run is asked to stop, unless it has ended by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// The run that spawned it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<RunId>,
    /// Why it waits for an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<Fault>,
    /// The runs that it spawned, until a state that waits for children has seen their ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Child>,
    /// The signals that no state has taken yet, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<Pending>,
    /// The ids of the last [`HEARD_MAX`](Carried::HEARD_MAX) signals, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub heard: Vec<String>,
}

impl Carried {
    /// How many signals' ids a run remembers: a signal that is repeated after that many others is
    /// taken for a new one.
    pub const HEARD_MAX: usize = 256;

    /// How many signals wait in a run at most: another one is refused until a state takes some.
    /// All of them are written at each transition.
    pub const SIGNALS_MAX: usize = 1_024;

    /// Whether there is nothing to take along.
    pub fn is_empty(&self) -> bool {
        *self == Carried::default()
    }
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
            Body::Deadline => "deadline",
            Body::Pause { .. } => "pause",
            Body::Resume => "resume",
            Body::Signal(_) => "signal",
            Body::ChildEnded { .. } => "child_ended",
            Body::Redrive => "redrive",
            Body::End { .. } => "end",
        }
    }
}
