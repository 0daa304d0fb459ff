//! A real server, for the conformance kit.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use plugin_sdk::{
    ItemId,
    conformance::{Fixture, FixtureError},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{self, Cluster, Programs, directory};

/// Content that must stay between the server and the archive.
const SECRET: &str = "hunter2-CANARY";

/// What is in a cluster, in a few words.
const CONTENT: &str = "SELECT count(*), md5(string_agg(t::text, ',' ORDER BY n)) FROM t";

/// A data directory with a server on it, and one to restore a copy to.
pub(crate) struct Server {
    programs: Programs,
    root: TempDir,
    prepared: PathBuf,
    running: Option<Cluster>,
    copy: Option<Cluster>,
    /// What the prepared server answers when it is asked for its content.
    content: String,
}

impl Server {
    pub(crate) fn new(programs: Programs) -> Self {
        let root = directory("mercury-conformance-");
        let prepared = root.path().join("prepared");
        cluster::own_directory(&root.path().join("play"));
        let server = Cluster::start(&programs);
        server.ask("CREATE TABLE t (n int PRIMARY KEY, body text)");
        server.ask("INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 300) n");
        server.ask(&format!("INSERT INTO t VALUES (0, '{SECRET}')"));
        let content = server.ask(CONTENT);
        server.stop();
        copied(server.data(), &prepared);
        Server { programs, root, prepared, running: None, copy: None, content }
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
        Ok(running.as_ref().map(|server| server.ask(CONTENT)))
    }

    /// Whether the server that runs, whoever restored it, is as it was when it was prepared, and
    /// nothing is left of what was done with it.
    fn is_as_prepared(&self) -> bool {
        let Some(server) = &self.running else { return false };
        server.ask(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                    WHERE NOT active",
        );
        server.ask("SELECT count(*) FROM pg_replication_slots") == "0"
            && server.ask(CONTENT) == self.content
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

    /// To make a server takes much longer than what is played on it, so one that is as it should be
    /// is kept.
    fn seed(&mut self) -> Result<(), FixtureError> {
        self.copy = None;
        if self.leftovers()?.is_empty() && self.is_as_prepared() {
            let copy = self.path("copy/data");
            return if copy.exists() { Ok(fs::remove_dir_all(copy)?) } else { Ok(()) };
        }
        self.running = None;
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
