//! Two databases that nobody has open, for the conformance kit.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use plugin_sdk::{
    ItemId,
    conformance::{Fixture, FixtureError},
};
use plugin_sqlite::churn::{self, Fingerprint, compare};
use serde_json::{Value, json};

use crate::{
    common::make,
    stage::{SIDECARS, Stage, beside, content_of_copy},
};

/// Content that must stay between the database and the archive.
const SECRET: &str = "hunter2-CANARY";

/// A directory with two databases in it, which nobody has open.
pub(crate) struct Databases(Stage);

impl Databases {
    pub(crate) fn new() -> Self {
        Databases(Stage::new())
    }

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
