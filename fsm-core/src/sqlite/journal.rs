//! The journal's tables: one row a record, one row a run.

use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Row};

use super::{Store, error::about};
use crate::{
    Body, Journal, JournalError, JournalErrorKind, Loaded, Page, Pruned, Record, Retention, RunId,
    RunSnapshot, RunSummary, Timestamp,
};

const SCHEMA: &[&str] = &["
    CREATE TABLE fsm_run (
        run TEXT PRIMARY KEY,
        machine TEXT NOT NULL, version INTEGER NOT NULL, origin TEXT NOT NULL,
        status TEXT NOT NULL, state TEXT NOT NULL, entry INTEGER NOT NULL,
        data ANY NOT NULL,
        fault TEXT,
        enter_seq INTEGER NOT NULL, updated_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX fsm_run_unfinished ON fsm_run (run) WHERE status IN ('active', 'paused');
    CREATE TABLE fsm_record (
        run TEXT NOT NULL, seq INTEGER NOT NULL,
        at_ms INTEGER NOT NULL, kind TEXT NOT NULL, state TEXT, body TEXT NOT NULL,
        PRIMARY KEY (run, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE VIEW runs AS SELECT
        run, machine, version, origin, status, state, entry, data, fault,
        strftime('%Y-%m-%d %H:%M:%f', updated_ms / 1000.0, 'unixepoch') AS updated
        FROM fsm_run;
    CREATE VIEW history AS SELECT
        run, seq, strftime('%Y-%m-%d %H:%M:%f', at_ms / 1000.0, 'unixepoch') AS at,
        kind, state, body
        FROM fsm_record;
"];

/// The journal in a [`Store`]: tables `fsm_run` and `fsm_record`, and for people the views `runs`
/// and `history`.
#[derive(Clone, Debug)]
pub struct SqliteJournal {
    store: Store,
}

impl SqliteJournal {
    /// The journal of `store`, whose tables are made or brought up to date.
    ///
    /// # Errors
    ///
    /// As [`Store::migrate`].
    pub fn new(store: Store) -> Result<Self, JournalError> {
        store.migrate("fsm", SCHEMA)?;
        Ok(SqliteJournal { store })
    }

    /// Writes `records` inside somebody's transaction ([`Store::write`]): an embedder makes a
    /// run's first record durable together with what it is for.
    ///
    /// # Errors
    ///
    /// [`JournalErrorKind::Conflict`] if a record of that run and number exists.
    pub fn stage(tx: &Connection, records: &[Record]) -> Result<(), JournalError> {
        for record in records {
            stage_one(tx, record)
                .map_err(|error| about(format!("{} record {}", record.run, record.seq), error))?;
        }
        Ok(())
    }
}

fn stage_one(tx: &Connection, record: &Record) -> rusqlite::Result<()> {
    let (run, at_ms) = (record.run.as_str(), record.at.as_unix_ms());
    let state = if let Body::Enter { state, .. } = &record.body { Some(state) } else { None };
    let body = serde_json::to_string(&record.body)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    tx.prepare_cached(
        "INSERT INTO fsm_record (run, seq, at_ms, kind, state, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((run, record.seq, at_ms, record.body.kind(), state, body))?;
    match &record.body {
        Body::Enter { entry, machine, version, origin, state, data, .. } => {
            // Text where it is text, so that any SQLite tool shows it.
            let data: &dyn rusqlite::ToSql = match data.as_text() {
                Some(_) => &data.as_text(),
                None => &data.as_bytes(),
            };
            tx.prepare_cached(
                "INSERT INTO fsm_run
                 (run, machine, version, origin, status, state, entry, data, enter_seq, updated_ms)
                 VALUES (?1, ?2, ?3, ?4, 'active', ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (run) DO UPDATE SET
                 machine = ?2, version = ?3, origin = ?4, status = 'active', state = ?5,
                 entry = ?6, data = ?7, fault = NULL, enter_seq = ?8, updated_ms = ?9",
            )?
            .execute(rusqlite::params![
                run, machine, version, origin, state, entry, data, record.seq, at_ms
            ])?;
        }
        Body::Attempt { fault, .. } => update(tx, run, "active", Some(&fault.to_string()), at_ms)?,
        Body::Pause { fault } => update(tx, run, "paused", Some(&fault.to_string()), at_ms)?,
        Body::Resume => update(tx, run, "active", None, at_ms)?,
        Body::End { ending, fault } => {
            let fault = fault.as_ref().map(ToString::to_string);
            update(tx, run, ending.as_str(), fault.as_deref(), at_ms)?;
        }
        // A paused run goes on when it is cancelled.
        Body::Cancel { .. } => {
            tx.prepare_cached(
                "UPDATE fsm_run SET status = 'active', updated_ms = ?2
                 WHERE run = ?1 AND status = 'paused'",
            )?
            .execute((run, at_ms))?;
        }
        _ => {}
    }
    Ok(())
}

fn update(
    tx: &Connection,
    run: &str,
    status: &str,
    fault: Option<&str>,
    at_ms: u64,
) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE fsm_run SET status = ?2, fault = ?3, updated_ms = ?4 WHERE run = ?1")?
        .execute((run, status, fault, at_ms))
        .map(|_| ())
}

/// The records of `run` from its last entry on, folded.
fn snapshot(connection: &Connection, run: &str, enter_seq: u64) -> Result<RunSnapshot, String> {
    let records = records(connection, run, enter_seq).map_err(|error| error.to_string())?;
    RunSnapshot::fold(records)
}

fn records(connection: &Connection, run: &str, from_seq: u64) -> Result<Vec<Record>, JournalError> {
    let mut select = connection.prepare_cached(
        "SELECT run, seq, at_ms, body FROM fsm_record WHERE run = ?1 AND seq >= ?2 ORDER BY seq",
    )?;
    let rows = select.query_map((run, from_seq), record)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let unreadable = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    let run: String = row.get(0)?;
    let body: String = row.get(3)?;
    Ok(Record {
        run: RunId::new(run).map_err(|error| unreadable(0, error.into()))?,
        seq: row.get(1)?,
        at: Timestamp::from_unix_ms(row.get(2)?),
        body: serde_json::from_str(&body).map_err(|error| unreadable(3, error.into()))?,
    })
}

impl Journal for SqliteJournal {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), JournalError>> {
        Box::pin(self.store.write(move |tx| SqliteJournal::stage(tx, &records)))
    }

    fn load(&self, run: &RunId) -> BoxFuture<'static, Result<Option<RunSnapshot>, JournalError>> {
        let run = run.clone();
        Box::pin(self.store.read(move |connection| {
            let enter_seq = connection
                .prepare_cached("SELECT enter_seq FROM fsm_run WHERE run = ?1")?
                .query_row([run.as_str()], |row| row.get::<_, u64>(0))
                .optional()?;
            let folded = enter_seq.map(|enter_seq| snapshot(connection, run.as_str(), enter_seq));
            folded.transpose().map_err(|why| {
                JournalError::new(JournalErrorKind::Damaged, run.as_str()).caused_by(why)
            })
        }))
    }

    fn unfinished(
        &self,
        _: Option<&RunId>,
        _: usize,
    ) -> BoxFuture<'static, Result<Vec<Loaded>, JournalError>> {
        Box::pin(self.store.read(|connection| {
            let mut select = connection.prepare_cached(
                "SELECT run, enter_seq FROM fsm_run WHERE status IN ('active', 'paused') ORDER BY run",
            )?;
            let rows = select.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
            let mut unfinished = Vec::new();
            for row in rows {
                let (run, enter_seq) = row?;
                let snapshot = snapshot(connection, &run, enter_seq);
                match RunId::new(run) {
                    Ok(run) => unfinished.push(Loaded { run, snapshot }),
                    Err(error) => tracing::error!(%error, "a run without a usable id is left out"),
                }
            }
            Ok(unfinished)
        }))
    }

    fn history(&self, run: &RunId) -> BoxFuture<'static, Result<Vec<Record>, JournalError>> {
        let run = run.clone();
        Box::pin(self.store.read(move |connection| records(connection, run.as_str(), 0)))
    }

    fn list(&self, _: Page) -> BoxFuture<'static, Result<Vec<RunSummary>, JournalError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn head(&self, _: &RunId) -> BoxFuture<'static, Result<Option<u64>, JournalError>> {
        Box::pin(async { Ok(None) })
    }

    fn prune(
        &self,
        _: Retention,
        _: Timestamp,
    ) -> BoxFuture<'static, Result<Pruned, JournalError>> {
        Box::pin(async { Ok(Pruned::default()) })
    }
}
