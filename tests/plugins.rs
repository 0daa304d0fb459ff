//! A plugin is the same plugin, linked into the program or loaded from its library.
//!
//! Two copies of SQLite live in this process then. No database is open in both at a time: POSIX
//! locks would be lost.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::time::Duration;

use mercury::{Engine, Graph, Plugin, PointMeta, Trust};
use support::{World, back_up, cost, ended, hash, large, soon};

struct Seen {
    graphs: Vec<Graph>,
    points: Vec<PointMeta>,
    streams: Vec<(String, u64, String)>,
    restored: String,
}

/// Backs the database up with `plugin`, into a state directory and an archive of its own.
async fn seen(world: &World, plugin: Plugin, place: &str) -> Seen {
    let engine: Engine = world
        .bare()
        .state_dir(world.path(place))
        .archive_dir(world.path(&format!("{place}-archive")), given(world))
        .plugin(plugin)
        .start()
        .await
        .unwrap();
    let item = world.item("orders.db");
    assert_eq!(engine.discover().await.unwrap()[0].id, item);
    let point = back_up(&engine, &item, "nightly").await.unwrap();
    let restored = world.restored(&engine, &item, &point).await;
    let points = engine.points(&item).await.unwrap();
    let graphs = engine.graphs("sqlite");
    soon(engine.shutdown(Duration::ZERO)).await;
    let archive = world.path(&format!("{place}-archive"));
    let archive = archive::Archive::open_dir(archive, &world.key).await.unwrap();
    let entries = archive.item(item.as_str()).await.unwrap().points().await.unwrap();
    let streams = entries.iter().flat_map(|entry| &entry.streams);
    let streams = streams.map(|s| (s.name.clone(), s.length, s.hash.to_string())).collect();
    Seen { graphs, points, streams, restored }
}

fn given(world: &World) -> mercury::KeySource {
    mercury::KeySource::given(world.key.clone())
}

fn loaded(world: &World) -> Plugin {
    let trust = Trust::development("built together with this test");
    Plugin::library(support::library(), trust).in_process().config("sqlite", world.config())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn linked_and_loaded_a_plugin_makes_the_same_points() {
    let world = World::new();
    large(&world.database("orders.db"), 3);
    let linked = seen(&world, world.plugin(), "linked").await;
    let loaded = seen(&world, loaded(&world), "loaded").await;
    assert_eq!(linked.streams, loaded.streams);
    let texts = |seen: &Seen| seen.graphs.iter().map(mercury::Graph::to_json).collect::<Vec<_>>();
    assert_eq!(texts(&linked), texts(&loaded), "to the byte");
    assert_eq!(linked.graphs.len(), 2);
    assert_eq!(linked.restored, hash(&world.database("orders.db")));
    assert_eq!(loaded.restored, linked.restored);
    for (linked, loaded) in linked.points.iter().zip(&loaded.points) {
        assert_eq!(linked.notes.details, loaded.notes.details);
        assert_eq!((&linked.id, linked.kind, linked.seq), (&loaded.id, loaded.kind, loaded.seq));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loaded_plugin_fills_lent_buffers_too() {
    let world = World::new();
    let path = world.database("orders.db");
    large(&path, 3);
    let engine = world.bare().plugin(loaded(&world)).start().await.unwrap();
    let stats = cost(&engine, &world.item("orders.db"), "nightly").await;
    let length = std::fs::metadata(&path).unwrap().len();
    assert_eq!((stats.foreign_chunks, stats.lent_chunks), (0, length.div_ceil(1 << 20)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_linked_plugin_began_a_loaded_one_finishes() {
    let world = World::new();
    large(&world.database("orders.db"), 8);
    let item = world.item("orders.db");
    let engine = world.start_slow().await;
    let mut events = engine.subscribe();
    let backup = engine.backup(&item).id("nightly").submit().await.unwrap();
    support::until(&mut events, |event| support::has_progressed(event, "nightly")).await;
    soon(engine.shutdown(Duration::ZERO)).await;
    let id = backup.id().clone();
    drop((engine, backup));

    let engine = world.bare().plugin(loaded(&world)).start().await.unwrap();
    ended(&engine.operation(&id).await.unwrap()).await.unwrap();
    let point = engine.points(&item).await.unwrap().remove(0).id;
    let source = hash(&world.database("orders.db"));
    assert_eq!(world.restored(&engine, &item, &point).await, source);
}
