//! Reading a database file beside SQLite without breaking SQLite's locks.
//!
//! **Promise.** A [`RawFile`] never makes a lock disappear that a
//! [`Database`](crate::database::Database) of this process holds on the same file.
//!
//! **How.** POSIX locks belong to the process and the file: closing *any*
//! descriptor of a file drops them all
//! (<https://sqlite.org/howtocorrupt.html>, section 2.2). So a raw descriptor
//! of a file that is [pinned](Pin) is parked when it is dropped, and closed
//! with the last pin. SQLite does the same with its own descriptors.
//! Connections that the host opens itself are unknown here; a host that writes
//! the database it backs up runs this plugin in a process of its own.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file apart from its name: survives a rename, differs after a replacement.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    #[cfg(unix)]
    pub(crate) fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// Elsewhere closing a descriptor drops no other's locks, so that one id is enough.
    #[cfg(not(unix))]
    pub(crate) fn of(_: &Metadata) -> Self {
        Self { device: 0, inode: 0 }
    }
}

#[derive(Debug, Default)]
struct Pinned {
    pins: usize,
    parked: Vec<File>,
}

static PINNED: Mutex<BTreeMap<FileId, Pinned>> = Mutex::new(BTreeMap::new());

fn pinned() -> MutexGuard<'static, BTreeMap<FileId, Pinned>> {
    // Every update of the map is complete before the guard drops, so a panic
    // elsewhere leaves it whole.
    PINNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it lives, no [`RawFile`] of that file is closed.
#[derive(Debug)]
pub(crate) struct Pin(FileId);

impl Pin {
    /// Pins the file. Take the pin *before* SQLite opens the file, drop it after SQLite closed it.
    pub(crate) fn new(id: FileId) -> Self {
        pinned().entry(id).or_default().pins += 1;
        Self(id)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut map = pinned();
        if let Some(entry) = map.get_mut(&self.0) {
            entry.pins -= 1;
            if entry.pins == 0 {
                // Closed under the lock: a new pin waits until that is over.
                map.remove(&self.0);
            }
        }
    }
}

/// A read-only descriptor that is safe to hold and drop beside SQLite's own.
#[derive(Debug)]
pub(crate) struct RawFile {
    file: Option<File>,
    id: FileId,
}

impl RawFile {
    /// Opens `path` for reading.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let id = FileId::of(&file.metadata()?);
        Ok(Self { file: Some(file), id })
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("the descriptor is only taken by drop")
    }

    /// The file's metadata, of the open file and not of whatever has its name now.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.file().metadata()
    }

    /// Fills `buffer` from `offset`, as far as the file goes, and returns the filled length.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match read_once(self.file(), &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

#[cfg(unix)]
fn read_once(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_once(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

impl Drop for RawFile {
    fn drop(&mut self) {
        let mut map = pinned();
        let file = self.file.take();
        if let Some(entry) = map.get_mut(&self.id) {
            entry.parked.extend(file);
        } else {
            drop(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(id: FileId) -> Option<usize> {
        pinned().get(&id).map(|entry| entry.parked.len())
    }

    #[test]
    fn a_descriptor_of_a_pinned_file_is_closed_with_the_last_pin() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let raw = RawFile::open(file.path()).unwrap();
        let id = raw.id;
        let (first, second) = (Pin::new(id), Pin::new(id));
        drop(raw);
        assert_eq!(parked(id), Some(1));
        drop(first);
        assert_eq!(parked(id), Some(1));
        drop(second);
        assert_eq!(parked(id), None);
    }
}
