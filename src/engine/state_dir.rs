//! The directory that an engine keeps its state in, locked against a second engine.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use fsm_core::Fault;

use crate::{Error, ErrorKind};

/// A state directory that no other engine uses. The lock goes with the process.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    lock: File,
}

impl StateDir {
    /// Makes the directory if need be, and locks it.
    pub(super) fn lock(path: &Path) -> Result<Self, Error> {
        let unusable = |error: io::Error| {
            let message = format!("the state directory {} cannot be used", path.display());
            let advice = "name a directory of this computer that can be written";
            let fault = Fault::user("state.unusable", message).advise(advice);
            Error::new(ErrorKind::State, fault).caused_by(error)
        };
        create(path).map_err(unusable)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(StateDir { path: path.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => {
                let message = format!("another engine uses {}", path.display());
                let advice = "stop that one first, or name another state directory";
                let fault = Fault::user("state.in_use", message).advise(advice);
                Err(Error::new(ErrorKind::InUse, fault))
            }
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }

    /// The file of the store.
    pub(super) fn store(&self) -> PathBuf {
        self.path.join("mercury.db")
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is being started, a plugin's, holds a copy
        // of it for a moment, and the lock with it. The lock goes with this process in any case.
        let _ = self.lock.unlock();
    }
}

/// Makes the directory, readable by its owner alone: it names what is backed up.
fn create(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
