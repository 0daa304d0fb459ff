//! A snapshot is one committed moment, whatever kind of database and whoever writes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::content::table_hashes;
use common::{back_up, dataset, hash, integrity, make, open, read_all};
use plugin_sqlite::churn::Fingerprint;
use plugin_sqlite::database::Check;
use plugin_sqlite::error::ErrorKind;
use plugin_sqlite::snapshot::{Method, Snapshot};
use rusqlite::Connection;
use tempfile::TempDir;

/// Backs up by both methods and compares content, structure and a small buffer's result.
#[track_caller]
fn check(source: &Path) {
    let copy = source.with_extension("copy");
    back_up(source, &copy);
    let bytes = fs::read(&copy).unwrap();
    let mut snapshot = Snapshot::begin(open(source).unwrap()).unwrap();
    let page = snapshot.page_size() as usize;
    assert_eq!(read_all(&mut snapshot, 3 * page + 1), bytes);
    drop(snapshot);

    let by_copy = source.with_extension("by-copy");
    let scratch = TempDir::new().unwrap();
    let mut snapshot = Snapshot::begin_by_copy(open(source).unwrap(), scratch.path()).unwrap();
    assert_eq!(snapshot.method(), Method::Copy);
    fs::write(&by_copy, read_all(&mut snapshot, 1 << 20)).unwrap();
    drop(snapshot);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "the copy is gone");

    let expected = table_hashes(source).unwrap();
    for copy in [copy, by_copy] {
        assert_eq!(integrity(&copy), "ok");
        assert_eq!(table_hashes(&copy).unwrap(), expected);
    }
}

/// Fails in a build that does not see the workspace's `.cargo/config.toml`.
#[test]
fn this_build_of_sqlite_gives_access_to_pages() {
    let directory = TempDir::new().unwrap();
    let source = directory.path().join("a.db");
    drop(make(&source, "WAL", ROWS));
    let snapshot = Snapshot::begin(open(&source).unwrap()).unwrap();
    assert_eq!(snapshot.method(), Method::Pages);
}

const ROWS: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
    INSERT INTO t SELECT i, randomblob(i * 7 % 900) FROM n;";

#[test]
fn every_page_size_and_journal_mode_comes_back_equal() {
    for page_size in [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] {
        for journal_mode in ["DELETE", "TRUNCATE", "PERSIST", "WAL"] {
            let directory = TempDir::new().unwrap();
            let source = directory.path().join("a.db");
            let setup = format!("PRAGMA page_size = {page_size}; {ROWS}");
            drop(make(&source, "DELETE", &setup));
            let _writer = make(&source, journal_mode, "UPDATE t SET body = 1 WHERE id = 9");
            let snapshot = Snapshot::begin(open(&source).unwrap()).unwrap();
            assert_eq!(snapshot.page_size(), page_size);
            drop(snapshot);
            check(&source);
        }
    }
}

#[test]
fn unusual_tables_come_back_equal() {
    let directory = TempDir::new().unwrap();
    let source = directory.path().join("it's 100% ☃.db");
    let setup = "PRAGMA auto_vacuum = INCREMENTAL; CREATE TABLE seed (x); DROP TABLE seed;";
    drop(make(&source, "DELETE", setup));
    let _writer = make(
        &source,
        "WAL",
        "CREATE TABLE w (a TEXT, b INTEGER, body, PRIMARY KEY (b, a)) WITHOUT ROWID;
         INSERT INTO w VALUES ('x', 2, zeroblob(0)), ('y', 1, NULL), ('', 1, ''), ('z', 3, 1.5);
         CREATE TABLE big (body BLOB); INSERT INTO big VALUES (zeroblob(300000)), (zeroblob(0));
         CREATE TABLE gone (body BLOB); INSERT INTO gone VALUES (zeroblob(90000)); DELETE FROM gone;
         CREATE VIRTUAL TABLE words USING fts5 (body); INSERT INTO words VALUES ('one two');
         CREATE TABLE \"odd \"\"name\" (\"a b\" TEXT); INSERT INTO \"odd \"\"name\" VALUES ('c');
         CREATE VIEW v AS SELECT a FROM w;",
    );
    check(&source);
}

#[test]
fn an_empty_database_comes_back_equal() {
    let directory = TempDir::new().unwrap();
    let no_tables = directory.path().join("no-tables.db");
    drop(make(&no_tables, "WAL", "CREATE TABLE t (x); DROP TABLE t;"));
    check(&no_tables);

    let no_bytes = directory.path().join("no-bytes.db");
    fs::write(&no_bytes, b"").unwrap();
    check(&no_bytes);
}

/// SQLite keeps one page at 1 GiB for its locks and never reads it.
#[test]
#[ignore = "writes 3 GB"]
fn a_database_beyond_one_gibibyte_comes_back_equal() {
    let directory = TempDir::new().unwrap();
    let source = directory.path().join("a.db");
    let row = "INSERT INTO t (body) VALUES (zeroblob(540000000));";
    drop(make(
        &source,
        "DELETE",
        &format!("{ROWS} {row} {row} INSERT INTO t (body) VALUES ('end')"),
    ));
    check(&source);
}

/// Ends the writer also when an assertion fails, so that its thread can be joined.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_snapshot_taken_while_a_writer_commits_is_one_committed_moment() {
    let directory = TempDir::new().unwrap();
    let source = directory.path().join("shop.db");
    dataset::create(&source, 6 << 20, |_, _| {}).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stopping = StopOnDrop(&stop);
        let writer = scope.spawn(|| dataset::write_until(&source, || stop.load(Ordering::Relaxed)));
        let mut last = 0;
        for round in 0..12 {
            let copy = directory.path().join(format!("copy-{round}.db"));
            let transfers = || -> u64 {
                let connection = Connection::open(&source).unwrap();
                connection
                    .query_row("SELECT transfers FROM progress", [], |row| row.get::<_, i64>(0))
                    .unwrap()
                    .unsigned_abs()
            };
            // At least one commit lies between two rounds, and one within each.
            while transfers() <= last {
                thread::yield_now();
            }
            let before = transfers();
            let mut snapshot = Snapshot::begin(open(&source).unwrap()).unwrap();
            let began = transfers();
            let mut buffer = vec![0; 256 << 10];
            let mut bytes = Vec::new();
            loop {
                let length = snapshot.read_into(&mut buffer).unwrap();
                if length == 0 {
                    break;
                }
                bytes.extend_from_slice(&buffer[..length]);
                if bytes.len() == length {
                    while transfers() <= began {
                        thread::yield_now();
                    }
                }
            }
            fs::write(&copy, bytes).unwrap();
            assert_eq!(integrity(&copy), "ok");
            let moment = dataset::check_moment(&copy).unwrap().unwrap();
            assert!((before..=began).contains(&moment), "{before} <= {moment} <= {began}");
            last = moment;
        }
        drop(stopping);
        assert!(writer.join().unwrap().unwrap() > last);
    });
    assert_eq!(integrity(&source), "ok");
}

#[test]
fn the_source_and_its_log_are_left_as_they_were() {
    let directory = TempDir::new().unwrap();
    let source = directory.path().join("a.db");
    let log = directory.path().join("a.db-wal");
    let writer = make(&source, "WAL", ROWS);
    let before = (hash(&source), hash(&log));
    assert!(fs::metadata(&log).unwrap().len() > 0);
    back_up(&source, &directory.path().join("copy"));
    assert_eq!((hash(&source), hash(&log)), before);

    // Now this backup's connection is the last to close, which would checkpoint.
    writer
        .set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .unwrap();
    drop(writer);
    assert_eq!((hash(&source), hash(&log)), before);
    back_up(&source, &directory.path().join("copy"));
    assert_eq!((hash(&source), hash(&log)), before);
    assert_eq!(
        table_hashes(&directory.path().join("copy")).unwrap(),
        table_hashes(&source).unwrap()
    );
}

#[test]
fn a_writer_in_rollback_mode_commits_once_the_snapshot_is_gone() {
    let directory = TempDir::new().unwrap();
    let source = directory.path().join("a.db");
    let writer = make(&source, "DELETE", ROWS);
    writer.busy_timeout(Duration::ZERO).unwrap();
    let snapshot = Snapshot::begin(open(&source).unwrap()).unwrap();
    let refused = writer.execute("DELETE FROM t WHERE id = 1", []).unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy));
    drop(snapshot);
    writer.execute("DELETE FROM t WHERE id = 1", []).unwrap();
}

#[test]
fn a_buffer_smaller_than_a_page_is_refused_and_costs_nothing() {
    let directory = TempDir::new().unwrap();
    let source = directory.path().join("a.db");
    drop(make(&source, "WAL", ROWS));
    let mut snapshot = Snapshot::begin(open(&source).unwrap()).unwrap();
    let error = snapshot.read_into(&mut [0; 100]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(snapshot.position(), 0);
    read_all(&mut snapshot, 65_536);
}

#[test]
fn what_is_no_readable_database_is_told_apart() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let check = |name: &str, expected: ErrorKind| {
        let error = open(&at(name)).expect_err(name);
        assert_eq!(error.kind(), expected, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    };
    check("missing.db", ErrorKind::Missing);
    check("missing/a.db", ErrorKind::Missing);
    fs::create_dir(at("directory.db")).unwrap();
    check("directory.db", ErrorKind::NotADatabase);
    #[cfg(unix)]
    {
        // Nobody writes to it: whoever opened it would wait for ever.
        let made = std::process::Command::new("mkfifo").arg(at("pipe.db")).status().unwrap();
        assert!(made.success());
        check("pipe.db", ErrorKind::NotADatabase);
        let error = Fingerprint::read(&at("pipe.db")).expect_err("a pipe");
        assert_eq!(error.kind(), ErrorKind::NotADatabase, "{error}");
    }
    fs::write(at("text.db"), "SQLite format 2\0".repeat(400)).unwrap();
    check("text.db", ErrorKind::NotADatabase);
    fs::write(at("short.db"), "SQLite format 3\0").unwrap();
    check("short.db", ErrorKind::NotADatabase);

    drop(make(&at("cut.db"), "DELETE", ROWS));
    let bytes = fs::read(at("cut.db")).unwrap();
    fs::write(at("cut.db"), &bytes[..bytes.len() / 2]).unwrap();
    check("cut.db", ErrorKind::Corrupt);
}

#[test]
fn a_database_under_an_exclusive_lock_is_retryable() {
    let directory = TempDir::new().unwrap();
    let source = directory.path().join("a.db");
    let writer = make(&source, "DELETE", ROWS);
    writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = open(&source).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.is_retryable());
    writer.execute_batch("COMMIT").unwrap();
    open(&source).unwrap();
}

#[test]
fn a_hot_journal_asks_for_recovery_and_stays() {
    let directory = TempDir::new().unwrap();
    let source = directory.path().join("a.db");
    let crashed = directory.path().join("crashed.db");
    let writer = make(&source, "DELETE", ROWS);
    writer
        .execute_batch("PRAGMA cache_size = 2; BEGIN; UPDATE t SET body = randomblob(900)")
        .unwrap();
    fs::copy(&source, &crashed).unwrap();
    fs::copy(directory.path().join("a.db-journal"), directory.path().join("crashed.db-journal"))
        .unwrap();
    let error = open(&crashed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsRecovery, "{error:?}");
    assert!(directory.path().join("crashed.db-journal").exists());
}

#[test]
fn a_damaged_page_in_the_middle_fails_the_check() {
    let directory = TempDir::new().unwrap();
    let source = directory.path().join("a.db");
    drop(make(&source, "DELETE", ROWS));
    open(&source).unwrap().check(Check::Full).unwrap();
    let mut bytes = fs::read(&source).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    fs::write(&source, bytes).unwrap();
    for check in [Check::Quick, Check::Full] {
        let error = open(&source).unwrap().check(check).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(std::error::Error::source(&error).is_some());
    }
}
