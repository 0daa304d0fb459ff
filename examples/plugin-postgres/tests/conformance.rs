//! The plugin stands what the conformance kit does to it, against a real server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../support/cluster.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test uses its own part")]
mod cluster;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cluster::{Cluster, Programs, directory};
use plugin_postgres::Postgres;
use plugin_sdk::{
    ItemId,
    conformance::{Fixture, FixtureError, Group, Kit, Subject, Verdict},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Content that must stay between the server and the archive.
const SECRET: &str = "hunter2-CANARY";

/// How often a run is played for each check: each time a server is made.
const PLAYS: usize = 3;

/// A data directory with a server on it, and one to restore a copy to.
struct Server {
    programs: Programs,
    root: TempDir,
    prepared: PathBuf,
    running: Option<Cluster>,
    copy: Option<Cluster>,
}

impl Server {
    fn new(programs: Programs) -> Self {
        let root = directory("mercury-conformance-");
        let prepared = root.path().join("prepared");
        cluster::own_directory(&root.path().join("play"));
        let server = Cluster::start(&programs);
        server.ask("CREATE TABLE t (n int PRIMARY KEY, body text)");
        server.ask("INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 300) n");
        server.ask(&format!("INSERT INTO t VALUES (0, '{SECRET}')"));
        server.stop();
        copied(server.data(), &prepared);
        Server { programs, root, prepared, running: None, copy: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("play").join(name)
    }

    /// What is in a cluster. Its server is started, if it was only restored, and replays.
    fn content(
        programs: &Programs,
        running: &mut Option<Cluster>,
        data: &Path,
    ) -> Result<Option<String>, FixtureError> {
        if !data.exists() {
            return Ok(None);
        }
        if running.is_none() {
            *running = Some(Cluster::start_restored(programs, data)?);
        }
        let content = "SELECT count(*), md5(string_agg(t::text, ',' ORDER BY n)) FROM t";
        Ok(running.as_ref().map(|server| server.ask(content)))
    }
}

fn copied(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

impl Fixture for Server {
    fn item(&self) -> ItemId {
        ItemId::new("postgres", "main", "cluster").unwrap()
    }

    fn config(&self) -> Value {
        let (host, data) = (self.path(""), self.path("data"));
        json!({ "clusters": [{ "name": "main", "host": host, "data": data }] })
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.to_owned()]
    }

    fn seed(&mut self) -> Result<(), FixtureError> {
        self.running = None;
        self.copy = None;
        for name in fs::read_dir(self.path(""))? {
            let path = name?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        cluster::own_directory(&self.path("copy"));
        copied(&self.prepared, &self.path("data"));
        self.running = Some(Cluster::start_restored(&self.programs, &self.path("data"))?);
        Ok(())
    }

    fn mutate(&mut self) -> Result<(), FixtureError> {
        let server = self.running.as_ref().ok_or("no server runs")?;
        server.ask("UPDATE t SET body = 'changed' WHERE n = 150");
        Ok(())
    }

    fn wipe(&mut self) -> Result<(), FixtureError> {
        self.running = None;
        Ok(fs::remove_dir_all(self.path("data"))?)
    }

    fn digest(&mut self) -> Result<Option<String>, FixtureError> {
        let data = self.path("data");
        Server::content(&self.programs, &mut self.running, &data)
    }

    fn elsewhere(&self) -> Option<String> {
        Some(self.path("copy/data").to_str().unwrap().to_owned())
    }

    fn digest_elsewhere(&mut self) -> Result<Option<String>, FixtureError> {
        let data = self.path("copy/data");
        Server::content(&self.programs, &mut self.copy, &data)
    }

    fn leftovers(&mut self) -> Result<Vec<String>, FixtureError> {
        let entries = fs::read_dir(self.path(""))?.collect::<Result<Vec<_>, _>>()?;
        let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| name.contains("mercury-")).collect())
    }
}

#[track_caller]
fn check(subject: Subject, groups: &[Group]) {
    let Some(programs) = Programs::or_skip("the conformance kit") else { return };
    let kit = Kit::new(subject).fixture(Server::new(programs)).plays_at_most(PLAYS);
    let report = kit.only(groups).run();
    println!("{report}");
    let of = |verdict| report.checks.iter().filter(move |check| check.verdict == verdict);
    // A server runs on the directory that would be replaced: that is refused.
    let failed: Vec<_> = of(Verdict::Failed).filter(|check| check.name != "replaces").collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(of(Verdict::Passed).count() > 0, "{report}");
}

#[test]
#[ignore = "takes many minutes: each play makes a server"]
fn the_plugin_stands_the_conformance_kit_linked() {
    check(Subject::linked::<Postgres>(), &Group::ALL);
}

#[test]
#[ignore = "takes many minutes: each play makes a server"]
fn the_plugin_stands_the_conformance_kit_loaded() {
    let program = std::env::current_exe().unwrap();
    let built = program.parent().unwrap().join("libplugin_postgres.so");
    assert!(built.is_file(), "{} is missing: build the package", built.display());
    let groups = [Group::Load, Group::RoundTrip, Group::Fuzz, Group::Hygiene];
    check(Subject::library(built), &groups);
}
