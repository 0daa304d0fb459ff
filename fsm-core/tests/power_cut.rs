//! What a power cut or a bad disk leaves of the state file: it opens, and holds what was
//! acknowledged up to some point, or it says what is damaged.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.
#![cfg(feature = "sqlite")]

mod store_support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use fsm_core::{Journal, JournalError, JournalErrorKind};
use futures::executor::block_on;

use self::store_support::{
    Dice, append, check_history,
    child::{child, file},
    enter, enter_with, id, open, tool,
};

const RUN: &str = "r";
const APPENDS: u64 = 20;

/// Not a test of its own: commits, and goes without closing the file.
#[test]
#[ignore = "the child process of other tests"]
fn child_that_dies_with_its_log() {
    let journal = open(&file()).unwrap();
    for seq in 1..=APPENDS {
        append(&journal, enter(RUN, seq)).unwrap();
        append(&journal, enter("neighbour", seq)).unwrap();
    }
    std::process::exit(0);
}

/// A state file with all of it still in the log.
fn with_log() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let died = child("child_that_dies_with_its_log", &path).output().unwrap();
    assert!(died.status.success(), "{}", String::from_utf8_lossy(&died.stdout));
    assert!(!log(&path).is_empty());
    (directory, path)
}

fn log(path: &Path) -> Vec<u8> {
    fs::read(path.with_extension("db-wal")).unwrap()
}

/// How many records of both runs there are when only `log` is left of the log of the file at
/// `path`.
fn left(path: &Path, log: &[u8]) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("state.db");
    fs::copy(path, &copy).unwrap();
    fs::write(copy.with_extension("db-wal"), log).unwrap();
    let journal = open(&copy).unwrap();
    let (records, neighbours) =
        (check_history(&journal, RUN), check_history(&journal, "neighbour"));
    assert!(records == neighbours || records == neighbours + 1, "{records}, {neighbours}");
    records + neighbours
}

const LOG_HEADER: usize = 32;
const PAGE: usize = 2048;
const FRAME: usize = 24 + PAGE;

#[test]
fn a_log_that_is_cut_off_anywhere_loses_its_end_alone() {
    let (_directory, path) = with_log();
    let log = log(&path);
    assert_eq!((log.len() - LOG_HEADER) % FRAME, 0, "whole frames");
    assert_eq!(left(&path, &log), 2 * APPENDS, "all that was acknowledged");

    // Each byte of the last frame: the last commit needs all of it.
    for end in log.len() - FRAME..log.len() {
        assert_eq!(left(&path, &log[..end]), 2 * APPENDS - 1, "cut at {end} of {}", log.len());
    }

    // Anywhere else: the longer the log, the more is left.
    let mut dice = Dice::new();
    let mut ends: Vec<_> = (0..60).map(|_| dice.below(log.len() as u64) as usize).collect();
    ends.sort_unstable();
    let mut before = 0;
    for end in ends {
        let left = left(&path, &log[..end]);
        assert!(left >= before, "cut at {end}: {left} after {before}");
        before = left;
    }
}

#[test]
fn a_journal_goes_on_behind_a_log_that_was_cut_off() {
    let (_directory, path) = with_log();
    let log = log(&path);
    fs::write(path.with_extension("db-wal"), &log[..log.len() - 1]).unwrap();
    let journal = open(&path).unwrap();
    assert_eq!(check_history(&journal, "neighbour"), APPENDS - 1);
    append(&journal, enter("neighbour", APPENDS)).unwrap();
    drop(journal);
    assert_eq!(check_history(&open(&path).unwrap(), "neighbour"), APPENDS);
}

#[test]
fn a_log_with_a_wrong_byte_ends_before_it() {
    let (_directory, path) = with_log();
    let log = log(&path);
    let mut dice = Dice::new();
    for _ in 0..100 {
        let mut broken = log.clone();
        let at = dice.below(log.len() as u64) as usize;
        broken[at] ^= 1 << dice.below(8);
        let before = (at.saturating_sub(LOG_HEADER)) / FRAME;
        let left = left(&path, &broken);
        assert!(left < 2 * APPENDS, "byte {at}");
        assert!(left <= before as u64, "byte {at}: {left} commits in {before} frames");
    }
}

/// A closed file with three runs.
fn three_runs() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let journal = open(&path).unwrap();
    for seq in 1..=5 {
        for run in ["a", "b", "c"] {
            append(&journal, enter(run, seq)).unwrap();
        }
    }
    drop(journal);
    assert!(!path.with_extension("db-wal").exists(), "a store that is closed leaves one file");
    (directory, path)
}

/// `sql` changes something of the run `b`, which is then damaged, and no other.
#[track_caller]
fn check_damages_b_alone(sql: &str, record: u64) {
    let (_directory, path) = three_runs();
    let changed = tool(&path).execute(sql, []).unwrap();
    assert_eq!(changed, 1, "{sql}");

    let journal = open(&path).unwrap();
    let error = block_on(journal.load(&id("b"))).unwrap_err();
    let text = format!("{error}: {:?}", std::error::Error::source(&error));
    assert_eq!(error.kind(), JournalErrorKind::Damaged, "{sql}: {text}");
    assert!(text.contains(&format!("b record {record}")), "{sql}: {text}");
    let history = block_on(journal.history(&id("b"))).unwrap_err();
    assert_eq!(history.kind(), JournalErrorKind::Damaged, "{sql}: {history}");
    assert_eq!(block_on(journal.head(&id("b"))).unwrap(), Some(5));
    let found = block_on(journal.unfinished(None, 10)).unwrap();
    let whole: Vec<_> =
        found.iter().map(|found| (found.run.as_str(), found.snapshot.is_ok())).collect();
    assert_eq!(whole, [("a", true), ("b", false), ("c", true)], "{sql}");
    let why = found[1].snapshot.as_ref().unwrap_err();
    assert!(why.contains(&format!("b record {record}")), "{sql}: {why}");
    assert_eq!(block_on(journal.list(Default::default())).unwrap().len(), 3);
    for run in ["a", "c"] {
        assert_eq!(check_history(&journal, run), 5, "{sql}");
        append(&journal, enter(run, 6)).unwrap();
    }
}

const LAST_OF_B: &str = "(SELECT last_id FROM fsm_run WHERE run = 'b')";

#[test]
fn a_record_that_was_changed_damages_its_run_alone() {
    let change = |what: &str| format!("UPDATE fsm_record SET {what} WHERE id = {LAST_OF_B}");
    for what in [
        "body = replace(body, '0005', '0006')",
        "body = substr(body, 1, length(body) - 1)",
        "body = ''",
        "body = CAST(x'7bff7d' AS TEXT)",
        "checksum = checksum + 1",
        "checksum = -1",
        "at_ms = at_ms + 1",
        "at_ms = -1",
        "seq = 4",
        "run_id = run_id + 1",
    ] {
        check_damages_b_alone(&change(what), 5);
    }
}

#[test]
fn a_record_that_is_missing_or_in_anothers_place_damages_its_run_alone() {
    check_damages_b_alone(&format!("DELETE FROM fsm_record WHERE id = {LAST_OF_B}"), 5);
    check_damages_b_alone("UPDATE fsm_run SET last_id = last_id + 1 WHERE run = 'b'", 5);
    check_damages_b_alone("UPDATE fsm_run SET last_id = last_id - 3 WHERE run = 'b'", 5);
    check_damages_b_alone("UPDATE fsm_run SET last_id = NULL WHERE run = 'b'", 5);
}

#[test]
fn a_gap_in_the_middle_is_found_by_who_reads_that_far() {
    let (_directory, path) = three_runs();
    let sql = "DELETE FROM fsm_record
               WHERE seq = 3 AND run_id = (SELECT id FROM fsm_run WHERE run = 'b')";
    assert_eq!(tool(&path).execute(sql, []).unwrap(), 1);
    let journal = open(&path).unwrap();
    let error = block_on(journal.history(&id("b"))).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Damaged);
    assert!(error.to_string().contains("b record 3"), "{error}");
    // To go on it needs its last entry alone.
    assert_eq!(block_on(journal.load(&id("b"))).unwrap().unwrap().seq, 5);
}

/// Does everything that one can do with the journal at `path`. Answers the kinds of its errors.
fn use_all(path: &Path) -> Vec<JournalErrorKind> {
    let journal = match open(path) {
        Ok(journal) => journal,
        Err(error) => return vec![error.kind()],
    };
    let mut heard = Vec::new();
    let mut hear = |error: JournalError| heard.push(error.kind());
    for run in ["a", "b", "c", "unknown"] {
        block_on(journal.load(&id(run))).map(drop).unwrap_or_else(&mut hear);
        block_on(journal.history(&id(run))).map(drop).unwrap_or_else(&mut hear);
        block_on(journal.head(&id(run))).map(drop).unwrap_or_else(&mut hear);
    }
    block_on(journal.unfinished(None, 10)).map(drop).unwrap_or_else(&mut hear);
    block_on(journal.list(Default::default())).map(drop).unwrap_or_else(&mut hear);
    append(&journal, enter_with("a", 6, 5_000)).unwrap_or_else(&mut hear);
    append(&journal, enter("d", 1)).unwrap_or_else(&mut hear);
    let retention = fsm_core::Retention::default().records_per_run(1).finished_count(0);
    let now = fsm_core::Timestamp::from_unix_ms(10_000);
    block_on(journal.prune(retention, now)).map(drop).unwrap_or_else(&mut hear);
    heard
}

#[test]
fn a_page_of_garbage_is_damage_and_no_panic() {
    let (_directory, path) = three_runs();
    let whole = fs::read(&path).unwrap();
    assert_eq!(use_all(&path), []);
    let mut damaged = 0;
    let mut dice = Dice::new();
    for page in 0..whole.len() / PAGE {
        for garbage in 0..3 {
            let mut broken = whole.clone();
            for byte in &mut broken[page * PAGE..(page + 1) * PAGE] {
                *byte = [0xff, dice.below(256) as u8, 0][garbage];
            }
            fs::write(&path, broken).unwrap();
            let heard = use_all(&path);
            println!("page {page}: {heard:?}");
            damaged += usize::from(heard.contains(&JournalErrorKind::Damaged));
            let allowed = [
                JournalErrorKind::Damaged,
                JournalErrorKind::Unsupported,
                JournalErrorKind::Storage,
                JournalErrorKind::Poisoned,
            ];
            assert!(heard.iter().all(|kind| allowed.contains(kind)), "page {page}: {heard:?}");
        }
    }
    assert!(damaged > 0);
}

#[test]
fn a_file_that_is_cut_off_is_damage_and_no_panic() {
    let (_directory, path) = three_runs();
    let whole = fs::read(&path).unwrap();
    // The last page is that of an empty table, and may miss the zeros at its end.
    for end in (1..whole.len() - PAGE).step_by(1_500) {
        fs::write(&path, &whole[..end]).unwrap();
        let heard = use_all(&path);
        assert!(!heard.is_empty(), "cut at {end} of {}", whole.len());
    }
}
