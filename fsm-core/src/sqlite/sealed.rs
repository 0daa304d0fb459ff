//! A record in the form in which it is stored.

use crate::{JournalError, JournalErrorKind, Record, Timestamp};

/// A record with its body written out and a checksum over what it says.
///
/// Made by whoever appends, so that the writer's thread, which all runs share, does not.
pub(super) struct Sealed {
    pub(super) record: Record,
    pub(super) body: String,
    pub(super) checksum: u32,
}

impl Sealed {
    pub(super) fn new(record: Record) -> Result<Self, JournalError> {
        let body = serde_json::to_string(&record.body).map_err(|error| {
            let subject = format!("{} record {}", record.run, record.seq);
            JournalError::new(JournalErrorKind::Storage, subject).caused_by(error)
        })?;
        let checksum = checksum(record.run.as_str(), record.seq, millis(record.at), &body);
        Ok(Sealed { record, body, checksum })
    }
}

/// CRC-32 of what makes a record: it finds a row that was changed, and one that stands in
/// another's place.
pub(super) fn checksum(run: &str, seq: u64, at_ms: i64, body: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(run.as_bytes());
    hasher.update(&seq.to_le_bytes());
    hasher.update(&at_ms.to_le_bytes());
    hasher.update(body.as_bytes());
    hasher.finalize()
}

/// `at` as SQLite can hold it: a time that never comes is the last one there is.
pub(super) fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_unix_ms()).unwrap_or(i64::MAX)
}
