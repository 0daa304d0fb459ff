//! PostgreSQL through the whole house, against a server that is started here.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "../examples/support/cluster.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test uses its own part")]
mod cluster;
mod support;

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

use cluster::{Cluster, Programs, directory};
use mercury::{
    Class, Engine, EngineBuilder, Error, ErrorKind, ItemId, Key, KeySource, Outcome, Plugin,
    PointId, PointKind, Timestamp, Trust, Until,
};
use plugin_postgres::Postgres;
use serde_json::{Value, json};
use support::{ended, soon};
use tempfile::TempDir;

/// A server, and an engine's directories.
struct World {
    programs: Programs,
    server: Cluster,
    root: TempDir,
    key: Key,
}

impl World {
    /// `None` where there is no PostgreSQL, unless there has to be.
    fn new(test: &str) -> Option<Self> {
        let programs = Programs::or_skip(test)?;
        let server = Cluster::start(&programs);
        let root = directory("mercury-test-");
        server.ask("CREATE TABLE t (n int PRIMARY KEY)");
        Some(World { programs, server, root, key: Key::generate().unwrap() })
    }

    fn item(&self) -> ItemId {
        ItemId::new("postgres", "main", "cluster").unwrap()
    }

    fn config(&self) -> Value {
        json!({ "clusters": [{ "name": "main", "host": self.server.socket() }] })
    }

    fn engine(&self, plugin: Plugin) -> EngineBuilder {
        Engine::builder()
            .state_dir(self.root.path().join("state"))
            .archive_dir(self.root.path().join("archive"), KeySource::given(self.key.clone()))
            .plugin(plugin)
    }

    async fn start(&self) -> Engine {
        let plugin = Plugin::linked::<Postgres>().config("postgres", self.config());
        self.engine(plugin).start().await.unwrap()
    }

    /// Puts so many rows in, from number `from` on.
    fn insert(&self, from: u32, count: u32) {
        let to = from + count - 1;
        self.server.ask(&format!("INSERT INTO t SELECT generate_series({from}, {to})"));
    }

    /// The server's time; nothing that is committed later is as early.
    fn now(&self) -> Timestamp {
        let now = "SELECT ceil(extract(epoch FROM clock_timestamp()) * 1000)::int8";
        let now = Timestamp::from_unix_ms(self.server.ask(now).parse().unwrap());
        // Until the millisecond is over.
        self.server.ask("SELECT pg_sleep(0.005)");
        now
    }

    fn target(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Restores into a new directory, starts a server there, and answers with how many rows it
    /// has, and the last one.
    async fn restored(
        &self,
        engine: &Engine,
        point: &PointId,
        until: Option<Until>,
        name: &str,
    ) -> String {
        let target = self.target(name);
        let mut restore = engine.restore(&self.item(), point).to(target.to_str().unwrap());
        if let Some(until) = until {
            restore = restore.until(until);
        }
        ended(&restore.submit().await.unwrap()).await.unwrap();
        let server = Cluster::start_restored(&self.programs, &target).unwrap();
        let rows = server.ask("SELECT count(*), max(n) FROM t");
        // It takes writes, on a timeline of its own, and has tidied up.
        server.ask("INSERT INTO t VALUES (-1)");
        assert!(!target.join("mercury_wal").exists() && !target.join("recovery.signal").exists());
        rows
    }

    fn slot(&self) -> String {
        self.server.ask("SELECT restart_lsn FROM pg_replication_slots")
    }
}

async fn back_up(
    engine: &Engine,
    item: &ItemId,
    kind: PointKind,
    id: &str,
) -> Result<Outcome, Error> {
    ended(&engine.backup(item).kind(kind).id(id).submit().await?).await
}

#[track_caller]
fn made(outcome: Outcome) -> PointId {
    match outcome {
        Outcome::BackedUp { point, .. } => point,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_back_as_they_were_at_any_moment() {
    let Some(world) = World::new("a restore to any moment") else { return };
    let (engine, item) = (world.start().await, world.item());
    let found = engine.discover().await.unwrap();
    assert_eq!((found.len(), &found[0].id), (1, &item));
    assert!(found[0].size_bytes.unwrap() > 1 << 20, "{found:?}");

    world.insert(1, 100);
    let full = made(back_up(&engine, &item, PointKind::Full, "full").await.unwrap());
    world.insert(101, 100);
    let noon = world.now();
    world.insert(201, 50);
    let here = world.server.ask("SELECT pg_current_wal_lsn()");
    world.insert(251, 50);
    let log = made(back_up(&engine, &item, PointKind::Log, "log").await.unwrap());
    world.insert(301, 100);
    let later = made(back_up(&engine, &item, PointKind::Log, "later").await.unwrap());

    let points = engine.points(&item).await.unwrap();
    let links: Vec<_> = points.iter().map(|point| (point.kind, point.base.clone())).collect();
    let expected = [
        (PointKind::Full, vec![]),
        (PointKind::Log, vec![full.clone()]),
        (PointKind::Log, vec![log.clone()]),
    ];
    assert_eq!(links, expected);
    assert_eq!(engine.point_covering(&item, noon).await.unwrap(), log);

    let at_noon = Some(Until::Time(noon));
    assert_eq!(world.restored(&engine, &log, at_noon.clone(), "noon").await, "200|200");
    // A later point covers it, too.
    assert_eq!(world.restored(&engine, &later, at_noon, "noon-again").await, "200|200");
    let at_here = Some(Until::Position(here));
    assert_eq!(world.restored(&engine, &log, at_here, "here").await, "250|250");
    assert_eq!(world.restored(&engine, &log, None, "log").await, "300|300");
    assert_eq!(world.restored(&engine, &later, None, "latest").await, "400|400");
    assert_eq!(world.restored(&engine, &full, None, "full-alone").await, "100|100");
    // The last moment that a log covers: nothing was committed behind it but by the plugin.
    let end = Some(Until::Time(points[2].taken_at));
    assert_eq!(world.restored(&engine, &later, end, "end").await, "400|400");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_between_two_full_points_comes_back() {
    let Some(world) = World::new("a restore to a moment between full points") else { return };
    let (engine, item) = (world.start().await, world.item());
    made(back_up(&engine, &item, PointKind::Full, "first").await.unwrap());
    world.insert(1, 10);
    made(back_up(&engine, &item, PointKind::Log, "log").await.unwrap());
    world.insert(11, 10);
    let between = world.now();
    world.insert(21, 10);
    let second = made(back_up(&engine, &item, PointKind::Full, "second").await.unwrap());
    world.insert(31, 10);
    let over = made(back_up(&engine, &item, PointKind::Log, "over").await.unwrap());

    assert_eq!(engine.point_covering(&item, between).await.unwrap(), over);
    let until = Some(Until::Time(between));
    assert_eq!(world.restored(&engine, &over, until, "between").await, "20|20");
    assert_eq!(world.restored(&engine, &over, None, "over").await, "40|40");
    assert_eq!(world.restored(&engine, &second, None, "second").await, "30|30");
    // For retention the log needs the newer full point alone.
    assert_eq!(engine.points(&item).await.unwrap().last().unwrap().base, [second]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loaded_plugin_does_the_same() {
    let Some(world) = World::new("a loaded plugin") else { return };
    let library = std::env::current_exe().unwrap().with_file_name("libplugin_postgres.so");
    let trust = Trust::development("built together with this test");
    let plugin = Plugin::library(library, trust).in_process().config("postgres", world.config());
    let (engine, item) = (world.engine(plugin).start().await.unwrap(), world.item());
    world.insert(1, 10);
    let outcome = back_up(&engine, &item, PointKind::Full, "full").await.unwrap();
    let Outcome::BackedUp { stats, .. } = &outcome else { panic!("{outcome:?}") };
    assert_eq!(stats.foreign_chunks, 0, "what is lent is not copied");
    assert!(stats.lent_chunks > 10, "{stats:?}");
    world.insert(11, 10);
    let now = world.now();
    world.insert(21, 10);
    let log = made(back_up(&engine, &item, PointKind::Log, "log").await.unwrap());
    let until = Some(Until::Time(now));
    assert_eq!(world.restored(&engine, &log, until, "then").await, "20|20");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_not_changed_is_not_backed_up_again() {
    let Some(world) = World::new("a backup of an idle server") else { return };
    let (engine, item) = (world.start().await, world.item());
    world.insert(1, 10);
    let full = made(back_up(&engine, &item, PointKind::Full, "full").await.unwrap());
    world.insert(11, 10);
    let log = made(back_up(&engine, &item, PointKind::Log, "log").await.unwrap());
    // What the server writes for itself is no change.
    world.server.ask("CHECKPOINT");
    match back_up(&engine, &item, PointKind::Log, "idle").await.unwrap() {
        Outcome::Skipped { alias_of, point, .. } => {
            assert_eq!(alias_of, log);
            let points = engine.points(&item).await.unwrap();
            let until = Some(Until::Time(points[2].taken_at));
            assert_eq!(world.restored(&engine, &point, until, "idle").await, "20|20");
        }
        other => panic!("{other:?}"),
    }
    world.insert(21, 1);
    let next = made(back_up(&engine, &item, PointKind::Log, "next").await.unwrap());
    assert_eq!(world.restored(&engine, &next, None, "next").await, "21|21");
    let again = made(back_up(&engine, &item, PointKind::Full, "again").await.unwrap());
    assert_ne!(again, full);
    let idle = back_up(&engine, &item, PointKind::Full, "idle-full").await.unwrap();
    assert!(matches!(&idle, Outcome::Skipped { alias_of, .. } if *alias_of == again), "{idle:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_needs_a_full_point_and_a_server_that_kept_its_log() {
    let Some(world) = World::new("a log without what it needs") else { return };
    let (engine, item) = (world.start().await, world.item());
    let refused =
        |error: Error| support::check(&error, error.kind(), Class::Chain, "postgres.full_needed");
    refused(back_up(&engine, &item, PointKind::Log, "too-early").await.unwrap_err());
    made(back_up(&engine, &item, PointKind::Full, "full").await.unwrap());
    world.insert(1, 10);
    made(back_up(&engine, &item, PointKind::Log, "log").await.unwrap());
    // Somebody drops the slot: what is written from now on may be gone.
    world.server.ask("SELECT pg_drop_replication_slot('mercury_main')");
    world.insert(11, 10);
    refused(back_up(&engine, &item, PointKind::Log, "dropped").await.unwrap_err());
    // One that was made since does not have it either.
    world.server.ask("SELECT pg_switch_wal(), pg_switch_wal()");
    world.insert(21, 10);
    world.server.ask("SELECT pg_switch_wal()");
    world.server.ask("CHECKPOINT");
    world.server.ask("SELECT pg_create_physical_replication_slot('mercury_main', true)");
    refused(back_up(&engine, &item, PointKind::Log, "made").await.unwrap_err());
    let full = back_up(&engine, &item, PointKind::Full, "anew").await.unwrap();
    made(full);
    world.insert(31, 10);
    let log = made(back_up(&engine, &item, PointKind::Log, "after").await.unwrap());
    assert_eq!(world.restored(&engine, &log, None, "after").await, "40|40");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_forgets_what_is_sealed_and_no_more() {
    let Some(world) = World::new("the replication slot") else { return };
    let (engine, item) = (world.start().await, world.item());
    made(back_up(&engine, &item, PointKind::Full, "full").await.unwrap());
    let after_full = world.slot();
    world.insert(1, 10);
    assert_eq!(world.slot(), after_full);
    made(back_up(&engine, &item, PointKind::Log, "log").await.unwrap());
    let points = engine.points(&item).await.unwrap();
    assert_eq!(world.slot(), points[1].notes.details["to"].as_str().unwrap());
    assert_eq!(points[1].notes.details["from"].as_str().unwrap(), after_full);
    // A full point on top leaves the log alone, as logs are taken.
    world.insert(11, 10);
    let before = world.slot();
    made(back_up(&engine, &item, PointKind::Full, "second").await.unwrap());
    assert_eq!(world.slot(), before);
    // Nobody takes logs any more: the next one does not.
    world.insert(21, 10);
    made(back_up(&engine, &item, PointKind::Full, "third").await.unwrap());
    assert_ne!(world.slot(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_is_waited_for_and_a_wrong_password_is_not() {
    let Some(world) = World::new("a server that cannot be reached") else { return };
    let (engine, item) = (world.start().await, world.item());
    world.server.stop();
    let error = back_up(&engine, &item, PointKind::Full, "stopped").await.unwrap_err();
    support::check(&error, error.kind(), Class::Retryable, "postgres.unreachable");
    assert_eq!(engine.discover().await.unwrap().len(), 1, "it is configured all the same");
    world.server.go_on();
    made(back_up(&engine, &item, PointKind::Full, "started").await.unwrap());
    soon(engine.shutdown(Duration::ZERO)).await;
    drop(engine);

    world.server.ask("CREATE ROLE backup LOGIN REPLICATION SUPERUSER PASSWORD 'right'");
    let hba = world.server.data().join("pg_hba.conf");
    let rules = "local all postgres trust\nlocal all backup scram-sha-256\n\
                 local replication backup scram-sha-256\n";
    std::fs::write(&hba, rules).unwrap();
    world.server.ask("SELECT pg_reload_conf()");
    let password = world.root.path().join("password");
    let config = json!({ "clusters": [{
        "name": "main", "host": world.server.socket(), "user": "backup",
        "password": { "file": password },
    }] });
    let plugin = Plugin::linked::<Postgres>().config("postgres", config);
    let engine = world.engine(plugin).start().await.unwrap();
    let error = back_up(&engine, &item, PointKind::Full, "missing").await.unwrap_err();
    support::check(&error, error.kind(), Class::User, "postgres.password");
    std::fs::write(&password, "wrong\n").unwrap();
    let error = back_up(&engine, &item, PointKind::Full, "wrong").await.unwrap_err();
    support::check(&error, error.kind(), Class::User, "postgres.denied");
    assert!(!format!("{error:?}").contains("wrong\""), "{error:?}");
    std::fs::write(&password, "right\n").unwrap();
    made(back_up(&engine, &item, PointKind::Full, "right").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_base_backup_is_made_again_and_nothing_of_it_is_seen() {
    let Some(world) = World::new("a killed pg_basebackup") else { return };
    let plugin = Plugin::linked::<Postgres>().config("postgres", world.config());
    let slow = NonZeroU64::new(8 << 20).unwrap();
    let engine = world.engine(plugin).bytes_per_second(slow).start().await.unwrap();
    let item = world.item();
    world.insert(1, 1000);
    let mut events = engine.subscribe();
    let backup = engine.backup(&item).id("nightly").submit().await.unwrap();
    support::until(&mut events, |event| support::has_progressed(event, "nightly")).await;
    let killed = kill_children("pg_basebackup");
    assert_eq!(killed, 1);
    assert!(engine.points(&item).await.unwrap().is_empty());
    let point = made(ended(&backup).await.unwrap());
    assert_eq!(engine.points(&item).await.unwrap().len(), 1);
    assert_eq!(world.restored(&engine, &point, None, "again").await, "1000|1000");
}

/// Kills the programs of this name that serve this test, and says how many there were.
fn kill_children(name: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let command = std::fs::read_to_string(path.join("cmdline")).ok()?;
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned();
        let ours = parent == std::process::id().to_string()
            && command.contains(name)
            && command.contains("nightly/1");
        ours.then(|| path.file_name().unwrap().to_str().unwrap().to_owned())
    });
    let processes: Vec<String> = processes.collect();
    for process in &processes {
        let kill = std::process::Command::new("kill").args(["-9", process]).status().unwrap();
        assert!(kill.success());
    }
    processes.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_replaces_nothing_unless_it_is_told_to() {
    let Some(world) = World::new("a restore over something") else { return };
    let (engine, item) = (world.start().await, world.item());
    world.insert(1, 10);
    let full = made(back_up(&engine, &item, PointKind::Full, "full").await.unwrap());
    let target = world.target("target");
    std::fs::create_dir(&target).unwrap();
    let restore = |id: &str| engine.restore(&item, &full).id(id).to(target.to_str().unwrap());
    // An empty directory is as good as none.
    ended(&restore("empty").submit().await.unwrap()).await.unwrap();
    let error = ended(&restore("again").submit().await.unwrap()).await.unwrap_err();
    support::check(&error, ErrorKind::Operation, Class::User, "postgres.exists");

    let server = Cluster::start_restored(&world.programs, &target).unwrap();
    let error = ended(&restore("used").overwrite().submit().await.unwrap()).await.unwrap_err();
    support::check(&error, ErrorKind::Operation, Class::User, "postgres.running");
    server.ask("DROP TABLE t");
    server.stop();
    ended(&restore("over").overwrite().submit().await.unwrap()).await.unwrap();
    drop(server);
    let server = Cluster::start_restored(&world.programs, &target).unwrap();
    assert_eq!(server.ask("SELECT count(*) FROM t"), "10");
    let beside = support::names(world.root.path());
    assert!(!beside.iter().any(|name| name.contains("mercury-")), "{beside:?}");

    // What cannot be said of a whole point is refused before anything is touched.
    let late = Until::Time(Timestamp::from_unix_ms(u64::from(u32::MAX) * 1000));
    let error = ended(&restore("late").until(late).submit().await.unwrap()).await.unwrap_err();
    support::check(&error, ErrorKind::Operation, Class::User, "until.after_end");
}
