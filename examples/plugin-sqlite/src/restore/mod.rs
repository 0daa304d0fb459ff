//! Putting a database file in place, whole or not at all.
//!
//! **Promise.** At the target's path there is, at every moment and after any
//! crash, either what was there before, with all its committed transactions, or
//! the complete new database; and SQLite never replays an old `-wal` or
//! `-journal` onto the new file.
//!
//! **How.** In two durable steps, which suit two states of a machine:
//!
//! 1. [`RestoreTarget`] takes the bytes into a *partial* file in the same
//!    directory. [`RestoreTarget::complete`] verifies and syncs it, sets owner
//!    and mode, and renames it to a *complete* file.
//! 2. [`CompleteFile::publish`] gives it the target's name. When it replaces a
//!    database, that one is first settled: its log is folded into it under an
//!    exclusive lock, so that its file alone is the old database and the files
//!    beside it can go before the rename.
//!
//! Both names derive from a key of the caller's, so that a repetition after a
//! crash finds its own leftovers: [`RestoreTarget::prepare`] starts over,
//! [`CompleteFile::find`] picks up a publication where it was.

mod file_meta;
mod publish;
mod target;

pub use file_meta::FileMeta;
pub use publish::{CompleteFile, Publication, PublishStep};
pub use target::{Overwrite, RestoreTarget};

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::database::beside;
use crate::error::{Error, ErrorKind};

/// The files that SQLite keeps beside a database and would take for the new one's.
const SIDECARS: [&str; 3] = ["-wal", "-journal", "-shm"];

/// Where one restore works.
#[derive(Clone, Debug)]
struct Place {
    target: PathBuf,
    directory: PathBuf,
    partial: PathBuf,
    complete: PathBuf,
}

impl Place {
    /// Resolves `path` and derives the names beside it from `key`.
    fn new(path: &Path, key: &str) -> Result<Self, Error> {
        // Through a symbolic link, to where SQLite keeps the files beside it.
        let resolved = fs::canonicalize(path);
        let path = resolved.as_deref().unwrap_or(path);
        let Some(name) = path.file_name() else {
            return Err(Error::new(ErrorKind::Invalid, path)
                .with_advice("give the path of a file to restore to"));
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = fs::canonicalize(parent).map_err(|error| Error::io(parent, error))?;
        if !directory.is_dir() {
            return Err(Error::new(ErrorKind::Missing, &directory)
                .with_advice("create the directory to restore into first"));
        }
        // Hashed, so that any key makes a short and harmless name.
        let key = &blake3::hash(key.as_bytes()).to_hex()[..16];
        let hidden = |state: &str| {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{key}.{state}"));
            directory.join(hidden)
        };
        Ok(Self {
            target: directory.join(name),
            partial: hidden("partial"),
            complete: hidden("complete"),
            directory,
        })
    }

    /// Refuses if the target or anything that SQLite would replay onto it is there.
    fn refuse_existing(&self) -> Result<(), Error> {
        if is_there(&self.target)? {
            return Err(Error::new(ErrorKind::Exists, &self.target));
        }
        for suffix in SIDECARS {
            let sidecar = beside(&self.target, suffix);
            if is_there(&sidecar)? {
                return Err(Error::new(ErrorKind::Exists, &sidecar).with_advice(
                    "it belongs to a database that is gone; move it away, or ask to replace it",
                ));
            }
        }
        Ok(())
    }

    fn sync_directory(&self) -> Result<(), Error> {
        sync_directory(&self.directory)
    }
}

/// Whether the name is taken, be it by a dangling link.
fn is_there(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(path, error)),
    }
}

/// Removes a file that may be absent.
fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}

/// Makes renames and removals in a directory survive a power cut.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> Result<(), Error> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Error::io(directory, error))
}

/// Elsewhere a directory cannot be opened as a file, and its changes are journaled.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> Result<(), Error> {
    Ok(())
}
