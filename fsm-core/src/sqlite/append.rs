//! How records get into the tables.

use rusqlite::{Connection, params};

use super::{
    error::about,
    sealed::{Sealed, millis},
};
use crate::{Body, Fault, JournalError, JournalErrorKind, Record, RunId};

/// Writes `records` in the order given. After an error some of them may stand there: only the
/// first record's conflict is certain to have changed nothing.
pub(super) fn append(tx: &Connection, records: &[Sealed]) -> Result<(), JournalError> {
    for sealed in records {
        let Record { run, seq, .. } = &sealed.record;
        let subject = || format!("{run} record {seq}");
        if !append_one(tx, sealed).map_err(|error| about(subject(), error))? {
            return Err(JournalError::new(JournalErrorKind::Conflict, subject()));
        }
    }
    Ok(())
}

/// Whether `records` are of one run and follow one another, so that the guard of the first one
/// speaks for all.
pub(super) fn is_contiguous(records: &[Sealed]) -> bool {
    records.windows(2).all(|pair| {
        let (before, after) = (&pair[0].record, &pair[1].record);
        before.run == after.run && before.seq.checked_add(1) == Some(after.seq)
    })
}

/// Answers `false`, and has changed nothing, if the record does not follow its run's last one.
fn append_one(tx: &Connection, sealed: &Sealed) -> rusqlite::Result<bool> {
    let Sealed { record: Record { run, seq, at, body }, body: text, checksum } = sealed;
    if *seq == 1 {
        // A row that exists is left alone, and its `last_seq` refuses the record below.
        tx.prepare_cached("INSERT INTO fsm_run (run) VALUES (?1) ON CONFLICT DO NOTHING")?
            .execute([run.as_str()])?;
    }
    let state = if let Body::Enter { state, .. } = body { Some(state) } else { None };
    let inserted = tx
        .prepare_cached(
            "INSERT INTO fsm_record (run_id, seq, prev, at_ms, checksum, kind, state, body)
             SELECT id, ?2, last_id, ?3, ?4, ?5, ?6, ?7 FROM fsm_run
             WHERE run = ?1 AND last_seq = ?2 - 1",
        )?
        .execute(params![run.as_str(), seq, millis(*at), checksum, body.kind(), state, text])?;
    if inserted == 0 {
        return Ok(false);
    }
    let row = Row { tx, run, seq: *seq, id: tx.last_insert_rowid(), at_ms: millis(*at) };
    row.follow(body)?;
    Ok(true)
}

/// The row of a run that got a record.
struct Row<'a> {
    tx: &'a Connection,
    run: &'a RunId,
    seq: u64,
    id: i64,
    at_ms: i64,
}

impl Row<'_> {
    /// Brings the row up to date with `body`, as [`RunSnapshot::apply`](crate::RunSnapshot::apply)
    /// would.
    fn follow(&self, body: &Body) -> rusqlite::Result<()> {
        match body {
            Body::Enter {
                entry,
                machine,
                version,
                origin,
                state,
                wake_at,
                carried,
                graph: _,
                data: _,
            } => {
                let paused = carried.paused.as_ref();
                let parent = carried.parent.as_ref().map(RunId::as_str);
                self.set(
                    "UPDATE fsm_run SET last_seq = ?2, last_id = ?3, updated_ms = ?4,
                     enter_seq = ?2, enter_id = ?3, status = ?5, fault = ?6, entry = ?7,
                     machine = ?8, version = ?9, origin = ?10, state = ?11, wake_ms = ?12,
                     tried = 0, parent = ?13 WHERE run = ?1",
                    params![
                        self.run.as_str(),
                        self.seq,
                        self.id,
                        self.at_ms,
                        if paused.is_some() { "paused" } else { "active" },
                        paused.map(Fault::to_string),
                        entry,
                        machine,
                        version,
                        origin,
                        state,
                        wake_at.map(millis),
                        parent,
                    ],
                )
            }
            Body::Attempt { fault, next_at, .. } => self.set(
                "UPDATE fsm_run SET last_seq = ?2, last_id = ?3, updated_ms = ?4, fault = ?5,
                 wake_ms = ?6, tried = 1 WHERE run = ?1",
                params![
                    self.run.as_str(),
                    self.seq,
                    self.id,
                    self.at_ms,
                    fault.to_string(),
                    millis(*next_at)
                ],
            ),
            Body::Pause { fault, .. } => self.set(
                "UPDATE fsm_run SET last_seq = ?2, last_id = ?3, updated_ms = ?4, fault = ?5,
                 status = 'paused' WHERE run = ?1",
                params![self.run.as_str(), self.seq, self.id, self.at_ms, fault.to_string()],
            ),
            Body::Resume => self.set(
                "UPDATE fsm_run SET last_seq = ?2, last_id = ?3, updated_ms = ?4,
                 status = 'active', fault = NULL,
                 wake_ms = CASE tried WHEN 0 THEN wake_ms END, tried = 0 WHERE run = ?1",
                self.place(),
            ),
            Body::Redrive => self.set(
                "UPDATE fsm_run SET last_seq = ?2, last_id = ?3, updated_ms = ?4,
                 status = 'active', fault = NULL, ended_ms = NULL,
                 wake_ms = CASE tried WHEN 0 THEN wake_ms END, tried = 0 WHERE run = ?1",
                self.place(),
            ),
            // A paused run goes on when it is asked to stop.
            Body::Cancel { .. } | Body::Deadline => self.set(
                "UPDATE fsm_run SET last_seq = ?2, last_id = ?3, updated_ms = ?4,
                 status = 'active' WHERE run = ?1",
                self.place(),
            ),
            Body::End { ending, fault } => self.set(
                "UPDATE fsm_run SET last_seq = ?2, last_id = ?3, updated_ms = ?4, ended_ms = ?4,
                 status = ?5, fault = ?6 WHERE run = ?1",
                params![
                    self.run.as_str(),
                    self.seq,
                    self.id,
                    self.at_ms,
                    ending.as_str(),
                    fault.as_ref().map(Fault::to_string)
                ],
            ),
            Body::Intent { .. }
            | Body::Result { .. }
            | Body::Signal(_)
            | Body::ChildEnded { .. } => self.set(
                "UPDATE fsm_run SET last_seq = ?2, last_id = ?3, updated_ms = ?4 WHERE run = ?1",
                self.place(),
            ),
        }
    }

    fn place(&self) -> impl rusqlite::Params {
        (self.run.as_str(), self.seq, self.id, self.at_ms)
    }

    fn set(&self, update: &str, values: impl rusqlite::Params) -> rusqlite::Result<()> {
        self.tx.prepare_cached(update)?.execute(values).map(|_| ())
    }
}
