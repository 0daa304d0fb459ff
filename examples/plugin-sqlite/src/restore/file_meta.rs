//! Who owns a file and who may use it.

use std::fs::{self, File};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Owner and mode of a file, taken at backup and set at restore.
///
/// The numbers are the source node's; on another node the same number may be
/// another user. Outside Unix they are neither read nor set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    /// The permission bits, `0..=0o7777`.
    pub mode: u32,
    /// The owning user's number.
    pub uid: u32,
    /// The owning group's number.
    pub gid: u32,
}

impl FileMeta {
    /// Reads them from the file at `path`, following symbolic links.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`](crate::error::ErrorKind::Missing) or
    /// [`ErrorKind::Denied`](crate::error::ErrorKind::Denied).
    pub fn of(path: &Path) -> Result<Self, Error> {
        let metadata = fs::metadata(path).map_err(|error| Error::io(path, error))?;
        Ok(read(&metadata))
    }

    /// Sets them on an open file; `path` is for the error.
    pub(super) fn apply(self, file: &File, path: &Path) -> Result<(), Error> {
        let at = |error| Error::io(path, error);
        let now = read(&file.metadata().map_err(at)?);
        set(file, self, now).map_err(|error| {
            at(error).with_advice("restore as root, or without the original owner and mode")
        })
    }
}

#[cfg(unix)]
fn read(metadata: &fs::Metadata) -> FileMeta {
    use std::os::unix::fs::MetadataExt;
    FileMeta { mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() }
}

#[cfg(unix)]
fn set(file: &File, wanted: FileMeta, now: FileMeta) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    // The owner first: a change of owner clears set-id bits. Left alone where it
    // is right already, because only root may set it.
    if (wanted.uid, wanted.gid) != (now.uid, now.gid) {
        std::os::unix::fs::fchown(file, Some(wanted.uid), Some(wanted.gid))?;
    }
    file.set_permissions(fs::Permissions::from_mode(wanted.mode & 0o7777))
}

#[cfg(not(unix))]
fn read(_: &fs::Metadata) -> FileMeta {
    FileMeta { mode: 0, uid: 0, gid: 0 }
}

#[cfg(not(unix))]
fn set(_: &File, _: FileMeta, _: FileMeta) -> std::io::Result<()> {
    Ok(())
}
