//! Operations: what somebody asked the engine for.

use std::fmt;

use fsm_core::{Fault, RunId, Timestamp};
use plugin_sdk::{ItemId, OperationId, Overwrite, Peer, PointId, PointKind, Until};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use throttle::Priority;

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Task {
    /// Makes a recovery point.
    Backup {
        /// Of which item.
        item: ItemId,
        /// Of which kind.
        kind: PointKind,
        /// Whether an unchanged item is backed up all the same.
        even_if_unchanged: bool,
    },
    /// Restores a recovery point.
    Restore {
        /// Of which item.
        item: ItemId,
        /// Which point.
        point: PointId,
        /// Where to, in the workload's terms; `None` is where it came from.
        target: Option<String>,
        /// Whether what is there may be replaced.
        overwrite: Overwrite,
        /// Where to stop, inside what the point covers; `None` is its end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Until>,
    },
    /// Does what a program of the workload has called for, and what is neither.
    Other {
        /// On which item.
        item: ItemId,
    },
}

impl Task {
    /// The item that it is about.
    pub fn item(&self) -> &ItemId {
        match self {
            Task::Backup { item, .. } | Task::Restore { item, .. } | Task::Other { item } => item,
        }
    }

    /// What it does, as one lower-case word.
    pub const fn verb(&self) -> &'static str {
        match self {
            Task::Backup { .. } => "backup",
            Task::Restore { .. } => "restore",
            Task::Other { .. } => "other",
        }
    }
}

/// How far an operation has come. The last four are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// It is written down.
    Accepted,
    /// It is decided what is to be done; it waits for its claims.
    Queued,
    /// Its run executes.
    Running,
    /// It did its work.
    Succeeded,
    /// Nothing needed to be done.
    Skipped,
    /// It did not do its work.
    Failed,
    /// It was asked to stop, and did.
    Cancelled,
}

impl Phase {
    /// Whether the operation has ended.
    pub const fn is_final(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Skipped | Phase::Failed | Phase::Cancelled)
    }

    /// The phase as one lower-case word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Accepted => "accepted",
            Phase::Queued => "queued",
            Phase::Running => "running",
            Phase::Succeeded => "succeeded",
            Phase::Skipped => "skipped",
            Phase::Failed => "failed",
            Phase::Cancelled => "cancelled",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        use Phase::{Accepted, Cancelled, Failed, Queued, Running, Skipped, Succeeded};
        [Accepted, Queued, Running, Succeeded, Skipped, Failed, Cancelled]
            .into_iter()
            .find(|phase| phase.as_str() == word)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What came of an operation that ended well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// A recovery point was made.
    #[non_exhaustive]
    BackedUp {
        /// The point.
        point: PointId,
        /// What it cost.
        stats: BackupStats,
        /// Why it was made, in the plugin's words.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Nothing had changed: a point was made of the data that is in the archive already.
    Skipped {
        /// Why, in the plugin's words.
        reason: String,
        /// The point that was made.
        point: PointId,
        /// The point whose data it has.
        alias_of: PointId,
    },
    /// A point was restored.
    Restored {
        /// The point.
        point: PointId,
        /// The plugin's report: the data of the state in which its machine ended.
        report: Value,
    },
    /// What a program of the workload had called for was done.
    Done {
        /// The data of the state in which the machine ended.
        result: Value,
    },
}

/// Who called for an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CalledBy {
    /// The endpoint, by its name in the workload.
    pub endpoint: String,
    /// The process that called.
    pub peer: Peer,
}

/// What a backup cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BackupStats {
    /// Bytes that the plugin sent.
    pub read_bytes: u64,
    /// Of these, bytes that the archive did not have yet.
    pub new_bytes: u64,
    /// What the new bytes take in the archive, compressed and encrypted.
    pub stored_bytes: u64,
    /// Chunks of the stream that lay in buffers that the engine had lent: not copied on their way
    /// from the plugin to the archive, but once where they left a process of the plugin's own.
    pub lent_chunks: u64,
    /// Chunks that lay in memory of the plugin's own.
    pub foreign_chunks: u64,
}

/// Everything that is known of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OperationStatus {
    /// Its id.
    pub id: OperationId,
    /// What it does.
    pub task: Task,
    /// How far it has come.
    pub phase: Phase,
    /// The run that carries it out, once it is decided that there is one.
    pub run: Option<RunId>,
    /// What came of it, if it ended well.
    pub outcome: Option<Outcome>,
    /// Why it did not do its work.
    pub fault: Option<Fault>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it was asked to stop.
    pub cancel_at: Option<Timestamp>,
    /// How urgent it is; the class of its work decides if nothing was said.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// When it gives up waiting, unless it has begun to work by then.
    #[serde(default)]
    pub deadline: Option<Timestamp>,
    /// The operation whose outcome is this one's too, as one of the two is enough.
    #[serde(default)]
    pub follows: Option<OperationId>,
    /// The program whose call it was made of, if it was made of one.
    #[serde(default)]
    pub called_by: Option<CalledBy>,
    /// What it waits for at this moment, in this process.
    #[serde(default)]
    pub waits_for: Option<WaitsFor>,
    /// Why it stands still in this process, or why something of it does.
    #[serde(default)]
    pub stuck: Option<String>,
}

/// What an operation waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WaitsFor {
    /// What it lacks, in words: `1 streams of node`, `item sqlite/local//srv/orders.db (restore)`.
    pub what: String,
    /// Who stands in its way: the operations that hold what it lacks, then those before it.
    pub behind: Vec<OperationId>,
    /// All of it in a sentence, for people.
    pub sentence: String,
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}
