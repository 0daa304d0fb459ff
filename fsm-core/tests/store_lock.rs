//! One store at a time has a file open: two would run each step of its runs twice.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.
#![cfg(feature = "sqlite")]

mod store_support;

use std::path::{Path, PathBuf};

use fsm_core::{
    Journal, JournalErrorKind,
    sqlite::{SqliteJournal, Store},
};
use futures::executor::block_on;

use self::store_support::{append, block, check_history, child, enter, open, tool};

#[track_caller]
fn check_refused(path: &Path) {
    let error = Store::open(path).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::InUse, "{error}");
    assert!(!error.is_retryable());
    let said = error.to_string();
    assert!(said.contains(&path.display().to_string()) && said.contains("close"), "{said}");
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    (directory, path)
}

#[test]
fn a_file_is_open_once_at_a_time() {
    let (_directory, path) = file();
    let store = Store::open(&path).unwrap();
    check_refused(&path);
    let clone = store.clone();
    drop(store);
    check_refused(&path);
    drop(clone);
    Store::open(&path).unwrap();
}

#[test]
fn who_is_refused_changes_nothing_for_whoever_has_the_file() {
    let (_directory, path) = file();
    let journal = open(&path).unwrap();
    append(&journal, enter("r", 1)).unwrap();
    check_refused(&path);
    append(&journal, enter("r", 2)).unwrap();
    let seen: u64 =
        tool(&path).query_row("SELECT count(*) FROM fsm_record", [], |row| row.get(0)).unwrap();
    assert_eq!(seen, 2, "other tools read it meanwhile");
    drop(journal);
    assert_eq!(check_history(&open(&path).unwrap(), "r"), 2);
}

#[test]
fn a_store_that_is_released_writes_as_long_as_nobody_else_has_the_file() {
    let (_directory, path) = file();
    let store = Store::open(&path).unwrap();
    let journal = SqliteJournal::new(store.clone()).unwrap();
    let release = block(&store);
    let queued = journal.append(vec![enter("r", 1)]);
    let released = store.release();
    check_refused(&path);
    drop(release);
    block_on(queued).unwrap();
    block_on(released).unwrap();
    append(&journal, enter("r", 2)).unwrap();

    let next = open(&path).unwrap();
    let refused = append(&journal, enter("r", 3)).unwrap_err();
    assert_eq!(refused.kind(), JournalErrorKind::InUse, "{refused}");
    append(&next, enter("r", 3)).unwrap();
    assert_eq!(check_history(&journal, "r"), 3, "it still reads");
    block_on(store.release()).unwrap();
    check_refused(&path);
    drop(next);
    append(&journal, enter("r", 4)).unwrap();
    assert_eq!(check_history(&open(&path).unwrap(), "r"), 4);
}

#[cfg(unix)]
#[test]
fn another_name_of_the_file_is_refused_too() {
    let (directory, path) = file();
    let _store = Store::open(&path).unwrap();
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    check_refused(&link);
}

/// Not a test of its own: opens the file that another process has open.
#[test]
#[ignore = "the child process of another test"]
fn child_that_opens_the_file() {
    check_refused(&child::file());
}

#[test]
fn a_file_that_another_process_has_open_is_refused() {
    let (_directory, path) = file();
    let journal = open(&path).unwrap();
    let output = child::child("child_that_opens_the_file", &path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    assert_eq!(block_on(journal.head(&store_support::id("r"))).unwrap(), None);
}
