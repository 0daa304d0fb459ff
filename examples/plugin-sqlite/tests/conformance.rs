//! The plugin stands everything that the conformance kit does to it, linked, loaded and isolated.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/databases.rs"]
mod databases;
#[path = "common/stage.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod stage;

use std::path::PathBuf;

use databases::Databases;
use plugin_sdk::{
    conformance::{Kit, Report, Subject, Verdict},
    host::{Process, Runner},
};
use plugin_sqlite::Sqlite;

#[track_caller]
fn check(subject: Subject, not_tried: &[&str]) -> Report {
    let report = Kit::new(subject).fixture(Databases::new()).run();
    println!("{report}");
    let of = |verdict| report.checks.iter().filter(move |check| check.verdict == verdict);
    let failed: Vec<_> = of(Verdict::Failed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let skipped: Vec<_> = of(Verdict::Skipped).map(|check| check.name.as_str()).collect();
    assert_eq!(skipped, not_tried);
    report
}

#[test]
fn the_plugin_stands_the_conformance_kit_linked() {
    // A linked plugin is no file.
    let not_tried = [&["sidecar", "two_copies"], &NOT_OF_A_TEST[1..]].concat();
    check(Subject::linked::<Sqlite>(), &not_tried);
}

/// What this package is built into, in the directory `directory`.
fn built(directory: &str, name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let built = program.ancestors().nth(2).unwrap().join(directory).join(name);
    assert!(built.is_file(), "{} is missing: build the package", built.display());
    built
}

/// The library has no sidecar, and a test program is not the kit's own.
const NOT_OF_A_TEST: [&str; 4] = ["sidecar", "no_panic_in_drop", "standard_output", "threads"];

#[test]
fn the_plugin_stands_the_conformance_kit_loaded() {
    check(Subject::library(built("deps", "libplugin_sqlite.so")), &NOT_OF_A_TEST);
}

#[test]
fn the_plugin_stands_the_conformance_kit_isolated() {
    let process = Process::new().runner(Runner::at(built("examples", "conform_sqlite")));
    check(Subject::isolated(built("deps", "libplugin_sqlite.so"), process), &NOT_OF_A_TEST);
}
