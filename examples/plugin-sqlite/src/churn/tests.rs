//! The pure comparison, over states that are awkward to bring about on a disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::header::JournalMode;

fn base() -> Fingerprint {
    let file = tempfile::NamedTempFile::new().unwrap();
    let id = FileId::of(&file.as_file().metadata().unwrap());
    let header = Header {
        page_size: 4096,
        journal_mode: JournalMode::Rollback,
        change_counter: 7,
        page_count: 3,
        schema_cookie: 1,
        version_valid_for: 7,
    };
    let file = FileState { id, bytes: 12_288, modified: (10, 0), status_changed: (10, 0) };
    let state =
        State { file, header: Some(header), log: LogState::Unused, journal: JournalState::Unused };
    Fingerprint { state, is_stable: true, is_settled: true }
}

fn log(salt: u32, frames: u64) -> LogState {
    let generation = Generation { salts: (salt, salt), checkpoint_sequence: 0 };
    LogState::Committed(generation, Commit { frames, pages_after: 3, checksum: (salt, 1) })
}

/// Compares a state with a changed one.
#[track_caller]
fn check(before: impl Fn(&mut Fingerprint), after: impl Fn(&mut Fingerprint), expected: Verdict) {
    let mut old = base();
    before(&mut old);
    let mut new = base();
    new.state.file.id = old.state.file.id;
    after(&mut new);
    assert_eq!(compare(&old, &new), expected);
    let written = serde_json::to_string(&old).unwrap();
    assert_eq!(serde_json::from_str::<Fingerprint>(&written).unwrap(), old);
}

#[test]
fn an_equal_settled_file_without_a_log_is_unchanged() {
    check(|_| {}, |_| {}, Verdict::Unchanged);
}

#[test]
fn an_equal_file_that_had_just_been_written_proves_nothing() {
    check(|old| old.is_settled = false, |_| {}, Verdict::Unknown(Reason::TooRecent));
}

#[test]
fn an_equal_commit_of_a_log_is_unchanged_however_recent_the_file() {
    check(
        |old| (old.state.log, old.is_settled) = (log(1, 5), false),
        |new| (new.state.log, new.is_settled) = (log(1, 5), false),
        Verdict::Unchanged,
    );
}

#[test]
fn a_log_that_grew_appeared_or_restarted_is_a_change() {
    let expected = Verdict::Changed(Reason::LogCommit);
    check(|old| old.state.log = log(1, 5), |new| new.state.log = log(1, 6), expected);
    check(|_| {}, |new| new.state.log = log(1, 1), expected);
    check(|old| old.state.log = log(1, 5), |new| new.state.log = log(2, 5), expected);
}

#[test]
fn a_log_that_is_gone_or_unreadable_proves_nothing() {
    check(|old| old.state.log = log(1, 5), |_| {}, Verdict::Unknown(Reason::LogGone));
    let expected = Verdict::Unknown(Reason::LogUnreadable);
    check(|_| {}, |new| new.state.log = LogState::Unreadable, expected);
    check(
        |old| old.state.log = LogState::Unreadable,
        |new| new.state.log = LogState::Unreadable,
        expected,
    );
}

#[test]
fn a_touched_file_with_an_equal_header_proves_nothing() {
    let expected = Verdict::Unknown(Reason::FileTouched);
    check(|_| {}, |new| new.state.file.modified = (10, 1), expected);
    check(|_| {}, |new| new.state.file.status_changed = (10, 1), expected);
}

#[test]
fn a_journal_in_use_at_either_time_proves_nothing() {
    let expected = Verdict::Unknown(Reason::OpenTransaction);
    check(|old| old.state.journal = JournalState::InUse, |_| {}, expected);
    check(|_| {}, |new| new.state.journal = JournalState::InUse, expected);
}

#[test]
fn another_header_or_size_is_a_change() {
    let expected = Verdict::Changed(Reason::Header);
    check(|_| {}, |new| new.state.file.bytes += 4096, expected);
    check(|_| {}, |new| new.state.header.as_mut().unwrap().change_counter += 1, expected);
    check(|_| {}, |new| new.state.header = None, expected);
}

#[test]
fn an_unstable_look_proves_nothing() {
    check(|old| old.is_stable = false, |_| {}, Verdict::Unknown(Reason::Busy));
    check(|_| {}, |new| new.is_stable = false, Verdict::Unknown(Reason::Busy));
}
