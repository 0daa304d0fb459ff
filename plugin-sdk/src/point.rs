//! Recovery points as plugins see them.

use std::fmt;

use fsm_core::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ItemId, TakeId};

/// Names one recovery point, within its item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PointId(String);

impl PointId {
    /// Wraps the id.
    pub fn new(id: impl Into<String>) -> Self {
        PointId(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a recovery point holds, and so what it needs to be restored.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PointKind {
    /// Everything; needs no other point.
    #[default]
    Full,
    /// What changed since a full one.
    Differential,
    /// A stretch of the log, on top of the point before it.
    Log,
}

impl PointKind {
    /// The kind as one lower-case word.
    pub const fn as_str(self) -> &'static str {
        match self {
            PointKind::Full => "full",
            PointKind::Differential => "differential",
            PointKind::Log => "log",
        }
    }
}

impl fmt::Display for PointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a plugin notes about a point for itself, sealed into the point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PointNotes {
    /// Where the item stood when the backup **began**: compared at the next decision. Taken
    /// before the first byte is read, else changes during the backup are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change_token: Option<Value>,
    /// What the plugin needs at restore or for its chains (owner, mode, log positions).
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

impl PointNotes {
    /// No notes yet.
    pub fn new() -> Self {
        PointNotes::default()
    }

    /// Adds where the item stood when the backup began.
    #[must_use]
    pub fn change_token(mut self, token: Value) -> Self {
        self.change_token = Some(token);
        self
    }

    /// Adds what the plugin needs later.
    #[must_use]
    pub fn details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }
}

/// A recovery point: a restorable moment of one item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PointMeta {
    /// Its id.
    pub id: PointId,
    /// The item.
    pub item: ItemId,
    /// Its place among the item's points, counted from 1.
    pub seq: u64,
    /// What it holds.
    pub kind: PointKind,
    /// The moment that it restores.
    pub taken_at: Timestamp,
    /// The points that it needs directly.
    #[serde(default)]
    pub base: Vec<PointId>,
    /// The point whose data this one has again, if nothing had changed since.
    #[serde(default)]
    pub alias_of: Option<PointId>,
    /// What its plugin noted.
    #[serde(default)]
    pub notes: PointNotes,
    /// Its streams.
    #[serde(default)]
    pub streams: Vec<StreamInfo>,
}

impl PointMeta {
    /// A point without notes, bases or streams: for tests of planning.
    pub fn new(id: PointId, item: ItemId, seq: u64, kind: PointKind, taken_at: Timestamp) -> Self {
        PointMeta {
            id,
            item,
            seq,
            kind,
            taken_at,
            base: Vec::new(),
            alias_of: None,
            notes: PointNotes::new(),
            streams: Vec::new(),
        }
    }
}

/// One stream of a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamInfo {
    /// Its name, unique in the point.
    pub name: String,
    /// Bytes in it.
    pub length: u64,
}

/// Proof that a stream is durable: it survives a power cut, and is kept until it is sealed into a
/// point or released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The take that the stream belongs to.
    pub take: TakeId,
    /// Its name, unique in the take.
    pub stream: String,
    /// Bytes in it.
    pub length: u64,
    /// BLAKE3 of all of them, as 64 hexadecimal digits.
    pub hash: String,
}
