//! A plugin leaves the same wherever it runs: byte for byte, in the archive and in the journal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    archive::{MemoryArchive, StoredPoint},
    bench::{Bench, Task, completed},
    fixture::{Fixture, FixtureError},
    groups,
    kit::Kit,
    play::Disturbance,
    subject::Subject,
};
use crate::{
    ItemId, Overwrite, PointKind,
    host::{Process, Runner},
};

/// A file that is there already, and stays as it is.
struct There(PathBuf);

impl There {
    fn file(&self) -> PathBuf {
        self.0.join("item.txt")
    }
}

impl Fixture for There {
    fn item(&self) -> ItemId {
        ItemId::new("greeting", "files", self.file().to_str().unwrap()).unwrap()
    }
    fn config(&self) -> Value {
        json!({ "directory": self.0 })
    }
    fn seed(&mut self) -> Result<(), FixtureError> {
        Ok(())
    }
    fn mutate(&mut self) -> Result<(), FixtureError> {
        Err("it is not to be changed".into())
    }
    fn wipe(&mut self) -> Result<(), FixtureError> {
        Ok(fs::remove_file(self.file())?)
    }
    fn digest(&mut self) -> Result<Option<String>, FixtureError> {
        Ok(fs::read_to_string(self.file()).ok())
    }
}

/// What a backup and a restore leave: points with their bytes, and every record of their runs.
fn left(subject: Subject, directory: &Path) -> (Vec<StoredPoint>, Vec<String>) {
    let mut bench = Bench::new(Kit::new(subject).fixture(There(directory.to_owned())).only(&[]));
    groups::prepare(&mut bench);
    let archive = MemoryArchive::new();
    let task = |operation| Task::new(operation, Disturbance::Nothing);
    let backup = bench.back_up(PointKind::Full, &archive, task("backup")).unwrap();
    completed(&backup).unwrap();
    let points = archive.points();
    bench.wipe().unwrap();
    let id = &points[0].meta.id;
    let restore = bench.restore(id, None, Overwrite::Refuse, &archive, task("restore")).unwrap();
    completed(&restore).unwrap();
    assert!(bench.digest().unwrap().is_some(), "it is there again for whoever comes next");
    let records = backup.records.iter().chain(&restore.records);
    (points, records.map(|record| format!("{record:?}")).collect())
}

#[test]
fn archive_and_journal_are_byte_for_byte_the_same_here_and_in_another_process() {
    let program = std::env::current_exe().unwrap();
    let built = program.ancestors().nth(2).unwrap();
    let (library, runner) = (built.join("examples/libgreeting.so"), built.join("plugin-runner"));
    assert!(library.is_file() && runner.is_file(), "build the examples and programs first");
    let directory = std::env::temp_dir().join(format!("mercury-same-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    // More than one buffer, and no whole number of them.
    fs::write(directory.join("item.txt"), "good morning\n".repeat(1_000)).unwrap();

    let here = left(Subject::library(&library), &directory);
    let process = Process::new().runner(Runner::at(runner));
    let apart = left(Subject::isolated(&library, process), &directory);
    fs::remove_dir_all(&directory).unwrap();
    assert_eq!(here.0[0].streams["text"].len(), 13_000);
    assert!(here.1.len() > 6, "{:#?}", here.1);
    assert_eq!(here, apart);
}
