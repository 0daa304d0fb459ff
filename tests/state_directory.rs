//! The state directory: locked, readable by people, and not needed to restore.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::{process::Command, time::Duration};

use mercury::{Class, ErrorKind};
use support::{World, application, back_up, check, ended, hash, ids, small, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_and_its_key_are_all_that_a_restore_needs() {
    let world = World::new();
    let path = world.database("orders.db");
    small(&path, 1_000);
    let (item, first_hash) = (world.item("orders.db"), hash(&path));
    let engine = world.start().await;
    let first = back_up(&engine, &item, "first").await.unwrap();
    soon(engine.shutdown(Duration::ZERO)).await;
    drop(engine);
    std::fs::remove_dir_all(world.path("state")).unwrap();
    small(&path, 100);

    let engine = world.start().await;
    assert_eq!(engine.operations().await.unwrap(), []);
    assert_eq!(engine.archived_items().await.unwrap(), std::slice::from_ref(&item));
    assert_eq!(ids(&engine.points(&item).await.unwrap()), ["first/1"]);
    assert_eq!(world.restored(&engine, &item, &first).await, first_hash);
    let second = back_up(&engine, &item, "second").await.unwrap();
    let points = engine.points(&item).await.unwrap();
    assert_eq!(ids(&points), ["first/1", "second/1"]);
    assert_eq!(points.iter().map(|point| point.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(world.restored(&engine, &item, &second).await, hash(&path));
    let entries = world.archive().await.item(item.as_str()).await.unwrap().points().await.unwrap();
    assert!(entries[1].epoch > entries[0].epoch, "the new directory fences the lost one off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_was_replaced_is_fenced_off() {
    let world = World::new();
    let _application = application(&world.database("orders.db"));
    let item = world.item("orders.db");
    let old = world.start().await;
    let first = back_up(&old, &item, "first").await.unwrap();
    let new = world.builder().state_dir(world.path("other-state")).start().await.unwrap();
    back_up(&new, &item, "second").await.unwrap();

    let error = back_up(&old, &item, "third").await.unwrap_err();
    check(&error, ErrorKind::Operation, Class::Fenced, "archive.fenced");
    // Nor does it slip in by way of an unchanged database.
    let unchanged = old.backup(&item).id("fourth").submit().await.unwrap();
    let error = ended(&unchanged).await.unwrap_err();
    check(&error, ErrorKind::Operation, Class::Fenced, "archive.fenced");
    assert_eq!(ids(&new.points(&item).await.unwrap()), ["first/1", "second/1"]);
    let restored = world.restored(&new, &item, &first).await;
    assert_eq!(world.restored(&old, &item, &first).await, restored, "it may still read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_directory_serves_one_engine_at_a_time() {
    let world = World::new();
    small(&world.database("orders.db"), 10);
    let first = world.start().await;
    let error = world.builder().start().await.unwrap_err();
    check(&error, ErrorKind::InUse, Class::User, "state.in_use");
    assert!(error.to_string().contains(world.path("state").to_str().unwrap()), "{error}");
    let point = back_up(&first, &world.item("orders.db"), "undisturbed").await.unwrap();

    // A shutdown lets go of it, whoever still has a handle.
    soon(first.shutdown(Duration::from_secs(5))).await;
    let second = world.start().await;
    assert_eq!(ids(&second.points(&world.item("orders.db")).await.unwrap()), [point.as_str()]);
    // So does dropping an engine that has nothing to do.
    drop((first, second));
    world.start().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_leaves_the_state_directory_free() {
    let world = World::new();
    let twice = world.builder().plugin(world.plugin()).start().await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Plugin);
    world.start().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_directory_that_cannot_be_used_is_named() {
    let world = World::new();
    std::fs::write(world.path("file"), "not a directory").unwrap();
    let error = world.builder().state_dir(world.path("file")).start().await.unwrap_err();
    check(&error, ErrorKind::State, Class::User, "state.unusable");
    assert!(error.to_string().contains(world.path("file").to_str().unwrap()), "{error}");

    std::fs::create_dir(world.path("state")).unwrap();
    std::fs::write(world.path("state/mercury.db"), [b'x'; 8_192]).unwrap();
    let error = world.builder().start().await.unwrap_err();
    check(&error, ErrorKind::State, Class::Permanent, "state.damaged");
    assert_eq!(std::fs::read(world.path("state/mercury.db")).unwrap(), [b'x'; 8_192]);
}

/// What the command line tool of SQLite answers; `None` where it is not installed.
fn sqlite3(world: &World, sql: &str) -> Option<String> {
    let path = world.path("state/mercury.db");
    let output = match Command::new("sqlite3").arg("-readonly").arg(path).arg(sql).output() {
        Ok(output) => output,
        Err(error) if std::env::var_os("MERCURY_REQUIRE_SERVERS").is_none() => {
            eprintln!("SKIPPED: sqlite3 cannot be run: {error}");
            return None;
        }
        Err(error) => panic!("sqlite3 cannot be run: {error}"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_can_be_read_with_any_sqlite_tool_while_the_engine_runs() {
    let world = World::new();
    small(&world.database("orders.db"), 1_000);
    let item = world.item("orders.db");
    let engine = world.start().await;
    engine.discover().await.unwrap();
    let point = back_up(&engine, &item, "one").await.unwrap();
    let restore = engine.restore(&item, &point).id("two").to("not absolute").submit().await;
    ended(&restore.unwrap()).await.unwrap_err();

    let expected = [
        (
            "SELECT run, machine, status, state FROM runs",
            "one/1|sqlite.backup|completed|sealed\n".to_owned(),
        ),
        (
            "SELECT state FROM history WHERE run = 'one/1' AND kind = 'enter' ORDER BY seq",
            "inspect\ncopy\nseal\nsealed\n".to_owned(),
        ),
        (
            "SELECT id, verb, item, phase FROM operations ORDER BY id",
            format!("one|backup|{item}|succeeded\ntwo|restore|{item}|failed\n"),
        ),
        (
            "SELECT count(*) FROM operations WHERE created LIKE '20__-__-__ __:__:__.%' AND \
             fault LIKE '%sqlite.target%'",
            "1\n".to_owned(),
        ),
        ("SELECT item, workload FROM items", format!("{item}|sqlite\n")),
        ("SELECT item, seq, id, kind FROM recovery_points", format!("{item}|1|one/1|full\n")),
        (
            "SELECT bytes FROM recovery_points",
            format!("{}\n", std::fs::metadata(world.database("orders.db")).unwrap().len()),
        ),
    ];
    for (sql, answer) in expected {
        let Some(found) = sqlite3(&world, sql) else { return };
        assert_eq!(found, answer, "{sql}");
    }
}
