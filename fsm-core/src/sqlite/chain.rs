//! A run's records, read backwards along the chain.

use rusqlite::{Connection, OptionalExtension, Row};

use super::{error::about, sealed::checksum};
use crate::{JournalError, JournalErrorKind, Record, RunId, RunSnapshot, Timestamp};

/// What the row of a run says of its records.
pub(super) struct Chain {
    pub(super) run: RunId,
    id: i64,
    pub(super) first_seq: u64,
    enter_seq: u64,
    last_seq: u64,
    last_id: Option<i64>,
}

impl Chain {
    /// From the columns `run, id, first_seq, enter_seq, last_seq, last_id` of `fsm_run`.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Chain {
            run: run_id(row, 0)?,
            id: row.get(1)?,
            first_seq: row.get(2)?,
            enter_seq: row.get(3)?,
            last_seq: row.get(4)?,
            last_id: row.get(5)?,
        })
    }

    pub(super) fn of(connection: &Connection, run: &RunId) -> Result<Option<Self>, JournalError> {
        let mut select = connection.prepare_cached(
            "SELECT run, id, first_seq, enter_seq, last_seq, last_id FROM fsm_run WHERE run = ?1",
        )?;
        let chain = select.query_row([run.as_str()], Chain::read);
        chain.optional().map_err(|error| about(run.as_str(), error))
    }

    /// Where the run stands: its records from its last entry into a state on, folded.
    ///
    /// # Errors
    ///
    /// [`JournalErrorKind::Damaged`] if they do not fit together.
    pub(super) fn snapshot(&self, connection: &Connection) -> Result<RunSnapshot, JournalError> {
        let records = self.records(connection, self.enter_seq.max(self.first_seq))?;
        let snapshot =
            RunSnapshot::fold(records).map_err(|why| self.damaged(self.last_seq, why))?;
        if snapshot.seq != self.last_seq {
            let why = format!("its records end at {}", snapshot.seq);
            return Err(self.damaged(self.last_seq, why));
        }
        Ok(snapshot)
    }

    /// The records from `from_seq` to the last one, in order.
    ///
    /// # Errors
    ///
    /// [`JournalErrorKind::Damaged`] if one of them is missing or is not what was written.
    pub(super) fn records(
        &self,
        connection: &Connection,
        from_seq: u64,
    ) -> Result<Vec<Record>, JournalError> {
        let mut select = connection.prepare_cached(
            "SELECT run_id, seq, prev, at_ms, checksum, body FROM fsm_record WHERE id = ?1",
        )?;
        let mut records = Vec::new();
        let mut id = self.last_id;
        for seq in (from_seq..=self.last_seq).rev() {
            let subject = || format!("{} record {seq}", self.run);
            let mut rows = select.query([id])?;
            let row = rows.next().map_err(|error| about(subject(), error))?;
            let row = row.ok_or_else(|| self.damaged(seq, "it is missing"))?;
            let stored = Stored::read(row).map_err(|error| about(subject(), error))?;
            records.push(self.open(seq, &stored).map_err(|why| self.damaged(seq, why))?);
            id = stored.prev;
        }
        records.reverse();
        Ok(records)
    }

    /// The record in `stored`, which should be number `seq`.
    fn open(&self, seq: u64, stored: &Stored<'_>) -> Result<Record, String> {
        if (stored.run_id, stored.seq) != (self.id, seq) {
            return Err("another record stands in its place".to_owned());
        }
        if checksum(self.run.as_str(), seq, stored.at_ms, stored.body) != stored.checksum {
            return Err("its checksum does not match".to_owned());
        }
        let body = serde_json::from_str(stored.body).map_err(|error| error.to_string())?;
        let at = u64::try_from(stored.at_ms).map_err(|error| error.to_string())?;
        Ok(Record { run: self.run.clone(), seq, at: Timestamp::from_unix_ms(at), body })
    }

    fn damaged(&self, seq: u64, why: impl Into<String>) -> JournalError {
        let subject = format!("{} record {seq}", self.run);
        JournalError::new(JournalErrorKind::Damaged, subject).caused_by(why.into())
    }
}

/// A row of `fsm_record`.
struct Stored<'a> {
    run_id: i64,
    seq: u64,
    prev: Option<i64>,
    at_ms: i64,
    checksum: u32,
    body: &'a str,
}

impl<'a> Stored<'a> {
    fn read(row: &'a Row<'_>) -> rusqlite::Result<Self> {
        Ok(Stored {
            run_id: row.get(0)?,
            seq: row.get(1)?,
            prev: row.get(2)?,
            at_ms: row.get(3)?,
            checksum: row.get(4)?,
            body: row.get_ref(5)?.as_str()?,
        })
    }
}

/// The run's id in the column at `index`.
pub(super) fn run_id(row: &Row<'_>, index: usize) -> rusqlite::Result<RunId> {
    RunId::new(row.get::<_, String>(index)?).map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(index, kind, Box::new(error))
    })
}
