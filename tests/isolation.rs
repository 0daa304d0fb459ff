//! A plugin in processes of its own: the same points as in this one, and nothing that happens to
//! its processes happens to the engine.
//!
//! The tests count this program's processes, so they run one at a time.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::{collections::BTreeSet, path::Path, process::Command, time::Duration};

use mercury::{
    BackupStats, Class, Engine, ErrorKind, Event, Isolation, ItemId, Outcome, Plugin, PointMeta,
    Process, Runner, Trust,
};
use tokio::sync::{Mutex, MutexGuard};

use support::{World, back_up, check, cost, ended, hash, large, plugin_processes, soon, until};

async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

fn process() -> Process {
    Process::new().runner(Runner::at(support::runner()))
}

fn plugin(world: &World, isolation: Isolation) -> Plugin {
    let trust = Trust::development("built together with this test");
    Plugin::library(support::library(), trust).isolation(isolation).config("sqlite", world.config())
}

async fn start(world: &World, isolation: Isolation) -> Engine {
    world.bare().plugin(plugin(world, isolation)).start().await.unwrap()
}

/// As `start`, but slow enough to be met in the middle of a backup.
async fn start_slow(world: &World, isolation: Isolation) -> Engine {
    world.slow(world.bare().plugin(plugin(world, isolation))).start().await.unwrap()
}

fn signal(process: u32, name: &str) {
    let order = ["-c", &format!("kill -{name} {process}")];
    assert!(Command::new("sh").args(order).status().unwrap().success());
}

async fn gone() {
    soon(async {
        while !plugin_processes().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Everything that a backup left behind and that does not tell time or chance.
#[derive(Debug, PartialEq)]
struct Left {
    stats: BackupStats,
    points: Vec<PointMeta>,
    streams: Vec<(String, u64, String)>,
    packs: Vec<u64>,
    journal: Vec<(i64, String, Option<String>)>,
    restored: String,
}

/// Two backups and a restore.
async fn left(isolation: Isolation) -> Left {
    let world = World::new();
    let path = world.database("orders.db");
    let shared = std::env::temp_dir().join(format!("mercury-same-{}.db", std::process::id()));
    std::fs::copy(&shared, &path).unwrap();
    let item = world.item("orders.db");
    let engine = start(&world, isolation).await;
    assert_eq!(engine.discover().await.unwrap()[0].id, item);
    let stats = cost(&engine, &item, "first").await;
    let point = back_up(&engine, &item, "second").await.unwrap();
    let restored = world.restored(&engine, &item, &point).await;
    let points = engine.points(&item).await.unwrap();
    soon(engine.shutdown(Duration::from_secs(30))).await;
    let entries = world.archive().await.item(item.as_str()).await.unwrap().points().await.unwrap();
    let streams = entries.iter().flat_map(|entry| &entry.streams);
    let streams = streams.map(|s| (s.name.clone(), s.length, s.hash.to_string())).collect();
    let mut packs: Vec<u64> =
        world.packs().iter().map(|pack| pack.metadata().unwrap().len()).collect();
    packs.sort_unstable();
    Left { stats, points: timeless(points), streams, packs, journal: journal(&world), restored }
}

/// What the points say beside when, and of which path.
fn timeless(points: Vec<PointMeta>) -> Vec<PointMeta> {
    let without = |mut point: PointMeta| {
        point.item = ItemId::new("sqlite", "local", "orders").unwrap();
        point.taken_at = mercury::Timestamp::default();
        point.notes = plugin_sdk::PointNotes::new();
        point
    };
    points.into_iter().map(without).collect()
}

/// The records of all runs: their place, their kind, their state.
fn journal(world: &World) -> Vec<(i64, String, Option<String>)> {
    let store = world.store();
    let mut query =
        store.prepare("SELECT seq, kind, state FROM fsm_record ORDER BY run_id, seq").unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn here_and_apart_a_plugin_leaves_the_same_archive_and_the_same_journal() {
    let _alone = alone().await;
    let shared = std::env::temp_dir().join(format!("mercury-same-{}.db", std::process::id()));
    let _ = std::fs::remove_file(&shared);
    large(&shared, 5);
    let here = left(Isolation::InProcess).await;
    let apart = left(Isolation::Process(process())).await;
    let source = hash(&shared);
    std::fs::remove_file(&shared).unwrap();
    assert_eq!(here.restored, source);
    assert!(here.stats.lent_chunks > 4 && here.journal.len() > 6, "{here:?}");
    assert_eq!(here, apart);
    gone().await;
}

/// Waits until the backup `id` has progressed; the process that its run has.
async fn met(engine: &Engine, item: &ItemId, id: &str, known: &BTreeSet<u32>) -> u32 {
    let mut events = engine.subscribe();
    engine.backup(item).id(id).submit().await.unwrap();
    until(&mut events, |event| support::has_progressed(event, id)).await;
    plugin_processes().difference(known).copied().next().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_is_one_runs_affair_and_not_for_long() {
    let _alone = alone().await;
    let world = World::new();
    for name in ["orders.db", "stock.db"] {
        large(&world.database(name), 2);
    }
    let engine = start_slow(&world, Isolation::Process(process())).await;
    engine.discover().await.unwrap();
    let mut known = plugin_processes();
    let orders = met(&engine, &world.item("orders.db"), "orders", &known).await;
    known.insert(orders);
    let stock = met(&engine, &world.item("stock.db"), "stock", &known).await;
    signal(orders, "SEGV");
    for (name, id) in [("orders.db", "orders"), ("stock.db", "stock")] {
        let operation = engine.operation(&support::operation(id)).await.unwrap();
        let outcome = ended(&operation).await.unwrap();
        assert!(matches!(outcome, Outcome::BackedUp { .. }), "{outcome:?}");
        assert_eq!(engine.points(&world.item(name)).await.unwrap().len(), 1);
    }
    // The other run kept its process to its end, so its records have nothing to tell of a death.
    assert_ne!(stock, orders);
    let attempts = "SELECT count(*) FROM fsm_record WHERE kind = 'attempt'";
    let attempts: u32 = world.store().query_row(attempts, [], |row| row.get(0)).unwrap();
    assert_eq!(attempts, 0, "an interruption uses up no attempt");
    soon(engine.shutdown(Duration::from_secs(30))).await;
    gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_process_dies_again_and_again_stands_still_and_others_go_on() {
    let _alone = alone().await;
    let world = World::new();
    large(&world.database("orders.db"), 2);
    let engine = start_slow(&world, Isolation::Process(process().crashes(1))).await;
    engine.discover().await.unwrap();
    let known = plugin_processes();
    let mut events = engine.subscribe();
    let run = met(&engine, &world.item("orders.db"), "orders", &known).await;
    signal(run, "KILL");
    let stuck = until(&mut events, |event| matches!(event, Event::Stuck { .. })).await;
    let Event::Stuck { operation, why } = stuck else { unreachable!("it was waited for") };
    assert_eq!(operation.as_str(), "orders");
    assert!(why.contains("given up after 1 crashes"), "{why}");
    assert!(!engine.discover().await.unwrap().is_empty(), "the plugin itself is as ever");
    soon(engine.shutdown(Duration::ZERO)).await;
    gone().await;

    // A start is another try.
    let engine = start(&world, Isolation::Process(process())).await;
    ended(&engine.operation(&operation).await.unwrap()).await.unwrap();
    soon(engine.shutdown(Duration::from_secs(30))).await;
    gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_asked_again_when_their_process_has_died() {
    let _alone = alone().await;
    let world = World::new();
    large(&world.database("orders.db"), 1);
    let engine = start(&world, Isolation::Process(process())).await;
    for _ in 0..3 {
        for process in plugin_processes() {
            signal(process, "ABRT");
        }
        assert_eq!(engine.discover().await.unwrap().len(), 1);
    }
    soon(engine.shutdown(Duration::ZERO)).await;
    gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_in_the_middle_leaves_no_process_and_the_next_start_finishes() {
    let _alone = alone().await;
    let world = World::new();
    large(&world.database("orders.db"), 2);
    let item = world.item("orders.db");
    let engine = start_slow(&world, Isolation::Process(process())).await;
    met(&engine, &item, "orders", &plugin_processes()).await;
    soon(engine.shutdown(Duration::ZERO)).await;
    gone().await;

    let engine = start(&world, Isolation::Process(process())).await;
    let operation = engine.operation(&support::operation("orders")).await.unwrap();
    ended(&operation).await.unwrap();
    let point = engine.points(&item).await.unwrap().remove(0).id;
    assert_eq!(world.restored(&engine, &item, &point).await, hash(&world.database("orders.db")));
    soon(engine.shutdown(Duration::from_secs(30))).await;
    gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_is_isolated_unless_asked_otherwise_and_a_missing_runner_is_told_with_advice() {
    let _alone = alone().await;
    let world = World::new();
    // The tests' own program is none.
    let trust = Trust::development("built together with this test");
    let plugin = Plugin::library(support::library(), trust).config("sqlite", world.config());
    let error = world.bare().plugin(plugin).start().await.unwrap_err();
    check(&error, ErrorKind::Plugin, Class::User, "plugin.runner");
    let process = Process::new().runner(Runner::at(Path::new("/bin/true")));
    let plugin = self::plugin(&world, Isolation::Process(process));
    let error = world.bare().plugin(plugin).start().await.unwrap_err();
    check(&error, ErrorKind::Plugin, Class::Bug, "plugin.broken");
    gone().await;
}
