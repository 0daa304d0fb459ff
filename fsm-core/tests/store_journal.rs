//! What the SQLite journal takes and refuses.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.
#![cfg(feature = "sqlite")]

mod store_support;

use fsm_core::{
    Body, Fault, Journal, JournalErrorKind, Page, Record, Timestamp,
    sqlite::{SqliteJournal, Store},
};
use futures::executor::block_on;

use self::store_support::{block, enter, id, record, tool};

fn journal() -> (tempfile::TempDir, Store, SqliteJournal) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("state.db")).unwrap();
    let journal = SqliteJournal::new(store.clone()).unwrap();
    (directory, store, journal)
}

#[track_caller]
fn check_refused(journal: &SqliteJournal, records: Vec<Record>) {
    let error = block_on(journal.append(records.clone())).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Conflict, "{records:?}");
}

#[test]
fn a_record_that_does_not_follow_is_refused_with_all_of_its_batch() {
    let (directory, _store, journal) = journal();
    check_refused(&journal, vec![enter("a", 2)]);
    check_refused(&journal, vec![enter("a", 0)]);
    block_on(journal.append(vec![enter("a", 1)])).unwrap();
    check_refused(&journal, vec![enter("a", 1)]);
    check_refused(&journal, vec![enter("a", 3)]);
    check_refused(&journal, vec![enter("a", 2), enter("a", 4)]);
    check_refused(&journal, vec![enter("a", 2), enter("a", 2)]);
    check_refused(&journal, vec![enter("b", 1), enter("a", 1)]);
    check_refused(&journal, vec![enter("a", 2), enter("b", 2)]);
    check_refused(&journal, vec![enter("a", 1), enter("a", 2)]);
    let tool = tool(&directory.path().join("state.db"));
    let count = |table: &str| {
        let sql = format!("SELECT count(*) FROM {table}");
        tool.query_row(&sql, [], |row| row.get::<_, u64>(0)).unwrap()
    };
    assert_eq!((count("fsm_run"), count("fsm_record")), (1, 1), "nothing was left behind");
    block_on(journal.append(vec![enter("b", 1), enter("a", 2), enter("b", 2)])).unwrap();
    assert_eq!((count("fsm_run"), count("fsm_record")), (2, 4));
}

#[test]
fn a_conflict_fails_none_of_those_who_share_the_transaction() {
    let (_directory, store, journal) = journal();
    let blocked = block(&store);
    let first = journal.append(vec![enter("a", 1)]);
    let taken = journal.append(vec![enter("a", 1)]);
    let mixed = journal.append(vec![enter("b", 1), enter("a", 7)]);
    let second = journal.append(vec![enter("a", 2)]);
    drop(blocked);
    block_on(first).unwrap();
    assert_eq!(block_on(taken).unwrap_err().kind(), JournalErrorKind::Conflict);
    assert_eq!(block_on(mixed).unwrap_err().kind(), JournalErrorKind::Conflict);
    block_on(second).unwrap();
    assert_eq!(block_on(journal.head(&id("a"))).unwrap(), Some(2));
    assert_eq!(block_on(journal.head(&id("b"))).unwrap(), None);
}

#[test]
fn a_time_that_never_comes_is_kept_as_the_last_there_is() {
    let (_directory, _store, journal) = journal();
    let next_at = Timestamp::from_unix_ms(u64::MAX);
    let fault = Fault::retryable("test.transient", "it does not work just now");
    let attempt = Body::Attempt { attempt: 1, fault, next_at };
    block_on(journal.append(vec![enter("a", 1), record("a", 2, attempt)])).unwrap();
    let snapshot = block_on(journal.load(&id("a"))).unwrap().unwrap();
    assert_eq!(snapshot.wake_at, Some(next_at));
    assert!(block_on(journal.list(Page::default())).unwrap()[0].wake_at > Some(snapshot.at));
}
