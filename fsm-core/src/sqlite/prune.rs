//! Forgetting, in pieces.
//!
//! **How.** What goes is first cut off: the run's row is deleted, or its `first_seq` moved, in one
//! small transaction that also notes the loose end of the chain in `fsm_garbage`. From then on
//! nobody sees those records. Their rows are deleted afterwards, a limited number in each
//! transaction, so that an append never waits for long; what a process that died has left there,
//! the next one sweeps.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, chain::run_id, sealed::millis};
use crate::{JournalError, Pruned, Retention, RunId, Timestamp};

/// Runs that one transaction looks at.
const RUNS_MAX: usize = 256;
/// Records that one transaction deletes, or one read walks over.
const RECORDS_MAX: u64 = 1_000;

/// Forgets what `retention` lets go at the time `now`.
pub(super) async fn prune(
    store: Store,
    retention: Retention,
    now: Timestamp,
) -> Result<Pruned, JournalError> {
    let mut pruned = Pruned::default();
    forget(&store, retention, now, &mut pruned).await?;
    if let Some(most) = retention.records() {
        trim(&store, most, &mut pruned).await?;
    }
    while store.write(sweep).await? {}
    Ok(pruned)
}

/// An ended run that nobody needs any more but for its history, by the time of its end.
struct Finished {
    id: i64,
    run: RunId,
    ended: Timestamp,
    records: u64,
}

/// Ended runs whose parent, if they have one, has ended too.
const FREE: &str = "FROM fsm_run AS child WHERE ended_ms IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM fsm_run AS elder WHERE elder.run = child.parent AND elder.ended_ms IS NULL)";

/// Forgets ended runs, oldest end first, until one may stay.
async fn forget(
    store: &Store,
    retention: Retention,
    now: Timestamp,
    pruned: &mut Pruned,
) -> Result<(), JournalError> {
    let mut surplus = match retention.count() {
        Some(kept) => surplus(store, kept).await?,
        None if retention.age().is_none() => return Ok(()),
        None => 0,
    };
    let mut after = (-1, String::new());
    loop {
        let from = after.clone();
        let (gone, last, more) = store
            .write(move |tx| {
                let mut gone = Pruned::default();
                let (runs, mut more) = finished(tx, &from)?;
                let mut last = from;
                for run in runs {
                    let old = retention.age().is_some_and(|age| now.since(run.ended) > age);
                    if !old && gone.runs >= surplus {
                        more = false;
                        break;
                    }
                    cut_off(tx, run.id)?;
                    gone.runs += 1;
                    gone.records += run.records;
                    last = (millis(run.ended), run.run.as_str().to_owned());
                }
                Ok::<_, JournalError>((gone, last, more))
            })
            .await?;
        pruned.runs += gone.runs;
        pruned.records += gone.records;
        surplus = surplus.saturating_sub(gone.runs);
        after = last;
        if !more {
            return Ok(());
        }
    }
}

/// How many ended runs there are beyond the `kept` ones.
async fn surplus(store: &Store, kept: usize) -> Result<u64, JournalError> {
    let free: u64 = store
        .read(|connection| {
            let sql = format!("SELECT count(*) {FREE}");
            Ok::<_, JournalError>(connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
        })
        .await?;
    Ok(free.saturating_sub(kept as u64))
}

/// The next ended runs after `after`, and whether there may be more.
fn finished(tx: &Connection, after: &(i64, String)) -> rusqlite::Result<(Vec<Finished>, bool)> {
    let mut select = tx.prepare_cached(&format!(
        "SELECT id, run, ended_ms, last_seq - first_seq + 1 {FREE}
         AND (ended_ms, run) > (?1, ?2) ORDER BY ended_ms, run LIMIT ?3"
    ))?;
    let read = |row: &Row<'_>| {
        Ok(Finished {
            id: row.get(0)?,
            run: run_id(row, 1)?,
            ended: Timestamp::from_unix_ms(row.get(2)?),
            records: row.get(3)?,
        })
    };
    let runs = select.query_map(params![after.0, after.1, RUNS_MAX], read)?;
    let runs = runs.collect::<Result<Vec<_>, _>>()?;
    let more = runs.len() == RUNS_MAX;
    Ok((runs, more))
}

fn cut_off(tx: &Connection, id: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO fsm_garbage (last_id, run_id, first_seq, last_seq)
         SELECT last_id, id, first_seq, last_seq FROM fsm_run
         WHERE id = ?1 AND last_id IS NOT NULL",
    )?
    .execute([id])?;
    tx.prepare_cached("DELETE FROM fsm_run WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// A run with more records than it may keep.
#[derive(Clone)]
struct Long {
    id: i64,
    first_seq: u64,
    /// The first one that stays, if all that are before it can go.
    keep_seq: u64,
    /// A record at or after it, from which the way back to it is short.
    known_seq: u64,
    known_id: Option<i64>,
}

/// Cuts off the oldest records of runs that have more than `most`, up to their last entry.
async fn trim(store: &Store, most: u64, pruned: &mut Pruned) -> Result<(), JournalError> {
    let mut after = 0;
    loop {
        let runs =
            store.read(move |connection| Ok::<_, JournalError>(long(connection, after, most)?));
        let runs = runs.await?;
        let Some(last) = runs.last() else { return Ok(()) };
        after = last.id;
        for mut run in runs {
            while run.known_seq > run.keep_seq && run.known_id.is_some() {
                let walked =
                    store.read(move |connection| Ok::<_, JournalError>(walk(connection, run)?));
                run = walked.await?;
            }
            let Some(keep_id) = run.known_id else {
                // Its records are damaged, and stay until somebody has looked at them.
                continue;
            };
            let shorten = move |tx: &Connection| shorten(tx, &run, keep_id);
            pruned.records += store.write(move |tx| Ok::<_, JournalError>(shorten(tx)?)).await?;
        }
    }
}

fn long(connection: &Connection, after: i64, most: u64) -> rusqlite::Result<Vec<Long>> {
    let mut select = connection.prepare_cached(
        "SELECT id, first_seq, min(last_seq + 1 - ?2, enter_seq), enter_seq, enter_id,
         last_seq, last_id FROM fsm_run
         WHERE id > ?1 AND min(last_seq + 1 - ?2, enter_seq) > first_seq ORDER BY id LIMIT ?3",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let runs = select.query_map(params![after, most, RUNS_MAX], |row| {
        Ok(Long {
            id: row.get(0)?,
            first_seq: row.get(1)?,
            keep_seq: row.get(2)?,
            known_seq: row.get(3)?,
            known_id: row.get(4)?,
        })
    })?;
    runs.collect()
}

/// Goes some way back along the chain towards the record that stays first. A chain that breaks off
/// has no `known_id`.
fn walk(connection: &Connection, mut run: Long) -> rusqlite::Result<Long> {
    let mut walked = 0;
    while run.known_seq > run.keep_seq && walked < RECORDS_MAX {
        walked += 1;
        run.known_id = before(connection, run.known_id, run.id, run.known_seq)?.flatten();
        run.known_seq -= 1;
    }
    Ok(run)
}

/// What the record at `id` says is before it; `None` if that is not record `seq` of the run.
fn before(
    connection: &Connection,
    id: Option<i64>,
    run: i64,
    seq: u64,
) -> rusqlite::Result<Option<Option<i64>>> {
    connection
        .prepare_cached("SELECT prev FROM fsm_record WHERE id = ?1 AND run_id = ?2 AND seq = ?3")?
        .query_row(params![id, run, seq], |row| row.get(0))
        .optional()
}

/// Makes the record at `keep_id` the run's first one. Answers how many went.
fn shorten(tx: &Connection, run: &Long, keep_id: i64) -> rusqlite::Result<u64> {
    let shortened = tx
        .prepare_cached("UPDATE fsm_run SET first_seq = ?3 WHERE id = ?1 AND first_seq = ?2")?
        .execute(params![run.id, run.first_seq, run.keep_seq])?;
    if shortened == 0 {
        // Somebody else was here in the meantime.
        return Ok(0);
    }
    if let Some(Some(last_id)) = before(tx, Some(keep_id), run.id, run.keep_seq)? {
        tx.prepare_cached(
            "INSERT INTO fsm_garbage (last_id, run_id, first_seq, last_seq) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![last_id, run.id, run.first_seq, run.keep_seq - 1])?;
    }
    Ok(run.keep_seq - run.first_seq)
}

/// Deletes some of what was cut off. Answers whether there may be more.
fn sweep(tx: &Connection) -> Result<bool, JournalError> {
    let mut left = RECORDS_MAX;
    while left > 0 {
        let loose = tx
            .prepare_cached("SELECT last_id, run_id, first_seq, last_seq FROM fsm_garbage LIMIT 1")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        let Some((last_id, run, first_seq, last_seq)) = loose else { return Ok(false) };
        let (last_id, run, first_seq, last_seq): (i64, i64, u64, u64) =
            (last_id, run, first_seq, last_seq);
        let (mut next, mut seq) = (Some(last_id), last_seq);
        while let Some(id) = next
            && seq >= first_seq
            && left > 0
        {
            next = before(tx, Some(id), run, seq)?.flatten();
            tx.prepare_cached("DELETE FROM fsm_record WHERE id = ?1 AND run_id = ?2 AND seq = ?3")?
                .execute(params![id, run, seq])?;
            seq -= 1;
            left -= 1;
        }
        tx.prepare_cached("DELETE FROM fsm_garbage WHERE last_id = ?1")?.execute([last_id])?;
        if let Some(id) = next.filter(|_| seq >= first_seq) {
            tx.prepare_cached(
                "INSERT INTO fsm_garbage (last_id, run_id, first_seq, last_seq)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![id, run, first_seq, seq])?;
        }
    }
    Ok(true)
}
