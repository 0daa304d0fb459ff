//! The journal over the store: records are appended, and a run is one row beside them.

use futures::future::{BoxFuture, ready};
use rusqlite::{
    Connection, OptionalExtension, Row,
    types::{Type, ValueRef},
};

use super::{
    Store,
    append::append,
    chain::{Chain, run_id},
    prune::prune,
    schema::SCHEMA,
    sealed::Sealed,
};
use crate::{
    Journal, JournalError, JournalErrorKind, Loaded, Page, Pruned, Record, Retention, RunId,
    RunSnapshot, RunSummary, Standing, Timestamp,
};

/// The journal in a [`Store`]: tables that begin with `fsm_`, and for people the views `runs` and
/// `history`.
///
/// Each record carries a checksum, and is read along the chain of its run's records; what does
/// not fit is [`JournalErrorKind::Damaged`], and concerns its run alone. Whoever mends a record by
/// hand has to know that. Times after the year 292,000,000 are stored as that.
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
    /// [`JournalErrorKind::Conflict`] if a record does not follow its run's last one. The work
    /// that hears of an error must itself fail, so that its transaction leaves nothing behind.
    pub fn stage(tx: &Connection, records: &[Record]) -> Result<(), JournalError> {
        let sealed: Vec<_> = records.iter().cloned().map(Sealed::new).collect::<Result<_, _>>()?;
        append(tx, &sealed)
    }
}

impl Journal for SqliteJournal {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), JournalError>> {
        let sealed: Result<Vec<_>, _> = records.into_iter().map(Sealed::new).collect();
        match sealed {
            Ok(records) => Box::pin(self.store.append(records)),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    fn load(&self, run: &RunId) -> BoxFuture<'static, Result<Option<RunSnapshot>, JournalError>> {
        let run = run.clone();
        Box::pin(self.store.read(move |connection| {
            let chain = Chain::of(connection, &run)?;
            chain.map(|chain| chain.snapshot(connection)).transpose()
        }))
    }

    fn unfinished(
        &self,
        after: Option<&RunId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Loaded>, JournalError>> {
        let after = after.cloned();
        Box::pin(self.store.read(move |connection| unfinished(connection, after.as_ref(), limit)))
    }

    fn list(&self, page: Page) -> BoxFuture<'static, Result<Vec<RunSummary>, JournalError>> {
        Box::pin(self.store.read(move |connection| list(connection, &page)))
    }

    fn history(&self, run: &RunId) -> BoxFuture<'static, Result<Vec<Record>, JournalError>> {
        let run = run.clone();
        Box::pin(self.store.read(move |connection| match Chain::of(connection, &run)? {
            Some(chain) => chain.records(connection, chain.first_seq),
            None => Ok(Vec::new()),
        }))
    }

    fn head(&self, run: &RunId) -> BoxFuture<'static, Result<Option<u64>, JournalError>> {
        let run = run.clone();
        Box::pin(self.store.read(move |connection| {
            let mut select =
                connection.prepare_cached("SELECT last_seq FROM fsm_run WHERE run = ?1")?;
            Ok(select.query_row([run.as_str()], |row| row.get(0)).optional()?)
        }))
    }

    fn prune(
        &self,
        retention: Retention,
        now: Timestamp,
    ) -> BoxFuture<'static, Result<Pruned, JournalError>> {
        Box::pin(prune(self.store.clone(), retention, now))
    }
}

fn unfinished(
    connection: &Connection,
    after: Option<&RunId>,
    limit: usize,
) -> Result<Vec<Loaded>, JournalError> {
    let mut select = connection.prepare_cached(
        "SELECT run, id, first_seq, enter_seq, last_seq, last_id FROM fsm_run
         WHERE ended_ms IS NULL AND run > ?1 ORDER BY run",
    )?;
    let mut rows = select.query([after.map_or("", RunId::as_str)])?;
    let mut unfinished = Vec::new();
    while unfinished.len() < limit
        && let Some(row) = rows.next()?
    {
        let run = match run_id(row, 0) {
            Ok(run) => run,
            Err(error) => {
                tracing::error!(%error, "a run without a usable id is left out");
                continue;
            }
        };
        let chain = Chain::read(row).map_err(|error| super::error::about(run.as_str(), error));
        let snapshot = match chain.and_then(|chain| chain.snapshot(connection)) {
            Ok(snapshot) => Ok(snapshot),
            Err(error) if error.kind() == JournalErrorKind::Damaged => Err(chain_of(&error)),
            Err(error) => return Err(error),
        };
        unfinished.push(Loaded { run, snapshot });
    }
    Ok(unfinished)
}

/// `error` and its causes, as one text.
fn chain_of(error: &JournalError) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn list(connection: &Connection, page: &Page) -> Result<Vec<RunSummary>, JournalError> {
    // The page filters again, row by row; this only lets the index of unfinished runs serve.
    let mut select = connection.prepare_cached(if page.unfinished {
        "SELECT run, parent, machine, version, origin, state, entry, status, wake_ms, updated_ms
         FROM fsm_run WHERE run > ?1 AND ended_ms IS NULL ORDER BY run"
    } else {
        "SELECT run, parent, machine, version, origin, state, entry, status, wake_ms, updated_ms
         FROM fsm_run WHERE run > ?1 ORDER BY run"
    })?;
    let mut rows = select.query([page.after.as_ref().map_or("", RunId::as_str)])?;
    let mut shown = Vec::new();
    while shown.len() < page.limit
        && let Some(row) = rows.next()?
    {
        match summary(row) {
            Ok(summary) if page.shows(&summary) => shown.push(summary),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "a run that cannot be read is left out"),
        }
    }
    Ok(shown)
}

fn summary(row: &Row<'_>) -> rusqlite::Result<RunSummary> {
    Ok(RunSummary {
        run: run_id(row, 0)?,
        parent: if row.get_ref(1)? == ValueRef::Null { None } else { Some(run_id(row, 1)?) },
        machine: row.get(2)?,
        version: row.get(3)?,
        origin: row.get(4)?,
        state: row.get(5)?,
        entry: row.get(6)?,
        standing: standing(row.get_ref(7)?.as_str()?)?,
        wake_at: row.get::<_, Option<u64>>(8)?.map(Timestamp::from_unix_ms),
        updated: Timestamp::from_unix_ms(row.get(9)?),
    })
}

fn standing(word: &str) -> rusqlite::Result<Standing> {
    Ok(match word {
        "active" => Standing::Active,
        "paused" => Standing::Paused,
        ending => Standing::Ended(serde_json::from_value(ending.into()).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(7, Type::Text, Box::new(error))
        })?),
    })
}
