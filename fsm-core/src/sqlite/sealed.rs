//! A record in the form in which it is stored.

use crate::{Body, JournalError, JournalErrorKind, Record, Timestamp};

/// A longer body is refused. SQLite takes rows of up to 1,000,000,000 bytes
/// (<https://sqlite.org/limits.html>).
const BODY_BYTES_MAX: usize = 1 << 29;

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
        // Refused here, where it is its run's matter alone: on the writer's thread a statement
        // that fails is taken for a failure of the disk.
        if let Some((kind, why)) = unstorable(&record, body.len()) {
            let subject = format!("{} record {}", record.run, record.seq);
            return Err(JournalError::new(kind, subject).caused_by(why));
        }
        let checksum = checksum(record.run.as_str(), record.seq, millis(record.at), &body);
        Ok(Sealed { record, body, checksum })
    }
}

/// Why SQLite has no room for `record`, whose body is so long, if it has none.
fn unstorable(record: &Record, body_bytes: usize) -> Option<(JournalErrorKind, &'static str)> {
    let entry = if let Body::Enter { entry, .. } = record.body { entry } else { 0 };
    if body_bytes > BODY_BYTES_MAX {
        return Some((JournalErrorKind::TooLong, "it is longer than half a gibibyte"));
    }
    let is_out_of_range = i64::try_from(record.seq.max(entry)).is_err();
    is_out_of_range.then_some((JournalErrorKind::Storage, "its number is out of range"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seq: u64, body_bytes: usize, refused: Option<JournalErrorKind>) {
        let run = crate::RunId::new("r").unwrap();
        let record = Record { run, seq, at: Timestamp::default(), body: Body::Resume };
        let unstorable = unstorable(&record, body_bytes).map(|(kind, _)| kind);
        assert_eq!(unstorable, refused, "{seq} {body_bytes}");
    }

    #[test]
    fn what_sqlite_has_no_room_for_is_refused() {
        check(1, BODY_BYTES_MAX, None);
        check(1, BODY_BYTES_MAX + 1, Some(JournalErrorKind::TooLong));
        check(i64::MAX as u64, 1, None);
        check(i64::MAX as u64 + 1, 1, Some(JournalErrorKind::Storage));
    }
}
