//! Runs that a run spawned.

use serde::{Deserialize, Serialize};

use crate::{Data, End, RunId};

/// A run that a run spawned, as its parent sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// The key that the parent gave it.
    pub key: String,
    /// The child: `parent/entry/key`.
    pub run: RunId,
    /// How it ended; `None` while it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// A child that a step asks for. It is born with the step's transition, in one durable write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spawn {
    /// The key; unique among the parent's children of one entry.
    pub key: String,
    /// The child: `parent/entry/key`.
    pub run: RunId,
    /// The name of the child's machine.
    pub machine: String,
    /// The data of its initial state.
    pub input: Data,
}
