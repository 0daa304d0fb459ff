//! What a backup holds, what it costs, and what it leaves alone.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use mercury::{Event, Outcome, Phase};
use support::{World, application, back_up, cost, ended, hash, ids, in_phase, large, rows, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_database_is_byte_for_byte_what_was_backed_up() {
    let world = World::new();
    large(&world.database("orders.db"), 3);
    let item = world.item("orders.db");
    let before = hash(&world.database("orders.db"));
    let engine = world.start().await;
    let point = back_up(&engine, &item, "first").await.unwrap();
    assert_eq!(world.restored(&engine, &item, &point).await, before);
    assert_eq!(hash(&world.database("orders.db")), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_chunk_is_copied_between_plugin_and_archive() {
    let world = World::new();
    let path = world.database("orders.db");
    large(&path, 6);
    let engine = world.start().await;
    let stats = cost(&engine, &world.item("orders.db"), "first").await;
    let length = std::fs::metadata(&path).unwrap().len();
    assert_eq!(stats.read_bytes, length);
    assert_eq!(stats.foreign_chunks, 0);
    assert_eq!(stats.lent_chunks, length.div_ceil(1 << 20), "one chunk a buffer of 1 MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_is_not_stored_again() {
    let world = World::new();
    large(&world.database("orders.db"), 4);
    let item = world.item("orders.db");
    let engine = world.start().await;
    let first = cost(&engine, &item, "first").await;
    assert!(first.new_bytes > 4 << 20, "{first:?}");
    let packs = world.packs();
    let second = cost(&engine, &item, "second").await;
    assert_eq!((second.read_bytes, second.new_bytes), (first.read_bytes, 0), "{second:?}");
    assert_eq!(world.packs(), packs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uncommitted_transaction_is_not_in_the_backup() {
    let world = World::new();
    let path = world.database("orders.db");
    let writer = application(&path);
    writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO t (text) SELECT text FROM t;").unwrap();
    let item = world.item("orders.db");
    let engine = world.start().await;
    let point = back_up(&engine, &item, "first").await.unwrap();
    let target = world.unused("copy.db");
    let restore = engine.restore(&item, &point).to(target.to_str().unwrap());
    ended(&restore.submit().await.unwrap()).await.unwrap();
    assert_eq!(rows(&target), 1_001);
    writer.execute_batch("COMMIT").unwrap();
    assert_eq!(rows(&path), 2_002, "the writer was not disturbed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_backup_changes_no_byte_of_the_source() {
    let world = World::new();
    let path = world.database("orders.db");
    let log = world.database("orders.db-wal");
    let _application = application(&path);
    let before = (hash(&path), hash(&log));
    let engine = world.start().await;
    back_up(&engine, &world.item("orders.db"), "first").await.unwrap();
    assert_eq!((hash(&path), hash(&log)), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_database_gets_an_alias_point_and_no_new_bytes() {
    let world = World::new();
    let path = world.database("orders.db");
    let application = application(&path);
    let item = world.item("orders.db");
    let engine = world.start().await;
    let first = back_up(&engine, &item, "first").await.unwrap();
    let before = world.restored(&engine, &item, &first).await;
    let packs = world.packs();
    let mut events = engine.subscribe();

    let backup = engine.backup(&item).id("second").submit().await.unwrap();
    let outcome = ended(&backup).await.unwrap();
    let Outcome::Skipped { point, alias_of, reason } = outcome else { panic!("{outcome:?}") };
    assert_eq!(alias_of, first);
    assert!(!reason.is_empty());
    assert_eq!(backup.status().await.unwrap().phase, Phase::Skipped);
    let sealed = until(&mut events, |event| matches!(event, Event::Sealed { .. })).await;
    assert_eq!(sealed, Event::Sealed { item: item.clone(), point: point.clone() });
    until(&mut events, |event| in_phase(event, "second", Phase::Skipped)).await;

    assert_eq!(world.packs(), packs, "nothing new is stored");
    let points = engine.points(&item).await.unwrap();
    assert_eq!(ids(&points), ["first/1", "second/1"]);
    assert_eq!(points[1].alias_of.as_ref(), Some(&first));
    assert_eq!(points[1].streams, points[0].streams);
    assert!(points[1].taken_at >= points[0].taken_at);
    assert_eq!(world.restored(&engine, &item, &point).await, before);

    // One more commit, and the next backup is a real one again; then an alias of that.
    application.execute_batch("INSERT INTO t (text) VALUES ('new')").unwrap();
    let third = engine.backup(&item).id("third").submit().await.unwrap();
    assert!(matches!(ended(&third).await.unwrap(), Outcome::BackedUp { .. }));
    let fourth = engine.backup(&item).id("fourth").submit().await.unwrap();
    assert!(matches!(ended(&fourth).await.unwrap(), Outcome::Skipped { .. }));
    let points = engine.points(&item).await.unwrap();
    assert_eq!(points.iter().map(|point| point.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_whose_engine_died_before_saying_so_is_not_made_twice() {
    let world = World::new();
    let path = world.database("orders.db");
    let application = application(&path);
    let item = world.item("orders.db");
    let engine = world.start().await;
    back_up(&engine, &item, "first").await.unwrap();
    let second = engine.backup(&item).id("second").submit().await.unwrap();
    ended(&second).await.unwrap();
    engine.shutdown(std::time::Duration::ZERO).await;
    // As it stood in the store before the alias was sealed.
    let undo =
        "UPDATE mercury_operation SET phase = 'accepted', outcome = NULL WHERE id = 'second'";
    world.store().execute(undo, []).unwrap();
    // Even if by now there would be something to back up.
    application.execute_batch("INSERT INTO t (text) VALUES ('new')").unwrap();

    let engine = world.start().await;
    let second = engine.operation(second.id()).await.unwrap();
    let outcome = ended(&second).await.unwrap();
    let Outcome::Skipped { point, alias_of, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((point.as_str(), alias_of.as_str()), ("second/1", "first/1"));
    assert_eq!(ids(&engine.points(&item).await.unwrap()), ["first/1", "second/1"]);
}
