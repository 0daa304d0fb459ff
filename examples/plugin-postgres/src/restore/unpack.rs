//! Writes the files of a base backup.
//!
//! **Promise.** Nothing is written outside of the directory, and nothing but plain files and
//! directories. An archive that ends too early is an error.
//!
//! **How.** The crate `tar` reads from a pipe of bytes, on a thread of its own: it blocks until
//! there are more, which a step that waits for its host must not.

use std::{
    io::{self, Read},
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use plugin_sdk::Fault;
use tar::{Archive, EntryType};

use super::file_fault;

/// How many pieces are on their way at once.
const PIECES: usize = 4;

/// An archive that is being unpacked. Dropped, it stops and is waited for.
#[derive(Debug)]
pub(crate) struct Unpacking<B> {
    pieces: Option<SyncSender<Piece<B>>>,
    thread: Option<JoinHandle<Result<Owner, Fault>>>,
}

/// To whom the files belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    user: u32,
    group: u32,
}

/// Bytes, or the end of them.
type Piece<B> = Option<B>;

impl<B: AsRef<[u8]> + Send + 'static> Unpacking<B> {
    /// Begins to unpack into `directory`, which is there.
    pub(crate) fn into(directory: &Path) -> Self {
        let (pieces, received) = sync_channel(PIECES);
        let directory = directory.to_owned();
        let thread = thread::spawn(move || unpack(&directory, Feed::new(received)));
        Unpacking { pieces: Some(pieces), thread: Some(thread) }
    }

    /// Gives it the bytes that follow; `false` if it wants no more.
    pub(crate) fn feed(&self, bytes: B) -> bool {
        self.pieces.as_ref().is_some_and(|pieces| pieces.send(Some(bytes)).is_ok())
    }

    /// Tells it that there are no more, and waits until everything is written.
    pub(crate) fn finish(mut self) -> Result<Owner, Fault> {
        if let Some(pieces) = self.pieces.take() {
            // It may have read the end of the archive and gone.
            let _ = pieces.send(None);
        }
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(unpacked)) => unpacked,
            _ => Err(Fault::bug("postgres.unpack", "what unpacks the base backup panicked")),
        }
    }
}

impl<B> Drop for Unpacking<B> {
    fn drop(&mut self) {
        // Without a last piece, what is there is not mistaken for all of it.
        drop(self.pieces.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Owner {
    /// Gives `path` to the owner, if this process may.
    pub(crate) fn own(self, path: &Path) -> Result<(), Fault> {
        if !is_root() {
            return Ok(());
        }
        let owned = std::os::unix::fs::lchown(path, Some(self.user), Some(self.group));
        owned.map_err(|error| file_fault("change the owner of", path, &error))
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn unpack<B: AsRef<[u8]>>(directory: &Path, feed: Feed<B>) -> Result<Owner, Fault> {
    let damaged = |error: &io::Error| match error.kind() {
        // The host has not sent all of it; its own fault is the better one.
        io::ErrorKind::ConnectionAborted => {
            Fault::retryable("postgres.unpack", "the base backup broke off").caused_by(error)
        }
        _ => file_fault("unpack the base backup into", directory, error),
    };
    let mut archive = Archive::new(feed);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(is_root());
    archive.set_overwrite(false);
    let mut owner = None;
    for entry in archive.entries().map_err(|error| damaged(&error))? {
        let mut entry = entry.map_err(|error| damaged(&error))?;
        let path = entry.path().map_err(|error| damaged(&error))?.into_owned();
        if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Directory) {
            return Err(strange(&path));
        }
        if !entry.unpack_in(directory).map_err(|error| damaged(&error))? {
            return Err(strange(&path));
        }
        if owner.is_none() {
            let (user, group) = (entry.header().uid(), entry.header().gid());
            let id = |id: io::Result<u64>| u32::try_from(id.ok()?).ok();
            owner = id(user).zip(id(group)).map(|(user, group)| Owner { user, group });
        }
    }
    owner.ok_or_else(|| {
        Fault::permanent("postgres.unpack", "the base backup holds no file of anybody")
            .advise("restore another point")
    })
}

fn strange(path: &Path) -> Fault {
    let message = format!("the base backup holds {}, no file of a cluster", path.display());
    Fault::permanent("postgres.unpack", message).advise("restore another point")
}

/// The pieces as one reader.
struct Feed<B> {
    received: Receiver<Piece<B>>,
    piece: Piece<B>,
    read: usize,
}

impl<B> Feed<B> {
    fn new(received: Receiver<Piece<B>>) -> Self {
        Feed { received, piece: None, read: 0 }
    }
}

impl<B: AsRef<[u8]>> Read for Feed<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.piece.as_ref().map_or(&[][..], |piece| &piece.as_ref()[self.read..]);
            if !left.is_empty() {
                let length = left.len().min(buffer.len());
                buffer[..length].copy_from_slice(&left[..length]);
                self.read += length;
                return Ok(length);
            }
            self.read = 0;
            match self.received.recv() {
                Ok(Some(piece)) => self.piece = Some(piece),
                Ok(None) => {
                    self.piece = None;
                    return Ok(0);
                }
                Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            // Past the builder's own check of paths.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(if *kind == EntryType::Directory { 0o700 } else { 0o600 });
            header.set_size(content.len() as u64);
            let me = rustix::process::geteuid().as_raw();
            header.set_uid(u64::from(me));
            header.set_gid(u64::from(rustix::process::getegid().as_raw()));
            if *kind == EntryType::Symlink {
                header.set_link_name("/etc").expect("short enough");
            }
            header.set_cksum();
            builder.append(&header, *content).expect("memory takes it");
        }
        builder.into_inner().expect("memory takes it")
    }

    fn unpacked(archive: &[u8], piece: usize, into: &Path) -> Result<Owner, Fault> {
        let unpacking = Unpacking::into(into);
        for piece in archive.chunks(piece) {
            if !unpacking.feed(piece.to_vec()) {
                break;
            }
        }
        unpacking.finish()
    }

    #[test]
    fn files_come_out_as_they_went_in_however_the_bytes_are_cut() {
        let entries: [(&str, EntryType, &[u8]); 3] = [
            ("base/", EntryType::Directory, b""),
            ("base/1", EntryType::Regular, &[7; 1000]),
            ("PG_VERSION", EntryType::Regular, b"15\n"),
        ];
        for piece in [1, 100, 512, 10_000] {
            let root = tempfile::tempdir().expect("a directory can be made");
            unpacked(&archive(&entries), piece, root.path()).expect("it is sound");
            let read = |path: &str| std::fs::read(root.path().join(path)).expect("it is there");
            assert_eq!((read("base/1"), read("PG_VERSION")), (vec![7; 1000], b"15\n".to_vec()));
        }
    }

    #[test]
    fn nothing_is_written_outside_and_nothing_but_files() {
        for (path, kind) in [
            ("../outside", EntryType::Regular),
            ("base/../../outside", EntryType::Regular),
            ("link", EntryType::Symlink),
            ("pipe", EntryType::Fifo),
        ] {
            let root = tempfile::tempdir().expect("a directory can be made");
            let into = root.path().join("into");
            std::fs::create_dir(&into).expect("a directory can be made");
            let fault = unpacked(&archive(&[(path, kind, b"")]), 512, &into)
                .expect_err("it holds no such thing");
            assert_eq!(fault.code(), "postgres.unpack", "{path}");
            assert!(!root.path().join("outside").exists(), "{path}");
        }
    }

    #[test]
    fn an_archive_that_breaks_off_is_an_error() {
        let root = tempfile::tempdir().expect("a directory can be made");
        let whole = archive(&[("PG_VERSION", EntryType::Regular, &[1; 2000])]);
        unpacked(&whole[..1500], 512, root.path()).expect_err("it is cut off");
        let unpacking = Unpacking::into(root.path());
        unpacking.feed(whole[..512].to_vec());
        // Dropped without an end: it is over when this returns.
        drop(unpacking);
    }
}
