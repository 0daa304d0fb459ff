//! The SQLite store: what is acknowledged is durable, and nobody pays for others' mistakes.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.
#![cfg(feature = "sqlite")]

mod support;

use std::{path::Path, process::Command, sync::mpsc};

use fsm_core::{
    Body, Data, Ending, Journal, JournalError, JournalErrorKind, Record, RuntimeErrorKind,
    Timestamp,
    sqlite::{SqliteJournal, Store, rusqlite},
};
use futures::{executor::block_on, future::BoxFuture};

use self::support::{
    id,
    medium::Medium,
    process::Process,
    world::{Act, Job, Work, World},
};

const NOTES: &[&str] = &["CREATE TABLE notes_note (text TEXT NOT NULL) STRICT"];
const MORE_NOTES: &[&str] = &[NOTES[0], "CREATE TABLE notes_more (text TEXT NOT NULL)"];

/// A store in a directory of its own, with the table of an owner called `notes`.
fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("state.db")).unwrap();
    store.migrate("notes", NOTES).unwrap();
    (directory, store)
}

fn write(
    store: &Store,
    work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<()> + Send + 'static,
) -> BoxFuture<'static, Result<(), JournalError>> {
    Box::pin(store.write(move |tx| Ok(work(tx)?)))
}

fn note(store: &Store, text: &str) -> BoxFuture<'static, Result<(), JournalError>> {
    let text = text.to_owned();
    write(store, move |tx| tx.execute("INSERT INTO notes_note VALUES (?1)", [text]).map(|_| ()))
}

fn notes(store: &Store) -> Vec<String> {
    block_on(store.read(|connection| {
        let mut select = connection.prepare("SELECT text FROM notes_note ORDER BY rowid")?;
        let rows = select.query_map([], |row| row.get(0))?;
        Ok::<_, JournalError>(rows.collect::<Result<_, _>>()?)
    }))
    .unwrap()
}

/// Keeps the writer's thread busy until the sender is used or dropped.
fn block(store: &Store) -> mpsc::Sender<()> {
    let (release, blocked) = mpsc::channel();
    let (begun, begins) = mpsc::channel();
    drop(write(store, move |_| {
        let _ = begun.send(());
        let _ = blocked.recv();
        Ok(())
    }));
    begins.recv().unwrap();
    release
}

#[track_caller]
fn check_refused(path: &Path, kind: JournalErrorKind) {
    let error = Store::open(path).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}

#[test]
fn a_record_that_cannot_be_stored_is_its_runs_matter_alone() {
    let (_directory, store) = store();
    let journal = SqliteJournal::new(store.clone()).unwrap();
    let (at, body) = (Timestamp::default(), Body::Resume);
    let record = Record { run: id("r"), seq: u64::MAX, at, body };
    assert!(block_on(journal.append(vec![record])).is_err());
    block_on(note(&store, "a neighbour")).unwrap();
}

#[test]
fn a_read_sees_one_moment() {
    let (_directory, store) = store();
    let ((looked, looks), (go_on, waits)) = (mpsc::channel(), mpsc::channel::<()>());
    let count = |connection: &rusqlite::Connection| {
        connection.query_row("SELECT count(*) FROM notes_note", [], |row| row.get::<_, u64>(0))
    };
    let reading = store.read(move |connection| {
        let before = count(connection)?;
        looked.send(()).unwrap();
        waits.recv().unwrap();
        Ok::<_, JournalError>((before, count(connection)?))
    });
    looks.recv().unwrap();
    block_on(note(&store, "meanwhile")).unwrap();
    go_on.send(()).unwrap();
    assert_eq!(block_on(reading).unwrap(), (0, 0));
    assert_eq!(notes(&store), ["meanwhile"], "the next one sees the next moment");
}

#[test]
fn the_writer_syncs_in_full() {
    let (_directory, store) = store();
    let (synchronous, mode) = block_on(store.write(|tx| {
        let synchronous = tx.pragma_query_value(None, "synchronous", |row| row.get::<_, u8>(0))?;
        let mode = tx.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))?;
        Ok::<_, JournalError>((synchronous, mode))
    }))
    .unwrap();
    assert_eq!((synchronous, mode.as_str()), (2, "wal"));
}

#[test]
fn what_is_queued_meanwhile_shares_a_transaction() {
    let (_directory, store) = store();
    let release = block(&store);
    let before = store.commits();
    let writes: Vec<_> = (0..64).map(|n| note(&store, &n.to_string())).collect();
    release.send(()).unwrap();
    block_on(futures::future::try_join_all(writes)).unwrap();
    let after = store.commits();
    assert_eq!(after.1 - before.1, 65, "jobs");
    assert_eq!(after.0 - before.0, 2, "transactions");
    assert_eq!(notes(&store).len(), 64);
}

#[test]
fn work_that_fails_leaves_no_trace_and_fails_nobody_else() {
    let (_directory, store) = store();
    let release = block(&store);
    let first = note(&store, "first");
    let failing = store.write(|tx| {
        tx.execute("INSERT INTO notes_note VALUES ('never')", [])?;
        Err::<(), _>(JournalError::new(JournalErrorKind::Conflict, "a test"))
    });
    let wrong = write(&store, |tx| tx.execute_batch("INSERT INTO nowhere VALUES (1)"));
    let last = note(&store, "last");
    drop(release);
    block_on(first).unwrap();
    assert_eq!(block_on(failing).unwrap_err().kind(), JournalErrorKind::Conflict);
    assert!(block_on(wrong).is_err());
    block_on(last).unwrap();
    assert_eq!(notes(&store), ["first", "last"]);
}

#[test]
fn work_that_panics_leaves_no_trace_and_fails_nobody_else() {
    let (_directory, store) = store();
    let release = block(&store);
    let first = note(&store, "first");
    let panicking = write(&store, |tx| {
        tx.execute("INSERT INTO notes_note VALUES ('never')", [])?;
        panic!("a test");
    });
    let last = note(&store, "last");
    drop(release);
    block_on(first).unwrap();
    assert_eq!(block_on(panicking).unwrap_err().kind(), JournalErrorKind::Storage);
    block_on(last).unwrap();
    assert_eq!(notes(&store), ["first", "last"]);
    let reading = store.read(|_| -> Result<(), JournalError> { panic!("a test") });
    assert!(block_on(reading).is_err());
    assert_eq!(notes(&store).len(), 2);
}

#[test]
fn files_that_are_not_ours_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);

    let foreign = rusqlite::Connection::open(at("foreign.db")).unwrap();
    foreign.execute_batch("CREATE TABLE theirs (x)").unwrap();
    check_refused(&at("foreign.db"), JournalErrorKind::Unsupported);
    let theirs: i64 =
        foreign.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(theirs, 1, "nothing was added");

    let marked = rusqlite::Connection::open(at("marked.db")).unwrap();
    marked.pragma_update(None, "application_id", 7).unwrap();
    check_refused(&at("marked.db"), JournalErrorKind::Unsupported);

    std::fs::write(at("text.db"), "dear diary, ".repeat(100)).unwrap();
    check_refused(&at("text.db"), JournalErrorKind::Unsupported);
    check_refused(&at("missing/state.db"), JournalErrorKind::Storage);
}

#[test]
fn tables_of_a_newer_version_are_refused() {
    let (directory, store) = store();
    store.migrate("notes", MORE_NOTES).unwrap();
    drop(store);
    let store = Store::open(&directory.path().join("state.db")).unwrap();
    let error = store.migrate("notes", NOTES).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Unsupported);
    block_on(note(&store, "the store is usable all the same")).unwrap();
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let (_directory, store) = store();
    const WRONG: &[&str] = &[NOTES[0], MORE_NOTES[1], "CREATE TABLE notes_more (again TEXT)"];
    assert!(store.migrate("notes", WRONG).is_err());
    store.migrate("notes", MORE_NOTES).unwrap();
}

#[test]
fn a_store_opens_inside_an_executor() {
    block_on(async { store() });
}

fn first_record(run: &str) -> Record {
    let body = Body::Enter {
        entry: 1,
        machine: "job".to_owned(),
        version: 1,
        origin: "tests 1".to_owned(),
        graph: String::new(),
        state: "work".to_owned(),
        data: Data::encode(&Work::default()).unwrap(),
        wake_at: None,
        carried: Box::default(),
    };
    Record { run: id(run), seq: 1, at: Timestamp::from_unix_ms(1), body }
}

#[test]
fn records_of_two_owners_are_written_together_or_not_at_all() {
    let (_directory, store) = store();
    let journal = SqliteJournal::new(store.clone()).unwrap();
    let both = |run: &'static str, fails: bool| {
        store.write(move |tx| {
            tx.execute("INSERT INTO notes_note VALUES (?1)", [run])?;
            SqliteJournal::stage(tx, &[first_record(run)])?;
            match fails {
                true => Err(JournalError::new(JournalErrorKind::Conflict, "a test")),
                false => Ok(()),
            }
        })
    };
    block_on(both("failed", true)).unwrap_err();
    assert!(block_on(journal.load(&id("failed"))).unwrap().is_none());
    assert!(notes(&store).is_empty());

    block_on(both("done", false)).unwrap();
    assert_eq!(block_on(journal.load(&id("done"))).unwrap().unwrap().state, "work");
    assert_eq!(notes(&store), ["done"]);

    assert_eq!(block_on(both("done", false)).unwrap_err().kind(), JournalErrorKind::Conflict);
    assert_eq!(notes(&store), ["done"], "a taken number takes the other owner's row back too");
}

#[test]
fn a_run_whose_first_record_somebody_else_wrote_is_launched() {
    let world = World::default();
    let medium = Medium::sqlite();
    block_on(medium.open().append(vec![first_record("r")])).unwrap();
    let process = Process::start(&medium).with(Job, &world);
    let run = process.block_on(process.runtime.launch(&id("r"))).unwrap();
    assert_eq!(process.end(&run).ending, Ending::Completed);
}

#[test]
fn everything_is_found_again_after_the_last_clone_is_dropped() {
    let (directory, store) = store();
    let writes: Vec<_> = (0..100).map(|n| note(&store, &n.to_string())).collect();
    drop(store);
    let store = Store::open(&directory.path().join("state.db")).unwrap();
    assert_eq!(notes(&store).len(), 100, "what was queued is written before the file closes");
    block_on(futures::future::try_join_all(writes)).unwrap();
}

#[test]
fn people_read_runs_and_history() {
    let medium = Medium::sqlite();
    let world = World::script([Act::Wait(0)]);
    let process = Process::start(&medium).with(Job, &world);
    process.end(&process.begin("r", "job", &Work::default()));
    let Medium::Sqlite(directory) = &medium else { unreachable!() };
    let connection = rusqlite::Connection::open(directory.path().join("state.db")).unwrap();
    let columns = |view: &str| -> Vec<String> {
        let select = connection.prepare(&format!("SELECT * FROM {view}")).unwrap();
        select.column_names().map(str::to_owned).collect()
    };
    assert_eq!(
        columns("runs"),
        [
            "run", "machine", "version", "origin", "status", "state", "entry", "data", "fault",
            "updated", "parent", "wake"
        ]
    );
    assert_eq!(columns("history"), ["run", "seq", "at", "kind", "state", "body"]);
    let row = connection
        .query_row("SELECT status, state, data, updated FROM runs", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .unwrap();
    let row: (String, String, String, String) = row;
    assert_eq!((row.0.as_str(), row.1.as_str()), ("completed", "done"));
    assert_eq!((row.2.as_str(), row.3.as_str()), (r#"{"attempts":1}"#, "2023-11-14 22:13:20.000"));
}

#[test]
fn a_cancelled_pause_is_shown_as_active() {
    let (_directory, store) = store();
    let journal = SqliteJournal::new(store.clone()).unwrap();
    let record = |seq, body| Record { run: id("r"), seq, at: Timestamp::from_unix_ms(2), body };
    let fault = support::world::transient();
    let status = || {
        block_on(store.read(|connection| {
            Ok::<String, JournalError>(connection.query_row(
                "SELECT status FROM runs",
                [],
                |row| row.get(0),
            )?)
        }))
        .unwrap()
    };
    block_on(
        journal
            .append(vec![first_record("r"), record(2, Body::Pause { fault, between_steps: true })]),
    )
    .unwrap();
    assert_eq!(status(), "paused");
    let reason = "a test".to_owned();
    block_on(journal.append(vec![record(3, Body::Cancel { reason })])).unwrap();
    assert_eq!(status(), "active");
}

#[test]
fn a_damaged_record_quarantines_its_run_alone() {
    let medium = Medium::sqlite();
    let world = World::script([Act::Hang, Act::Hang]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("damaged", "job", &Work::default());
    process.begin("whole", "job", &Work::default());
    process.until(|| world.said("work 1") == 2);
    process.die();
    let Medium::Sqlite(directory) = &medium else { unreachable!() };
    let connection = rusqlite::Connection::open(directory.path().join("state.db")).unwrap();
    let of_it = "run_id = (SELECT id FROM fsm_run WHERE run = 'damaged')";
    let sql = format!("UPDATE fsm_record SET body = '{{' WHERE {of_it}");
    assert_eq!(connection.execute(&sql, []).unwrap(), 1);
    drop(connection);

    let process = Process::start(&medium).with(Job, &world);
    let quarantined = process.block_on(process.runtime.recover()).unwrap().quarantined;
    assert_eq!(quarantined.len(), 1, "{quarantined:?}");
    assert_eq!(quarantined[0].0, id("damaged"));
    let whole = process.attach("whole").unwrap();
    assert_eq!(process.end(&whole).ending, Ending::Completed);
    assert_eq!(process.attach("damaged").unwrap_err().kind(), RuntimeErrorKind::Quarantined);
    let history = process.block_on(process.runtime.history(&id("damaged")));
    assert_eq!(history.unwrap_err().kind(), RuntimeErrorKind::Journal(JournalErrorKind::Damaged));
}

#[test]
fn a_full_medium_is_told_and_the_store_stays_usable() {
    let (_directory, store) = store();
    block_on(note(&store, "before")).unwrap();
    block_on(write(&store, |tx| {
        let pages: u32 = tx.pragma_query_value(None, "page_count", |row| row.get(0))?;
        tx.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
    }))
    .unwrap();
    let release = block(&store);
    let neighbour = note(&store, "in the same transaction");
    let big = note(&store, &"x".repeat(100_000));
    let after = note(&store, "queued after it");
    drop(release);
    assert_eq!(block_on(big).unwrap_err().kind(), JournalErrorKind::Full);
    // SQLite may have taken the neighbour's row back; then it was told so.
    let kept = match block_on(neighbour) {
        Ok(()) => vec!["before", "in the same transaction", "queued after it"],
        Err(error) => {
            assert_eq!(error.kind(), JournalErrorKind::Full, "{error}");
            vec!["before", "queued after it"]
        }
    };
    block_on(after).unwrap();
    assert_eq!(notes(&store), kept);
    block_on(write(&store, |tx| {
        tx.pragma_update_and_check(None, "max_page_count", 1_000_000, |_| Ok(()))
    }))
    .unwrap();
    block_on(note(&store, &"x".repeat(100_000))).unwrap();
}

/// Where the child of the next test writes.
const CHILD: &str = "FSM_CORE_TEST_STORE";

/// Not a test of its own: writes until the file may not grow any more.
#[test]
#[ignore = "the child process of `a_failed_write_poisons_the_store`"]
fn child_that_writes_until_it_cannot() {
    let path = std::env::var_os(CHILD).expect("started by another test");
    let store = Store::open(Path::new(&path)).unwrap();
    store.migrate("notes", NOTES).unwrap();
    let mut acknowledged = 0;
    let error = loop {
        match block_on(note(&store, &"x".repeat(4_000))) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 10_000, "there is no limit");
    };
    assert_eq!(error.kind(), JournalErrorKind::Storage, "{error}");
    let error = block_on(note(&store, "small")).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Poisoned);
    assert_eq!(notes(&store).len(), acknowledged, "reading goes on");
    println!("acknowledged {acknowledged}");
}

#[test]
#[cfg(unix)]
fn a_failed_write_poisons_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    // The signal is ignored, so that the write fails instead of the process.
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_writes_until_it_cannot", "--ignored", "--nocapture"])
        .env(CHILD, &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    let word = said.split("acknowledged ").nth(1).unwrap().split_whitespace().next().unwrap();
    let acknowledged: usize = word.parse().unwrap();
    assert!(acknowledged > 10, "{said}");

    let store = Store::open(&path).unwrap();
    let kept = notes(&store).len();
    assert!(kept == acknowledged || kept == acknowledged + 1, "{kept} of {acknowledged}");
    block_on(note(&store, "opened again")).unwrap();
}
