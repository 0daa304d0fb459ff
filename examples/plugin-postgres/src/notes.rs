//! What is noted about a point: all that planning and restoring need to know of it.

use plugin_sdk::{Fault, PointMeta, PointNotes, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lsn::{Lsn, SegmentSize};

/// One history of one cluster: what belongs to another cannot be replayed onto it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The number that a cluster is given when it is made, and keeps.
    pub system_id: String,
    /// Which of its histories: recovery to an earlier moment begins another one.
    pub timeline: u32,
    /// How its log is cut.
    pub segment_bytes: SegmentSize,
}

/// The notes of a full point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Whose.
    #[serde(flatten)]
    pub lineage: Lineage,
    /// Where replay begins.
    pub start: Lsn,
    /// The checkpoint that replay begins with.
    pub checkpoint: Lsn,
    /// Where the backup is consistent. The log up to the end of this segment is in it.
    pub stop: Lsn,
    /// When it was consistent, by the server's clock.
    pub stopped_at: Timestamp,
    /// The server's version as a number: 150004 is 15.4.
    pub server_version: u32,
}

/// The notes of a log point: the log from `from` to `to`, both at the beginning of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wal {
    /// Whose.
    #[serde(flatten)]
    pub lineage: Lineage,
    /// Where it begins.
    pub from: Lsn,
    /// Where it ends.
    pub to: Lsn,
    /// A time, by the server's clock, up to which everything that was committed is in it; a
    /// transaction that was committed later is in it, too, so that a replay that is to stop at
    /// this time, or before, finds where.
    pub covered_at: Timestamp,
}

/// The notes of a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "content", rename_all = "snake_case")]
pub enum Notes {
    /// A whole cluster.
    Base(Base),
    /// A stretch of its log.
    Wal(Wal),
}

impl Notes {
    /// The notes of `point`.
    ///
    /// # Errors
    ///
    /// A permanent fault if they cannot be read: a newer version of this plugin wrote them.
    pub fn of(point: &PointMeta) -> Result<Self, Fault> {
        Notes::deserialize(&point.notes.details).map_err(|error| {
            let message = format!("the notes of recovery point {} cannot be read", point.id);
            Fault::permanent("postgres.notes", message)
                .caused_by(&error)
                .advise("it was made by a newer version of plugin-postgres: upgrade this one")
        })
    }

    /// Whose they are.
    #[must_use]
    pub fn lineage(&self) -> &Lineage {
        match self {
            Notes::Base(base) => &base.lineage,
            Notes::Wal(wal) => &wal.lineage,
        }
    }

    /// Puts them into a point, with the transactions that had ended before it: while the server
    /// names the same ones, nothing has been committed since.
    pub(crate) fn into_point(self, snapshot: String) -> Result<PointNotes, Fault> {
        let details = document(&self)?;
        Ok(PointNotes::new().change_token(Value::String(snapshot)).details(details))
    }
}

/// `facts` as JSON.
pub(crate) fn document<T: Serialize>(facts: &T) -> Result<Value, Fault> {
    serde_json::to_value(facts).map_err(|error| {
        Fault::bug("postgres.document", "notes have no JSON form").caused_by(&error)
    })
}
