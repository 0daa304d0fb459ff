//! The lock that keeps a second store from a file.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use crate::{JournalError, JournalErrorKind};

/// A locked file beside a database: on some systems whoever opens and closes the database itself
/// drops SQLite's own locks (<https://sqlite.org/howtocorrupt.html>, 2.2).
pub(super) struct Lock {
    file: File,
    database: PathBuf,
}

impl Lock {
    /// Locks the database at `path`, which exists.
    pub(super) fn take(path: &Path) -> Result<Self, JournalError> {
        // One file may be known by several links.
        let mut beside = path.canonicalize().unwrap_or_else(|_| path.to_owned()).into_os_string();
        beside.push("-lock");
        let beside = PathBuf::from(beside);
        let file = File::options().create(true).truncate(false).write(true).open(&beside);
        let file = file.map_err(|error| {
            JournalError::new(JournalErrorKind::Storage, beside.display().to_string())
                .caused_by(error)
        })?;
        let lock = Lock { file, database: path.to_owned() };
        lock.again()?;
        Ok(lock)
    }

    /// Locks the database once more, after it was let go.
    pub(super) fn again(&self) -> Result<(), JournalError> {
        let error = |kind| JournalError::new(kind, self.database.display().to_string());
        self.file.try_lock().map_err(|why| match why {
            TryLockError::WouldBlock => error(JournalErrorKind::InUse),
            TryLockError::Error(source) => error(JournalErrorKind::Storage).caused_by(source),
        })
    }

    /// Lets others have the database.
    pub(super) fn let_go(&self) -> Result<(), JournalError> {
        self.file.unlock().map_err(|error| {
            JournalError::new(JournalErrorKind::Storage, self.database.display().to_string())
                .caused_by(error)
        })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is being started holds a copy of it for a
        // moment, and the lock with it.
        let _ = self.let_go();
    }
}
