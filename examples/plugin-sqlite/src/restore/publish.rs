//! The complete file, and how it gets the target's name.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::target::Overwrite;
use super::{Place, is_there, remove};
use crate::database::{beside, connect};
use crate::error::{Error, ErrorKind};
use crate::raw_file::{FileId, Pin};

/// A verified, durable database file that waits beside its target.
///
/// It stays when this value is dropped: [`find`](Self::find) finds it again.
#[derive(Debug)]
pub struct CompleteFile {
    place: Place,
    overwrite: Overwrite,
}

/// How far an earlier publication came. See [`CompleteFile::find`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Publication {
    /// The complete file still waits to be published.
    Pending(CompleteFile),
    /// There is no complete file, and a target: it was published.
    Done,
    /// There is neither; the restore must start over.
    Lost,
}

/// What [`CompleteFile::publish`] does next, in order.
///
/// The first four only happen with [`Overwrite::Replace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishStep {
    /// Roll back or fold in what the old database has in its journal or log, and lock it.
    Settle,
    /// Remove the old database's `-wal`, which is empty now.
    RemoveLog,
    /// Remove the old database's `-journal` and `-shm`, which mean nothing now.
    RemoveJournal,
    /// Make the removals durable, so that they cannot come after the rename.
    SyncRemovals,
    /// Give the new file the target's name.
    Rename,
    /// Make the name durable.
    SyncName,
    /// Let go of the old database.
    Release,
}

impl CompleteFile {
    pub(super) fn new(place: Place, overwrite: Overwrite) -> Self {
        Self { place, overwrite }
    }

    /// Finds out how far the publication to `path` with this `key` came.
    ///
    /// Only to be asked after [`RestoreTarget::complete`](super::RestoreTarget::complete)
    /// has returned for the same key, in this process or before a crash.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`], [`ErrorKind::Denied`] or [`ErrorKind::Io`].
    pub fn find(path: &Path, key: &str, overwrite: Overwrite) -> Result<Publication, Error> {
        let place = Place::new(path, key)?;
        if is_there(&place.complete)? {
            if is_same_file(&place.complete, &place.target) {
                // Linked, and stopped before the other name was removed.
                remove(&place.complete)?;
                place.sync_directory()?;
                return Ok(Publication::Done);
            }
            return Ok(Publication::Pending(Self { place, overwrite }));
        }
        if !is_there(&place.target)? {
            return Ok(Publication::Lost);
        }
        // The earlier attempt may have stopped between the rename and its sync.
        place.sync_directory()?;
        Ok(Publication::Done)
    }

    /// Gives the file the target's name, durably.
    ///
    /// With [`Overwrite::Replace`] a database that cannot be read, because it is
    /// damaged or no database, is replaced with everything beside it. One that
    /// is merely idle in an application without holding a lock cannot be told
    /// from one that is closed: stop the application first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Locked`] (retryable) if the old database is in use;
    /// [`ErrorKind::Exists`] with [`Overwrite::Refuse`] if the target appeared
    /// meanwhile; [`ErrorKind::Full`] if the old one's log cannot be folded in;
    /// [`ErrorKind::Denied`], [`ErrorKind::Io`]. The call may be repeated.
    pub fn publish(&self) -> Result<(), Error> {
        self.publish_observed(&mut |_| Ok(()))
    }

    /// Like [`publish`](Self::publish), telling `observe` before each step.
    ///
    /// An error of `observe` stops it there, and is returned.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish), and those of `observe`.
    pub fn publish_observed(
        &self,
        observe: &mut dyn FnMut(PublishStep) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Place { target, complete, .. } = &self.place;
        let mut held = None;
        if self.overwrite == Overwrite::Replace {
            observe(PublishStep::Settle)?;
            held = settle(target)?;
            observe(PublishStep::RemoveLog)?;
            remove(&beside(target, "-wal"))?;
            observe(PublishStep::RemoveJournal)?;
            remove(&beside(target, "-journal"))?;
            remove(&beside(target, "-shm"))?;
            observe(PublishStep::SyncRemovals)?;
            self.place.sync_directory()?;
        }
        observe(PublishStep::Rename)?;
        match self.overwrite {
            Overwrite::Refuse => self.name_if_free()?,
            Overwrite::Replace => {
                fs::rename(complete, target).map_err(|error| Error::io(target, error))?;
            }
        }
        observe(PublishStep::SyncName)?;
        self.place.sync_directory()?;
        observe(PublishStep::Release)?;
        drop(held);
        Ok(())
    }

    /// Removes the file instead of publishing it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Denied`] or [`ErrorKind::Io`] if it stays.
    pub fn abort(self) -> Result<(), Error> {
        remove(&self.place.complete)
    }

    /// Renames without ever replacing: a link fails if the name is taken, a rename does not.
    fn name_if_free(&self) -> Result<(), Error> {
        let Place { target, complete, .. } = &self.place;
        self.place.refuse_existing()?;
        match fs::hard_link(complete, target) {
            Ok(()) => remove(complete),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
                ) =>
            {
                // A file system without links; the check above has to do.
                fs::rename(complete, target).map_err(|error| Error::io(target, error))
            }
            Err(error) => Err(Error::io(target, error)),
        }
    }
}

/// The old database, locked against everybody until it has been replaced.
#[derive(Debug)]
struct Held {
    _connection: Connection,
    _pin: Pin,
}

/// Makes the old database's file the whole of it, and locks it.
///
/// `None` if there is none, or none that SQLite can read.
fn settle(target: &Path) -> Result<Option<Held>, Error> {
    let metadata = match fs::metadata(target) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(target, error)),
    };
    let pin = Pin::new(FileId::of(&metadata));
    match fold_and_lock(target) {
        Ok(connection) => Ok(Some(Held { _connection: connection, _pin: pin })),
        Err(error) if matches!(error.kind(), ErrorKind::NotADatabase | ErrorKind::Corrupt) => {
            tracing::warn!(%error, "the database to be replaced cannot be read");
            Ok(None)
        }
        Err(error) if error.kind() == ErrorKind::Locked => {
            Err(error.with_advice("stop the application that uses the database, then try again"))
        }
        Err(error) => Err(error),
    }
}

fn fold_and_lock(target: &Path) -> Result<Connection, Error> {
    const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

    let at = |error| Error::sqlite(target, error);
    let connection = connect(target, OpenFlags::SQLITE_OPEN_READ_WRITE, BUSY_TIMEOUT)?;
    // In exclusive mode the lock stays between transactions, so that nobody can
    // write a new log between the checkpoint and the rename.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(at)?;
    // The first read rolls a hot journal back.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(at)?;
    let is_busy: bool = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .map_err(at)?;
    if is_busy {
        return Err(Error::new(ErrorKind::Locked, target));
    }
    connection.execute_batch("BEGIN EXCLUSIVE").map_err(at)?;
    Ok(connection)
}

#[cfg(unix)]
fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::symlink_metadata(one), fs::symlink_metadata(other)) {
        (Ok(one), Ok(other)) => FileId::of(&one) == FileId::of(&other),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_same_file(_: &Path, _: &Path) -> bool {
    false
}
