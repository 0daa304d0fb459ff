//! Those who share a transaction hear of nobody else's mistakes, and of the medium's the truth.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.
#![cfg(feature = "sqlite")]

mod store_support;

use fsm_core::{
    Journal, JournalError, JournalErrorKind,
    sqlite::{SqliteJournal, Store, rusqlite::Connection},
};
use futures::{executor::block_on, future::BoxFuture};

use self::store_support::{block, check_history, enter, enter_with, id};

/// An embedder's error, which does not tell what went wrong.
#[derive(Debug)]
struct Own;

impl From<JournalError> for Own {
    fn from(_: JournalError) -> Self {
        Own
    }
}

fn journal() -> (tempfile::TempDir, Store, SqliteJournal) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("state.db")).unwrap();
    let journal = SqliteJournal::new(store.clone()).unwrap();
    block_on(journal.append(vec![enter("r", 1)])).unwrap();
    (directory, store, journal)
}

fn set(store: &Store, pragma: &'static str) {
    block_on(store.write(move |tx| {
        let mut select = tx.prepare(pragma)?;
        let mut rows = select.query([])?;
        while rows.next()?.is_some() {}
        Ok::<_, JournalError>(())
    }))
    .unwrap();
}

/// The file may not grow any more, beyond what a few small records need.
fn fill(store: &Store) {
    let pages: u32 = block_on(store.write(|tx| {
        Ok::<_, JournalError>(tx.pragma_query_value(None, "page_count", |row| row.get(0))?)
    }))
    .unwrap();
    let limit: &'static str = format!("PRAGMA max_page_count = {pages}").leak();
    set(store, limit);
}

/// SQLite answers this by rolling back all of the transaction it is in.
fn too_much(tx: &Connection) -> Result<(), Own> {
    let inserted = tx.execute("INSERT INTO own_blob VALUES (zeroblob(100000))", []);
    assert!(tx.is_autocommit(), "{inserted:?}");
    inserted.map(drop).map_err(|_| Own)
}

#[test]
fn work_with_errors_of_its_own_breaks_nobody_elses_transaction() {
    let (_directory, store, journal) = journal();
    store.migrate("own", &["CREATE TABLE own_blob (blob BLOB)"]).unwrap();
    fill(&store);
    let blocked = block(&store);
    let before = journal.append(vec![enter("r", 2)]);
    let own: BoxFuture<'static, Result<(), Own>> = Box::pin(store.write(too_much));
    let after = journal.append(vec![enter("r", 3)]);
    drop(blocked);
    block_on(before).unwrap();
    block_on(own).unwrap_err();
    block_on(after).unwrap();
    assert_eq!(check_history(&journal, "r"), 3);
}

#[test]
fn a_full_medium_is_told_to_all_whose_records_it_cost_and_to_nobody_else() {
    let (_directory, store, journal) = journal();
    fill(&store);
    let blocked = block(&store);
    let before = journal.append(vec![enter("r", 2)]);
    let big = journal.append(vec![enter_with("big", 1, 100_000)]);
    let after = journal.append(vec![enter("s", 1)]);
    drop(blocked);
    assert_eq!(block_on(big).unwrap_err().kind(), JournalErrorKind::Full);
    let next = match block_on(before) {
        Ok(()) => 3,
        Err(error) => {
            assert_eq!(error.kind(), JournalErrorKind::Full, "{error}");
            2
        }
    };
    block_on(after).unwrap();
    assert_eq!(block_on(journal.head(&id("big"))).unwrap(), None);
    set(&store, "PRAGMA max_page_count = 1000000");
    block_on(journal.append(vec![enter_with("big", 1, 100_000)])).unwrap();
    block_on(journal.append(vec![enter("r", next)])).unwrap();
    assert_eq!(check_history(&journal, "r"), next);
    assert_eq!(check_history(&journal, "big"), 1);
}

#[test]
fn work_that_fails_takes_what_it_staged_with_it() {
    let (_directory, store, journal) = journal();
    let blocked = block(&store);
    let failing = store.write(|tx| {
        SqliteJournal::stage(tx, &[enter("r", 2), enter("new", 1)])?;
        SqliteJournal::stage(tx, &[enter("r", 2)])
    });
    let after = journal.append(vec![enter("r", 2)]);
    drop(blocked);
    assert_eq!(block_on(failing).unwrap_err().kind(), JournalErrorKind::Conflict);
    block_on(after).unwrap();
    assert_eq!(check_history(&journal, "r"), 2);
    assert_eq!(block_on(journal.head(&id("new"))).unwrap(), None);
}

#[test]
fn a_write_is_awaited_without_the_store() {
    let (_directory, store, journal) = journal();
    let later = |store: &Store| store.write(|tx| SqliteJournal::stage(tx, &[enter("r", 2)]));
    let write = later(&store.clone());
    drop(store);
    block_on(write).unwrap();
    assert_eq!(check_history(&journal, "r"), 2);
}

#[test]
fn a_log_that_is_brought_into_the_file_loses_nothing() {
    let (_directory, store, journal) = journal();
    for seq in 2..=50 {
        block_on(journal.append(vec![enter("r", seq)])).unwrap();
        if seq % 7 == 0 {
            block_on(store.checkpoint()).unwrap();
        }
    }
    assert_eq!(check_history(&journal, "r"), 50);
}

#[test]
fn the_log_does_not_grow_for_ever() {
    let (directory, _store, journal) = journal();
    let log = directory.path().join("state.db-wal");
    let mut longest = 0;
    for first in (2..20_000).step_by(200) {
        let records = (first..first + 200).map(|seq| enter_with("r", seq, 1_000)).collect();
        block_on(journal.append(records)).unwrap();
        longest = longest.max(std::fs::metadata(&log).unwrap().len());
    }
    assert!(longest < 1_500 * 2048, "{longest}");
}

#[test]
fn whoever_has_nothing_to_write_keeps_no_other_tool_from_it() {
    let (_directory, store, _journal) = journal();
    let other = Connection::open(store.path()).unwrap();
    other.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE; ROLLBACK").unwrap();
}
