//! A restored database is in place whole, or not at all, and nothing is replayed onto it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::content::table_hashes;
use common::{back_up, child, integrity, make};
use plugin_sqlite::database::Check;
use plugin_sqlite::error::{Error, ErrorKind};
use plugin_sqlite::restore::{
    CompleteFile, FileMeta, Overwrite, Publication, PublishStep, RestoreTarget,
};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tempfile::TempDir;

const KEY: &str = "run/7 of node";
const STEPS: [PublishStep; 7] = [
    PublishStep::Settle,
    PublishStep::RemoveLog,
    PublishStep::RemoveJournal,
    PublishStep::SyncRemovals,
    PublishStep::Rename,
    PublishStep::SyncName,
    PublishStep::Release,
];

/// The bytes of a database whose one row says `text`.
fn bytes(text: &str) -> Vec<u8> {
    let directory = TempDir::new().unwrap();
    let (source, copy) = (directory.path().join("s.db"), directory.path().join("copy"));
    let sql = format!(
        "CREATE TABLE t (text); INSERT INTO t VALUES ('{text}');
         CREATE TABLE filler (body); INSERT INTO filler VALUES (randomblob(200000));"
    );
    let _writer = make(&source, "WAL", &sql);
    back_up(&source, &copy);
    fs::read(copy).unwrap()
}

fn text(path: &Path) -> String {
    let connection = Connection::open(path).unwrap();
    connection.query_row("SELECT text FROM t", [], |row| row.get(0)).unwrap()
}

fn complete(path: &Path, overwrite: Overwrite, content: &[u8]) -> Result<CompleteFile, Error> {
    let mut target = RestoreTarget::prepare(path, KEY, overwrite, None)?;
    for part in content.chunks(100_000) {
        target.write(part)?;
    }
    assert_eq!(target.written(), content.len() as u64);
    target.complete(Some(Check::Quick))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An old database in `directory` as a crashed application leaves it: its newest row only in `-wal`.
fn old_with_log(directory: &Path) -> PathBuf {
    let path = directory.join("a.db");
    let writer = make(
        &path,
        "WAL",
        "CREATE TABLE t (text); INSERT INTO t VALUES ('stale');
         CREATE TABLE old (body); INSERT INTO old VALUES (randomblob(100000));
         PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET text = 'old';",
    );
    writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    drop(writer);
    assert!(fs::metadata(directory.join("a.db-wal")).unwrap().len() > 0);
    path
}

/// The same with a hot rollback journal: half of an update is in the file.
fn old_with_journal(directory: &Path) -> PathBuf {
    let aside = TempDir::new().unwrap();
    let source = aside.path().join("a.db");
    let writer = make(
        &source,
        "DELETE",
        "CREATE TABLE t (text); INSERT INTO t VALUES ('old');
         CREATE TABLE old (body); INSERT INTO old VALUES (randomblob(100000)), (zeroblob(90000));",
    );
    writer
        .execute_batch(
            "PRAGMA cache_size = 2; BEGIN; UPDATE t SET text = 'half';
             UPDATE old SET body = randomblob(100000);",
        )
        .unwrap();
    for name in ["a.db", "a.db-journal"] {
        fs::copy(aside.path().join(name), directory.join(name)).unwrap();
    }
    directory.join("a.db")
}

#[test]
fn a_restored_database_equals_its_source_and_leaves_nothing_beside_it() {
    let directory = TempDir::new().unwrap();
    let (source, path) = (directory.path().join("s.db"), directory.path().join("a.db"));
    fs::write(&source, bytes("new")).unwrap();
    complete(&path, Overwrite::Refuse, &bytes("new")).unwrap().publish().unwrap();
    assert_eq!(names(directory.path()), ["a.db", "s.db"]);
    assert_eq!(integrity(&path), "ok");
    assert_eq!(text(&path), "new");
    assert_eq!(table_hashes(&path).unwrap().len(), 3);
}

#[test]
fn a_database_of_no_bytes_is_restored() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.db");
    complete(&path, Overwrite::Refuse, b"").unwrap().publish().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn owner_and_mode_are_kept() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.db");
    let source = directory.path().join("s.db");
    fs::write(&source, b"").unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o640)).unwrap();
    // Only root can give a file away.
    let gives_away = std::os::unix::fs::chown(&source, Some(1234), Some(2345)).is_ok();
    let metadata = FileMeta::of(&source).unwrap();
    let mut target = RestoreTarget::prepare(&path, KEY, Overwrite::Refuse, Some(metadata)).unwrap();
    target.write(&bytes("new")).unwrap();
    target.complete(None).unwrap().publish().unwrap();
    let restored = fs::metadata(&path).unwrap();
    assert_eq!(restored.mode() & 0o7777, 0o640);
    assert_eq!(FileMeta::of(&path).unwrap(), metadata);
    assert!(!gives_away || (restored.uid(), restored.gid()) == (1234, 2345));
}

#[test]
fn what_is_in_the_way_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.db");
    let check = |path: &Path, overwrite, expected: ErrorKind, subject: &str| {
        let error = RestoreTarget::prepare(path, KEY, overwrite, None).unwrap_err();
        assert_eq!(error.kind(), expected);
        assert!(error.path().ends_with(subject), "{error}");
    };
    for suffix in ["-wal", "-journal", "-shm", ""] {
        let name = format!("a.db{suffix}");
        fs::write(directory.path().join(&name), b"x").unwrap();
        check(&path, Overwrite::Refuse, ErrorKind::Exists, &name);
        fs::remove_file(directory.path().join(&name)).unwrap();
    }
    let nowhere = directory.path().join("nowhere/a.db");
    check(&nowhere, Overwrite::Replace, ErrorKind::Missing, "nowhere");
    fs::create_dir(&path).unwrap();
    check(&path, Overwrite::Replace, ErrorKind::Exists, "a.db");
    assert_eq!(names(directory.path()), ["a.db"]);
}

#[test]
fn a_target_that_appears_meanwhile_is_not_replaced() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.db");
    let complete = complete(&path, Overwrite::Refuse, &bytes("new")).unwrap();
    fs::write(&path, bytes("other")).unwrap();
    assert_eq!(complete.publish().unwrap_err().kind(), ErrorKind::Exists);
    assert_eq!(text(&path), "other");
}

#[test]
fn a_stream_that_is_no_whole_database_is_refused_and_removed() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.db");
    let whole = bytes("new");
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2 / 4096 * 4096;
    damaged[middle..middle + 4096].fill(0xa5);
    for (content, expected) in [
        (&whole[..whole.len() - 4096], ErrorKind::Corrupt),
        (&whole[..whole.len() - 1], ErrorKind::Corrupt),
        (&whole[4096..], ErrorKind::NotADatabase),
        (&damaged[..], ErrorKind::Corrupt),
    ] {
        let error = complete(&path, Overwrite::Refuse, content).unwrap_err();
        assert_eq!(error.kind(), expected);
        assert_eq!(names(directory.path()), Vec::<String>::new());
    }
}

#[test]
fn giving_up_leaves_nothing() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.db");
    let prepare = || {
        let mut target = RestoreTarget::prepare(&path, KEY, Overwrite::Refuse, None).unwrap();
        target.write(b"some bytes").unwrap();
        target
    };
    prepare().abort().unwrap();
    assert_eq!(names(directory.path()), Vec::<String>::new());
    drop(prepare());
    assert_eq!(names(directory.path()), Vec::<String>::new());
    complete(&path, Overwrite::Refuse, &bytes("new")).unwrap().abort().unwrap();
    assert_eq!(names(directory.path()), Vec::<String>::new());
}

#[test]
fn a_repetition_replaces_its_own_leftovers_and_no_others() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.db");
    let mut crashed = RestoreTarget::prepare(&path, KEY, Overwrite::Refuse, None).unwrap();
    crashed.write(&[1; 1000]).unwrap();
    std::mem::forget(crashed);
    let other = RestoreTarget::prepare(&path, "another", Overwrite::Refuse, None).unwrap();
    complete(&path, Overwrite::Refuse, &bytes("new")).unwrap().publish().unwrap();
    assert_eq!(names(directory.path()).len(), 2, "the other's partial file is still there");
    drop(other);
    assert_eq!(names(directory.path()), ["a.db"]);
}

#[test]
fn a_database_in_use_is_not_replaced() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.db");
    let sql = "CREATE TABLE t (text); INSERT INTO t VALUES ('old')";
    let writer = make(&path, "WAL", sql);
    let complete = complete(&path, Overwrite::Replace, &bytes("new")).unwrap();
    let error = complete.publish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.is_retryable());
    writer.execute("UPDATE t SET text = 'older'", []).unwrap();
    assert_eq!(text(&path), "older");
    drop(writer);
    complete.publish().unwrap();
    assert_eq!(text(&path), "new");
}

#[test]
fn a_damaged_database_is_replaced_with_everything_beside_it() {
    let directory = TempDir::new().unwrap();
    let path = old_with_log(directory.path());
    fs::write(&path, "no database".repeat(1000)).unwrap();
    complete(&path, Overwrite::Replace, &bytes("new")).unwrap().publish().unwrap();
    assert_eq!(text(&path), "new");
    assert_eq!(integrity(&path), "ok");
}

#[test]
fn what_a_lost_database_left_behind_is_not_replayed_onto_the_new_one() {
    for make_old in [old_with_log, old_with_journal] {
        let directory = TempDir::new().unwrap();
        let path = make_old(directory.path());
        fs::remove_file(&path).unwrap();
        complete(&path, Overwrite::Replace, &bytes("new")).unwrap().publish().unwrap();
        assert_eq!((integrity(&path).as_str(), text(&path).as_str()), ("ok", "new"));
    }
}

#[test]
fn a_target_behind_a_link_is_replaced_where_it_really_is() {
    let (directory, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let real = old_with_log(elsewhere.path());
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    complete(&link, Overwrite::Replace, &bytes("new")).unwrap().publish().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!((text(&real).as_str(), text(&link).as_str()), ("new", "new"));
}

#[test]
fn a_crash_before_any_step_leaves_the_old_or_the_new_database() {
    for make_old in [old_with_log, old_with_journal] {
        for (index, step) in STEPS.iter().enumerate() {
            let directory = TempDir::new().unwrap();
            let path = make_old(directory.path());
            complete(&path, Overwrite::Replace, &bytes("new")).unwrap();
            let variables =
                [("CRASH_PATH", path.to_str().unwrap()), ("CRASH_STEP", &index.to_string())];
            let status = child("publish_and_crash", "", &variables);
            assert!(!status.success(), "it crashed before {step:?}");

            // What an application sees that starts now. A copy, so that the look changes nothing.
            let look = TempDir::new().unwrap();
            for name in names(directory.path()) {
                fs::copy(directory.path().join(&name), look.path().join(&name)).unwrap();
            }
            let seen = look.path().join("a.db");
            let expected = if index <= 4 { "old" } else { "new" };
            assert_eq!(text(&seen), expected, "crashed before {step:?}");
            assert_eq!(integrity(&seen), "ok", "crashed before {step:?}");

            match CompleteFile::find(&path, KEY, Overwrite::Replace).unwrap() {
                Publication::Pending(complete) => complete.publish().unwrap(),
                Publication::Done => assert!(index > 4, "crashed before {step:?}"),
                _ => panic!("the complete file is lost before {step:?}"),
            }
            assert_eq!((text(&path).as_str(), integrity(&path).as_str()), ("new", "ok"));
            let left = names(directory.path());
            assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");
        }
    }
}

#[test]
#[ignore = "run by the crash test, in a process that dies"]
fn publish_and_crash() {
    let path = PathBuf::from(std::env::var_os("CRASH_PATH").unwrap());
    let step: usize = std::env::var("CRASH_STEP").unwrap().parse().unwrap();
    let found = CompleteFile::find(&path, KEY, Overwrite::Replace).unwrap();
    let Publication::Pending(complete) = found else { panic!("nothing to publish") };
    complete
        .publish_observed(&mut |next| {
            if next == STEPS[step] {
                std::process::abort();
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_full_disk_is_told_apart_and_leaves_nothing() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.db");
    // A limit on the size of files stands in for a small disk.
    let status = child(
        "write_until_full",
        "trap '' XFSZ; ulimit -f 64;",
        &[("FULL_PATH", path.to_str().unwrap())],
    );
    assert!(status.success());
    assert_eq!(names(directory.path()), Vec::<String>::new());
}

#[test]
#[ignore = "run by the full-disk test, in a process with a limit"]
fn write_until_full() {
    let path = PathBuf::from(std::env::var_os("FULL_PATH").unwrap());
    let mut target = RestoreTarget::prepare(&path, KEY, Overwrite::Refuse, None).unwrap();
    let error = (0..1000).find_map(|_| target.write(&[1; 4096]).err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::Full);
}
