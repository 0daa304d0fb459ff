//! Where a data directory waits beside its target, and how it gets its name.
//!
//! **Promise.** The target is what it was, or the whole new directory; whichever step a crash comes
//! before, the next attempt goes on from there, and giving up brings the old one back.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use plugin_sdk::{Fault, Overwrite};

use super::file_fault;

/// A target, and the places beside it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    target: PathBuf,
    parent: PathBuf,
    /// The new directory, until it has the target's name.
    staged: PathBuf,
    /// The old one, until the new one has its name.
    old: PathBuf,
}

impl Place {
    /// The places beside `target`, by names that are the same at each attempt under `key`.
    pub(crate) fn new(target: &Path, key: &str) -> Result<Self, Fault> {
        let unusable = || {
            let message = format!("{} cannot be a data directory", target.display());
            Fault::user("postgres.target", message).advise("give the absolute path of a directory")
        };
        let name = target.file_name().and_then(|name| name.to_str());
        let (Some(name), Some(parent), true) = (name, target.parent(), target.is_absolute()) else {
            return Err(unusable());
        };
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let key: String = key.chars().map(plain).collect();
        let beside = |what: &str| parent.join(format!(".{name}.mercury-{key}.{what}"));
        Ok(Place {
            target: target.to_owned(),
            parent: parent.to_owned(),
            staged: beside("new"),
            old: beside("old"),
        })
    }

    /// The directory that is not in place yet.
    pub(crate) fn staged(&self) -> &Path {
        &self.staged
    }

    /// Makes that directory anew, for its owner alone.
    pub(crate) fn stage(&self) -> Result<(), Fault> {
        remove(&self.staged)?;
        let made = DirBuilder::new().mode(0o700).create(&self.staged);
        made.map_err(|error| file_fault("make", &self.staged, &error))
    }

    /// Makes everything in it durable.
    pub(crate) fn sync(&self) -> Result<(), Fault> {
        let at = |error: io::Error| file_fault("sync", &self.staged, &error);
        let directory = File::open(&self.staged).map_err(at)?;
        rustix::fs::syncfs(&directory).map_err(|error| at(error.into()))
    }

    /// Gives the new directory the target's name, durably. Doing it again finds it done.
    pub(crate) fn publish(&self, overwrite: Overwrite) -> Result<(), Fault> {
        if exists(&self.staged) {
            if overwrite == Overwrite::Replace && exists(&self.target) && !exists(&self.old) {
                refuse_running(&self.target)?;
                self.rename(&self.target, &self.old)?;
            }
            // Fails unless nothing, or an empty directory, has that name.
            self.rename(&self.staged, &self.target)?;
        } else if !exists(&self.target) {
            let message = format!("the directory beside {} is gone", self.target.display());
            return Err(Fault::permanent("postgres.lost", message).advise("restore again"));
        }
        self.sync_names()?;
        remove(&self.old)
    }

    /// Removes what was made, and puts the old directory back.
    pub(crate) fn discard(&self) -> Result<(), Fault> {
        if exists(&self.old) && !exists(&self.target) {
            self.rename(&self.old, &self.target)?;
        }
        remove(&self.staged)?;
        self.sync_names()
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Fault> {
        fs::rename(from, to).map_err(|error| file_fault("put a directory in place at", to, &error))
    }

    fn sync_names(&self) -> Result<(), Fault> {
        let synced = File::open(&self.parent).and_then(|parent| parent.sync_all());
        synced.map_err(|error| file_fault("sync", &self.parent, &error))
    }
}

/// Refuses a target in which something is already.
pub(crate) fn refuse_existing(target: &Path, overwrite: Overwrite) -> Result<(), Fault> {
    if overwrite == Overwrite::Replace {
        return refuse_running(target);
    }
    let is_free = match fs::read_dir(target) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if is_free {
        return Ok(());
    }
    let message = format!("there is something at {}", target.display());
    Err(Fault::user("postgres.exists", message)
        .advise("choose a directory that is empty or not there, or ask to replace it"))
}

/// Refuses a data directory that a server uses.
fn refuse_running(target: &Path) -> Result<(), Fault> {
    let Ok(lock) = fs::read_to_string(target.join("postmaster.pid")) else { return Ok(()) };
    let process = lock.lines().next().unwrap_or_default();
    if process.parse::<u32>().is_err() || !exists(&Path::new("/proc").join(process)) {
        return Ok(());
    }
    let message = format!("a server uses {} (process {process})", target.display());
    Err(Fault::user("postgres.running", message).advise("stop the server first"))
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn remove(directory: &Path) -> Result<(), Fault> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(file_fault("remove", directory, &error))
        }
        _ => Ok(()),
    }
}
