//! Where the plays of a trial take place, and what is found there afterwards.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use tempfile::TempDir;

use crate::common::content::{check_integrity, table_hashes};

/// The files that SQLite keeps beside a database.
pub(crate) const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// What is in a database, and what SQLite thinks of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Content {
    integrity: String,
    tables: BTreeMap<String, String>,
}

/// Reads a database in place.
pub(crate) fn content(path: &Path) -> Result<Content, String> {
    let read = || Ok(Content { integrity: check_integrity(path)?, tables: table_hashes(path)? });
    read().map_err(|error: rusqlite::Error| format!("it cannot be read: {error}"))
}

/// Reads the bytes of a database file.
pub(crate) fn content_of_bytes(bytes: &[u8]) -> Result<Content, String> {
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("bytes.db");
    fs::write(&path, bytes).unwrap();
    content(&path)
}

/// Reads a database that nobody has open, without leaving a trace beside it.
pub(crate) fn content_of_copy(path: &Path) -> Result<Content, String> {
    let scratch = TempDir::new().unwrap();
    let copy = scratch.path().join("copy.db");
    fs::copy(path, &copy).map_err(|error| error.to_string())?;
    for suffix in SIDECARS {
        if let Ok(bytes) = fs::read(beside(path, suffix)) {
            fs::write(beside(&copy, suffix), bytes).unwrap();
        }
    }
    content(&copy)
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Where the plays of a trial take place, one after the other.
pub(crate) struct Stage(TempDir);

impl Stage {
    pub(crate) fn new() -> Self {
        Stage(TempDir::new().unwrap())
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.0.path().join("play")
    }

    /// A place that no play clears away.
    pub(crate) fn behind(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Clears away what the play before has left.
    pub(crate) fn clear(&self) {
        let _ = fs::remove_dir_all(self.directory());
        fs::create_dir(self.directory()).unwrap();
    }
}

/// How a database and its log look from outside: size and time of each.
pub(crate) type Look = [Option<(u64, SystemTime)>; 2];

/// Looks at a database and at its log. Neither is opened: closing a file of a database
/// would drop the locks that this process holds on it.
pub(crate) fn look(path: &Path) -> Look {
    [path.to_owned(), beside(path, "-wal")].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.len(), metadata.modified().unwrap()))
    })
}
