//! The plugin stands everything that the conformance kit does to it, linked and loaded.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/stage.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod stage;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use common::make;
use plugin_sdk::{
    ItemId,
    conformance::{Fixture, FixtureError, Kit, Report, Subject, Verdict},
};
use plugin_sqlite::{
    Sqlite,
    churn::{self, Fingerprint, compare},
};
use serde_json::{Value, json};
use stage::{SIDECARS, Stage, beside, content_of_copy};

/// Content that must stay between the database and the archive.
const SECRET: &str = "hunter2-CANARY";

/// A directory with two databases in it, which nobody has open.
struct Databases(Stage);

impl Databases {
    fn path(&self, name: &str) -> PathBuf {
        self.0.directory().join(name)
    }

    fn id(&self, name: &str) -> ItemId {
        ItemId::new("sqlite", "local", self.path(name).to_str().unwrap()).unwrap()
    }
}

/// What is in a database, and what SQLite thinks of it.
fn content(path: &Path) -> Result<Option<String>, FixtureError> {
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(format!("{:?}", content_of_copy(path)?)))
}

impl Fixture for Databases {
    fn item(&self) -> ItemId {
        self.id("item.db")
    }

    fn neighbour(&self) -> Option<ItemId> {
        Some(self.id("neighbour.db"))
    }

    fn config(&self) -> Value {
        json!({ "directories": [self.0.directory()], "busy_timeout_ms": 0 })
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.to_owned()]
    }

    fn seed(&mut self) -> Result<(), FixtureError> {
        self.0.clear();
        let fill = format!(
            "PRAGMA synchronous = OFF;
            CREATE TABLE t (id INTEGER PRIMARY KEY, body UNIQUE);
            INSERT INTO t VALUES (0, '{SECRET}');
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
            INSERT INTO t SELECT i, printf('row %050d', i * 7919) FROM n;"
        );
        drop(make(&self.path("item.db"), "WAL", &fill));
        drop(make(&self.path("neighbour.db"), "DELETE", &fill));
        Ok(())
    }

    /// A file that was written within the grain of the file system's clock may be written again
    /// without a trace.
    fn settle(&mut self) -> Result<(), FixtureError> {
        let path = self.path("item.db");
        loop {
            let look = Fingerprint::read(&path)?;
            if compare(&look, &Fingerprint::read(&path)?) == churn::Verdict::Unchanged {
                return Ok(());
            }
            thread::yield_now();
        }
    }

    fn mutate(&mut self) -> Result<(), FixtureError> {
        drop(make(&self.path("item.db"), "WAL", "UPDATE t SET body = 'changed' WHERE id = 150"));
        Ok(())
    }

    fn wipe(&mut self) -> Result<(), FixtureError> {
        let path = self.path("item.db");
        for sidecar in SIDECARS {
            let _ = fs::remove_file(beside(&path, sidecar));
        }
        Ok(fs::remove_file(path)?)
    }

    fn digest(&mut self) -> Result<Option<String>, FixtureError> {
        content(&self.path("item.db"))
    }

    fn elsewhere(&self) -> Option<String> {
        Some(self.path("copy.db").to_str().unwrap().to_owned())
    }

    fn digest_elsewhere(&mut self) -> Result<Option<String>, FixtureError> {
        content(&self.path("copy.db"))
    }

    fn leftovers(&mut self) -> Result<Vec<String>, FixtureError> {
        let databases = ["item.db", "neighbour.db", "copy.db"];
        let known = |name: &str| {
            databases.iter().any(|database| {
                name == *database || SIDECARS.iter().any(|end| name == format!("{database}{end}"))
            })
        };
        let entries = fs::read_dir(self.0.directory())?.collect::<Result<Vec<_>, _>>()?;
        let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| !known(name)).collect())
    }
}

#[track_caller]
fn check(subject: Subject, not_tried: &[&str]) -> Report {
    let report = Kit::new(subject).fixture(Databases(Stage::new())).run();
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
    // A linked plugin is no file, and a test program is not the kit's own.
    let not_tried = ["two_copies", "no_panic_in_drop", "standard_output", "threads"];
    check(Subject::linked::<Sqlite>(), &not_tried);
}

#[test]
fn the_plugin_stands_the_conformance_kit_loaded() {
    let program = std::env::current_exe().unwrap();
    let built = program.parent().unwrap().join("libplugin_sqlite.so");
    assert!(built.is_file(), "{} is missing: build the package", built.display());
    check(Subject::library(built), &["no_panic_in_drop", "standard_output", "threads"]);
}
