//! What the tests of the engine share: a place with databases and an archive, and ways to look
//! into both.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(unreachable_pub, reason = "each test program is a crate of its own")]
#![allow(missing_docs, reason = "test helpers are read where they are")]
#![allow(clippy::missing_panics_doc, reason = "a helper that fails is a test that fails")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

pub mod full;
pub mod lab;
pub mod time;

use std::{
    future::Future,
    num::NonZeroU64,
    path::{Path, PathBuf},
    time::Duration,
};

use mercury::{
    BackupStats, Class, Engine, EngineBuilder, Error, ErrorKind, Event, Events, ItemId, Key,
    KeySource, Operation, OperationId, Outcome, Plugin, PointId, PointMeta,
};
use plugin_sqlite::Sqlite;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing that is waited for takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with databases in `data`, an archive in `archive` and a state directory `state`.
pub struct World {
    root: Root,
    pub key: Key,
}

enum Root {
    Own(TempDir),
    Shared(PathBuf),
}

impl World {
    pub fn new() -> Self {
        let world =
            World { root: Root::Own(TempDir::new().unwrap()), key: Key::generate().unwrap() };
        std::fs::create_dir(world.path("data")).unwrap();
        world
    }

    /// The world that another process has made in `root`.
    pub fn of(root: &Path) -> Self {
        let key = std::fs::read_to_string(root.join("key")).unwrap().parse().unwrap();
        World { root: Root::Shared(root.to_owned()), key }
    }

    /// Lets another process use this world; see [`World::of`].
    pub fn share(&self) -> &Path {
        std::fs::write(self.path("key"), &*self.key.to_hex()).unwrap();
        match &self.root {
            Root::Own(root) => root.path(),
            Root::Shared(root) => root,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        match &self.root {
            Root::Own(root) => root.path().join(name),
            Root::Shared(root) => root.join(name),
        }
    }

    pub fn database(&self, name: &str) -> PathBuf {
        self.path("data").join(name)
    }

    pub fn item(&self, name: &str) -> ItemId {
        ItemId::new("sqlite", "local", self.database(name).to_str().unwrap()).unwrap()
    }

    pub fn config(&self) -> Value {
        json!({ "directories": [self.path("data")], "busy_timeout_ms": 0 })
    }

    pub fn plugin(&self) -> Plugin {
        Plugin::linked::<Sqlite>().config("sqlite", self.config())
    }

    /// State directory and archive, but no plugin.
    pub fn bare(&self) -> EngineBuilder {
        Engine::builder()
            .state_dir(self.path("state"))
            .archive_dir(self.path("archive"), KeySource::given(self.key.clone()))
    }

    pub fn builder(&self) -> EngineBuilder {
        self.bare().plugin(self.plugin())
    }

    pub async fn start(&self) -> Engine {
        self.builder().start().await.unwrap()
    }

    /// An engine whose streams take their time: what is larger than a few MiB is still on its way
    /// when a test looks.
    pub async fn start_slow(&self) -> Engine {
        self.slow(self.builder()).start().await.unwrap()
    }

    pub fn slow(&self, builder: EngineBuilder) -> EngineBuilder {
        builder.bytes_per_second(NonZeroU64::new(256 << 10).unwrap())
    }

    /// Restores `point` to a new file, and returns the hash of what came back.
    pub async fn restored(&self, engine: &Engine, item: &ItemId, point: &PointId) -> String {
        let target = self.unused("restored.db");
        let restore = engine.restore(item, point).to(target.to_str().unwrap());
        ended(&restore.submit().await.unwrap()).await.unwrap();
        hash(&target)
    }

    /// A name that nothing has yet, in a directory of its own.
    pub fn unused(&self, name: &str) -> PathBuf {
        let base = self.path("targets");
        std::fs::create_dir_all(&base).unwrap();
        tempfile::Builder::new().tempdir_in(&base).unwrap().keep().join(name)
    }

    /// Everything below `name`, sorted.
    pub fn files(&self, name: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut open = vec![self.path(name)];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                match entry.file_type().unwrap().is_dir() {
                    true => open.push(entry.path()),
                    false => files.push(entry.path()),
                }
            }
        }
        files.sort();
        files
    }

    /// The packs of the archive.
    pub fn packs(&self) -> Vec<PathBuf> {
        let files = self.files("archive").into_iter();
        files.filter(|path| path.components().any(|part| part.as_os_str() == "packs")).collect()
    }

    /// The archive, opened beside the engine.
    pub async fn archive(&self) -> archive::Archive {
        archive::Archive::open_dir(self.path("archive"), &self.key).await.unwrap()
    }

    /// The store of the engine, opened beside it.
    pub fn store(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path("state/mercury.db")).unwrap()
    }
}

/// The sample plugin's library, which is built together with the tests.
pub fn library() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let library = program.parent().unwrap().join("libplugin_sqlite.so");
    assert!(library.is_file(), "{} is missing", library.display());
    library
}

/// A program that can be an isolated plugin's process: an example, which is built together with
/// the tests.
pub fn runner() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let runner = program.ancestors().nth(2).unwrap().join("examples/isolated");
    assert!(runner.is_file(), "{} is missing", runner.display());
    runner
}

/// The processes of this one that are an isolated plugin's.
pub fn plugin_processes() -> std::collections::BTreeSet<u32> {
    let mut found = std::collections::BTreeSet::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        // A thread may end meanwhile, and a process, too.
        let children = task.unwrap().path().join("children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        for child in children.split_whitespace() {
            let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            if line.starts_with(b"plugin-runner\0") {
                found.insert(child.parse().unwrap());
            }
        }
    }
    found
}

/// A database with `rows` rows of text in table `t`.
pub fn small(path: &Path, rows: u32) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, text TEXT);
         WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows})
         INSERT INTO t (text) SELECT 'row ' || n FROM c;"
    ))
    .unwrap();
}

/// A database of a little more than `mib` MiB that do not compress.
pub fn large(path: &Path, mib: u32) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch(&format!(
        "CREATE TABLE t (n INTEGER PRIMARY KEY, noise BLOB);
         WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {mib} * 16)
         INSERT INTO t (noise) SELECT randomblob(65536) FROM c;"
    ))
    .unwrap();
}

/// An application that has the database open, with its newest commits in the log.
///
/// What is committed there can be told at once from what is not; a file that was written a moment
/// ago cannot.
pub fn application(path: &Path) -> rusqlite::Connection {
    small(path, 1_000);
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
         INSERT INTO t (text) VALUES ('committed, and in the log only')",
    )
    .unwrap();
    db
}

pub fn rows(path: &Path) -> u32 {
    let db = rusqlite::Connection::open(path).unwrap();
    db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

/// The hash of a whole file.
pub fn hash(path: &Path) -> String {
    blake3::hash(&std::fs::read(path).unwrap()).to_hex().to_string()
}

/// The names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Waits for `work`, but not for ever.
#[track_caller]
pub fn soon<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let at = std::panic::Location::caller();
    async move {
        let done = tokio::time::timeout(PATIENCE, work).await;
        done.unwrap_or_else(|_| panic!("what is waited for at {at} does not come"))
    }
}

/// What came of an operation.
#[track_caller]
pub fn ended(operation: &Operation) -> impl Future<Output = Result<Outcome, Error>> {
    let operation = operation.clone();
    soon(async move { operation.outcome().await })
}

/// Backs `item` up under the id `id`, changed or not.
pub async fn back_up(engine: &Engine, item: &ItemId, id: &str) -> Result<PointId, Error> {
    let backup = engine.backup(item).id(id).even_if_unchanged().submit().await?;
    match ended(&backup).await? {
        Outcome::BackedUp { point, .. } => Ok(point),
        other => panic!("{other:?}"),
    }
}

/// Backs `item` up, and returns what it cost.
pub async fn cost(engine: &Engine, item: &ItemId, id: &str) -> BackupStats {
    let backup = engine.backup(item).id(id).even_if_unchanged().submit().await.unwrap();
    match ended(&backup).await.unwrap() {
        Outcome::BackedUp { stats, .. } => stats,
        other => panic!("{other:?}"),
    }
}

pub fn ids(points: &[PointMeta]) -> Vec<&str> {
    points.iter().map(|point| point.id.as_str()).collect()
}

/// Waits for an event.
#[track_caller]
pub fn until<'e>(
    events: &'e mut Events,
    mut wanted: impl FnMut(&Event) -> bool + 'e,
) -> impl Future<Output = Event> + 'e {
    soon(async move {
        loop {
            let event = events.next().await.expect("the engine is there");
            if wanted(&event) {
                return event;
            }
        }
    })
}

pub fn in_state(event: &Event, id: &str, wanted: &str) -> bool {
    matches!(event, Event::State { operation, state }
        if operation.as_str() == id && state == wanted)
}

pub fn in_phase(event: &Event, id: &str, wanted: mercury::Phase) -> bool {
    matches!(event, Event::Phase { operation, phase }
        if operation.as_str() == id && *phase == wanted)
}

pub fn has_progressed(event: &Event, id: &str) -> bool {
    matches!(event, Event::Progress { operation, .. } if operation.as_str() == id)
}

pub fn operation(id: &str) -> OperationId {
    OperationId::new(id)
}

/// An error that a program can act on: kind, class and code are these, and there is advice.
#[track_caller]
pub fn check(error: &Error, kind: ErrorKind, class: Class, code: &str) {
    assert_eq!((error.kind(), error.class(), error.code()), (kind, class, code), "{error:?}");
    assert!(error.advice().is_some_and(|advice| !advice.is_empty()), "no advice: {error:?}");
    assert!(!error.to_string().is_empty());
}
