//! A fixture for workloads whose items are files, named by their paths.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use plugin_sdk::{
    ItemId,
    conformance::{Fixture, FixtureError},
};
use serde_json::{Value, json};

/// A directory with one file in it, and another one beside that.
pub(crate) struct Files {
    workload: &'static str,
    directory: PathBuf,
    secret: &'static str,
}

const SECRET: &str = "hunter2-CANARY";

impl Files {
    pub(crate) fn new(workload: &'static str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let (process, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(format!("mercury-kit-{process}-{next}"));
        Files { workload, directory, secret: SECRET }
    }

    /// The same, with another text that nobody must see.
    pub(crate) fn with_secret(mut self, secret: &'static str) -> Self {
        self.secret = secret;
        self
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn id(&self, name: &str) -> ItemId {
        ItemId::new(self.workload, "files", self.file(name).to_str().unwrap()).unwrap()
    }
}

fn content(path: &Path) -> Result<Option<String>, FixtureError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Fixture for Files {
    fn item(&self) -> ItemId {
        self.id("item.txt")
    }

    fn neighbour(&self) -> Option<ItemId> {
        Some(self.id("neighbour.txt"))
    }

    fn config(&self) -> Value {
        json!({ "directory": self.directory, "password": SECRET })
    }

    fn secrets(&self) -> Vec<String> {
        vec![self.secret.to_owned()]
    }

    fn seed(&mut self) -> Result<(), FixtureError> {
        let _ = fs::remove_dir_all(&self.directory);
        fs::create_dir_all(&self.directory)?;
        // As many parts as it takes to see that nobody stops in between.
        fs::write(self.file("item.txt"), "good morning\n".repeat(1_000))?;
        fs::write(self.file("neighbour.txt"), "good evening\n")?;
        Ok(())
    }

    fn mutate(&mut self) -> Result<(), FixtureError> {
        Ok(fs::write(self.file("item.txt"), "good night\n")?)
    }

    fn wipe(&mut self) -> Result<(), FixtureError> {
        Ok(fs::remove_file(self.file("item.txt"))?)
    }

    fn digest(&mut self) -> Result<Option<String>, FixtureError> {
        content(&self.file("item.txt"))
    }

    fn elsewhere(&self) -> Option<String> {
        Some(self.file("copy.txt").to_str().unwrap().to_owned())
    }

    fn digest_elsewhere(&mut self) -> Result<Option<String>, FixtureError> {
        content(&self.file("copy.txt"))
    }

    fn leftovers(&mut self) -> Result<Vec<String>, FixtureError> {
        let known = ["item.txt", "neighbour.txt", "copy.txt"];
        let entries = fs::read_dir(&self.directory)?.collect::<Result<Vec<_>, _>>()?;
        let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| !known.contains(&name.as_str())).collect())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
