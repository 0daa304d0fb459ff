//! How fast things are. Not a judgement, so it only runs when asked:
//! `cargo test --release -p plugin-sqlite --test speed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Instant;

use common::content::table_hashes;
use common::{dataset, open};
use plugin_sqlite::churn::Fingerprint;
use plugin_sqlite::snapshot::Snapshot;

#[test]
#[ignore = "prints figures"]
fn figures_of_a_200_mb_database() {
    let directory = tempfile::TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let source = at("shop.db");
    let show = |what: &str, bytes: u64, start: Instant| {
        let seconds = start.elapsed().as_secs_f64();
        let rate = bytes as f64 / 1e6 / seconds;
        println!("{what:<28} {:>7.1} MB {seconds:>8.3} s {rate:>8.0} MB/s", bytes as f64 / 1e6);
    };
    let size = |path: &std::path::Path| std::fs::metadata(path).unwrap().len();

    let start = Instant::now();
    dataset::create(&source, 200_000_000, |_, _| {}).unwrap();
    show("create", size(&source), start);
    let start = Instant::now();
    dataset::create_scattered(&at("scattered.db"), 200_000_000, |_, _| {}).unwrap();
    show("create scattered", size(&at("scattered.db")), start);

    let mut buffer = vec![0; 1 << 20];
    for round in ["snapshot", "snapshot again"] {
        let start = Instant::now();
        let mut snapshot = Snapshot::begin(open(&source).unwrap()).unwrap();
        while snapshot.read_into(&mut buffer).unwrap() > 0 {}
        show(round, snapshot.len_bytes(), start);
    }
    let start = Instant::now();
    let mut snapshot = Snapshot::begin_by_copy(open(&source).unwrap(), directory.path()).unwrap();
    while snapshot.read_into(&mut buffer).unwrap() > 0 {}
    show("snapshot by copy", snapshot.len_bytes(), start);
    drop(snapshot);

    let start = Instant::now();
    table_hashes(&source).unwrap();
    show("table hashes", size(&source), start);
    let start = Instant::now();
    dataset::change_newest(&source, 0.01).unwrap();
    show("change the newest 1 %", size(&source), start);
    let start = Instant::now();
    dataset::append(&source, 0.01).unwrap();
    show("append 1 %", size(&source), start);
    let start = Instant::now();
    Fingerprint::read(&source).unwrap();
    show("fingerprint", 200, start);
}
