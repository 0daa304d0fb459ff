//! The partial file that a restore writes into.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::file_meta::FileMeta;
use super::publish::CompleteFile;
use super::{Place, remove};
use crate::database::{Check, Database, beside, read_header};
use crate::error::{Error, ErrorKind};
use crate::raw_file::RawFile;

/// What to do when the target exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Leave it alone and fail.
    Refuse,
    /// Put the new database in its place. It must not be in use.
    Replace,
}

/// A restore that is taking bytes. Dropping it before [`complete`](Self::complete) removes them.
#[derive(Debug)]
pub struct RestoreTarget {
    place: Place,
    overwrite: Overwrite,
    metadata: Option<FileMeta>,
    file: File,
    /// Whether the partial file is somebody else's business now.
    is_settled: bool,
    written: u64,
}

impl RestoreTarget {
    /// Checks that `path` can be restored to and creates an empty partial file beside it.
    ///
    /// What an earlier attempt with the same `key` left behind is removed, be it
    /// partial or complete. `metadata` is given to the new file; with `None` it
    /// belongs to this process's user, with mode `0600`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`] if the directory does not exist;
    /// [`ErrorKind::Exists`] with [`Overwrite::Refuse`], if the target is there,
    /// or a `-wal`, `-journal` or `-shm` that SQLite would take for the new
    /// file's; [`ErrorKind::Invalid`] if `path` names no file.
    pub fn prepare(
        path: &Path,
        key: &str,
        overwrite: Overwrite,
        metadata: Option<FileMeta>,
    ) -> Result<Self, Error> {
        let place = Place::new(path, key)?;
        if place.target.is_dir() {
            return Err(Error::new(ErrorKind::Exists, &place.target)
                .with_advice("a directory has this name; choose another target"));
        }
        if overwrite == Overwrite::Refuse {
            place.refuse_existing()?;
        }
        remove(&place.partial)?;
        remove(&place.complete)?;
        let file =
            create_private(&place.partial).map_err(|error| Error::io(&place.partial, error))?;
        Ok(Self { place, overwrite, metadata, file, is_settled: false, written: 0 })
    }

    /// Removes what attempts with this `key` have left beside `path`, partial or complete.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Denied`] or [`ErrorKind::Io`] if it stays. A directory that does not exist
    /// holds nothing.
    pub fn discard(path: &Path, key: &str) -> Result<(), Error> {
        let place = match Place::new(path, key) {
            Ok(place) => place,
            Err(error) if error.kind() == ErrorKind::Missing => return Ok(()),
            Err(error) => return Err(error),
        };
        remove(&place.partial)?;
        remove(&place.complete)
    }

    /// Appends the next bytes of the database file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] or [`ErrorKind::Io`]; the restore then starts over.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|error| Error::io(&self.place.partial, error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// How many bytes have been written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Verifies what was written, makes it durable and readies it for publication.
    ///
    /// Always checked: the header, and that the length is what it says. `check`
    /// asks for more, at the price of reading the file again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotADatabase`] or [`ErrorKind::Corrupt`] if the bytes are no
    /// whole database; [`ErrorKind::Denied`] if owner and mode may not be set;
    /// [`ErrorKind::Full`], [`ErrorKind::Io`]. The partial file is removed then.
    pub fn complete(mut self, check: Option<Check>) -> Result<CompleteFile, Error> {
        let partial = &self.place.partial;
        let at = |error: io::Error| Error::io(partial, error);
        verify(partial, check)?;
        if let Some(metadata) = self.metadata {
            metadata.apply(&self.file, partial)?;
        }
        self.file.sync_all().map_err(at)?;
        fs::rename(partial, &self.place.complete).map_err(at)?;
        self.is_settled = true;
        self.place.sync_directory()?;
        Ok(CompleteFile::new(self.place.clone(), self.overwrite))
    }

    /// Removes what was written.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Denied`] or [`ErrorKind::Io`] if the partial file stays.
    pub fn abort(mut self) -> Result<(), Error> {
        self.is_settled = true;
        remove(&self.place.partial)
    }
}

impl Drop for RestoreTarget {
    fn drop(&mut self) {
        if !self.is_settled
            && let Err(error) = remove(&self.place.partial)
        {
            tracing::warn!(%error, "a partial restore stays behind");
        }
    }
}

/// Creates a file that only its owner may read until its mode is set.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn verify(path: &Path, check: Option<Check>) -> Result<(), Error> {
    let file = RawFile::open(path).map_err(|error| Error::io(path, error))?;
    let length = file.metadata().map_err(|error| Error::io(path, error))?.len();
    // Nothing at all is an empty database.
    let Some(header) = read_header(&file, path)? else { return Ok(()) };
    let expected = header.file_bytes().unwrap_or(length);
    if length != expected || !length.is_multiple_of(u64::from(header.page_size)) {
        return Err(Error::new(ErrorKind::Corrupt, path)
            .with_advice("the stream was cut short or mixed up; restore it again")
            .caused_by(format!("{length} bytes were written, its header says {expected}")));
    }
    if let Some(check) = check {
        let database = Database::open_private(path)?;
        database.check(check)?;
        debug_assert!(!beside(path, "-wal").exists(), "a private open leaves no log");
    }
    Ok(())
}
