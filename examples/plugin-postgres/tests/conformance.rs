//! The plugin stands what the conformance kit does to it, against a real server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../support/cluster.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test uses its own part")]
mod cluster;
#[path = "common/server.rs"]
mod server;

use std::path::PathBuf;

use cluster::Programs;
use plugin_postgres::Postgres;
use plugin_sdk::{
    conformance::{Group, Kit, Subject, Verdict},
    host::{Process, Runner},
};
use server::Server;

/// How often a run is played for each check: most plays restore a server and start it.
const PLAYS: usize = 3;

#[track_caller]
fn check(subject: Subject, groups: &[Group]) {
    let Some(programs) = Programs::or_skip("the conformance kit") else { return };
    let kit = Kit::new(subject).fixture(Server::new(programs)).plays_at_most(PLAYS);
    let report = kit.only(groups).run();
    println!("{report}");
    let of = |verdict| report.checks.iter().filter(move |check| check.verdict == verdict);
    // A server runs on the directory that would be replaced: that is refused. And how long a
    // backup of a server may take is not known here.
    let known = ["replaces", "graph_limits"];
    let failed: Vec<_> =
        of(Verdict::Failed).filter(|check| !known.contains(&check.name.as_str())).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(of(Verdict::Passed).count() > 0, "{report}");
}

/// What this package is built into, in the directory `directory`.
fn built(directory: &str, name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let built = program.ancestors().nth(2).unwrap().join(directory).join(name);
    assert!(built.is_file(), "{} is missing: build the package", built.display());
    built
}

fn loaded() -> Subject {
    Subject::library(built("deps", "libplugin_postgres.so"))
}

fn isolated() -> Subject {
    let process = Process::new().runner(Runner::at(built("examples", "conform_postgres")));
    Subject::isolated(built("deps", "libplugin_postgres.so"), process)
}

/// What takes seconds.
const QUICK: [Group; 3] = [Group::Load, Group::Fuzz, Group::Hygiene];

#[test]
fn the_plugin_stands_the_quick_part_of_the_conformance_kit_loaded_and_isolated() {
    check(loaded(), &QUICK);
    check(isolated(), &QUICK);
}

#[test]
#[ignore = "takes minutes: most plays restore a server and start it"]
fn the_plugin_stands_the_conformance_kit_linked() {
    check(Subject::linked::<Postgres>(), &Group::ALL);
}

#[test]
#[ignore = "takes minutes: most plays restore a server and start it"]
fn the_plugin_stands_the_conformance_kit_loaded() {
    check(loaded(), &Group::ALL);
}

#[test]
#[ignore = "takes minutes: most plays restore a server and start it"]
fn the_plugin_stands_the_conformance_kit_isolated() {
    check(isolated(), &Group::ALL);
}
