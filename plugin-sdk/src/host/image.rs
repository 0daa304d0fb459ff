//! A library's bytes: found, checked, and out of everybody's reach before any of them is run.
//!
//! **Promise.** What the policy checked is what is mapped, whatever happens to the file meanwhile:
//! the file is opened once, and copied to memory that is sealed against every change. The copy is
//! what is hashed, compared, examined and loaded.
//!
//! **How.** The copy is a memfd, loaded by the name `/proc/self/fd/N`. The system's loader tells
//! libraries apart by that name and by inode. Neither ever belongs to two libraries: an image that
//! was loaded is kept open for good ([`keep`]), and the same bytes from the same path share one.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

use super::digest::{Digest, Hasher};
use super::error::{LoadError, LoadErrorKind};
use super::expected::Expected;
use super::place::unreadable;
use super::sidecar::Sidecar;
use super::trust::Trust;

/// No library is as large as this; copying more would only fill the memory.
const BYTES_MAX: u64 = 1 << 30;
/// Bytes that are hashed or compared at a time.
const PIECE: usize = 1 << 18;

/// A library's bytes, checked against a [`Trust`] and sealed, and none of them run.
///
/// [`Library::map`](super::Library::map) loads it into this process. An agent that runs the plugin
/// in a child of its own hands the child [`descriptor`](Self::descriptor) instead, which finds the
/// same bytes there by [`inherited`](Self::inherited).
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    file: File,
    sealed: bool,
    digest: OnceLock<Digest>,
    expected: Expected,
}

impl Image {
    /// Finds the library at `path` and checks everything that `trust` asks for. Blocks on file
    /// access.
    ///
    /// # Errors
    ///
    /// A [`LoadError`]; no code of the file has run.
    pub fn open(path: &Path, trust: &Trust) -> Result<Self, LoadError> {
        trust.admit(path)
    }

    /// The library behind a descriptor that a parent process checked and handed over. `path` is
    /// what it is called in the log and in errors.
    ///
    /// # Errors
    ///
    /// [`LoadErrorKind::NotSealed`] if it is not memory that is sealed against every change.
    pub fn inherited(descriptor: OwnedFd, path: &Path) -> Result<Self, LoadError> {
        let seals = fcntl_get_seals(&descriptor).unwrap_or(SealFlags::empty());
        if !seals.contains(SEALS) {
            let what = "was handed over in memory that is not sealed; hand an image's descriptor";
            return Err(LoadError::new(LoadErrorKind::NotSealed, path, what));
        }
        let expected = Expected::default();
        Ok(Self::new(path.to_owned(), descriptor.into(), true, expected))
    }

    /// In a child: the file at `path`, which the parent trusts where it is.
    #[cfg(feature = "runner")]
    pub(crate) fn trusted(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path).map_err(|error| unreadable(path, error))?;
        Ok(Self::in_place(path, file))
    }

    /// Copies `file` to sealed memory.
    pub(super) fn sealed(path: &Path, file: File) -> Result<Self, LoadError> {
        match copy(&file) {
            Ok(Some(copy)) => Ok(Self::new(path.to_owned(), copy, true, Expected::default())),
            Ok(None) => {
                let what = "is larger than 1 GiB, which no library is";
                Err(LoadError::new(LoadErrorKind::NotALibrary, path, what))
            }
            Err(error) => {
                let what = "cannot be copied to sealed memory; free some, allow memfd_create, or \
                            see `Trust::in_place`";
                Err(LoadError::new(LoadErrorKind::NotSealed, path, what).caused_by(error))
            }
        }
    }

    /// Takes the file as it is, where it is.
    pub(super) fn in_place(path: &Path, file: File) -> Self {
        Self::new(path.to_owned(), file, false, Expected::default())
    }

    fn new(path: PathBuf, file: File, sealed: bool, expected: Expected) -> Self {
        Self { path, file, sealed, digest: OnceLock::new(), expected }
    }

    pub(super) fn expecting(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }

    pub(super) fn expected(&self) -> &Expected {
        &self.expected
    }

    /// The library's own path: absolute, without links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its sidecar manifest says, if there is one.
    #[must_use]
    pub fn sidecar(&self) -> Option<&Sidecar> {
        self.expected.sidecar.as_ref()
    }

    /// The bytes. They are sealed, unless the policy asked to load the file in place.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether nobody can change the bytes any more.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// The bytes' hash. Computed once.
    ///
    /// # Errors
    ///
    /// [`LoadErrorKind::Unreadable`].
    pub fn digest(&self) -> Result<Digest, LoadError> {
        if let Some(digest) = self.digest.get() {
            return Ok(*digest);
        }
        let mut hasher = Hasher::new();
        self.pieces(|piece| hasher.update(piece))?;
        Ok(*self.digest.get_or_init(|| hasher.finish()))
    }

    /// Compares the manifest that the plugin gave with what was said of it before it ran.
    ///
    /// [`Library::map`](super::Library::map) does it by itself; an agent that asked a child
    /// process for the manifest does it here.
    ///
    /// # Errors
    ///
    /// [`LoadErrorKind::ManifestMismatch`], or [`LoadErrorKind::Manifest`] if it cannot be read.
    pub fn check_manifest(&self, document: &[u8]) -> Result<(), LoadError> {
        self.expected.check(&self.path, || Ok(document))
    }

    /// Calls `each` with the bytes, piece by piece, in order.
    pub(super) fn pieces(&self, mut each: impl FnMut(&[u8])) -> Result<(), LoadError> {
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        loop {
            match self.file.read_at(&mut piece, at) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    each(&piece[..read]);
                    at += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(&self.path, error)),
            }
        }
    }

    /// The bytes as a file with a position of its own.
    pub(super) fn reader(&self) -> Result<File, LoadError> {
        let unreadable = |error| unreadable(&self.path, error);
        File::open(self.descriptor_path()).map_err(unreadable)
    }

    /// What the system's loader is to open.
    pub(super) fn load_path(&self) -> PathBuf {
        if self.sealed { self.descriptor_path() } else { self.path.clone() }
    }

    fn descriptor_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    fn same_bytes(&self, other: &Image) -> io::Result<bool> {
        if self.file.metadata()?.len() != other.file.metadata()?.len() {
            return Ok(false);
        }
        let (mut ours, mut theirs) = (vec![0; PIECE], vec![0; PIECE]);
        let mut at = 0;
        loop {
            let read = self.file.read_at(&mut ours, at)?;
            if read == 0 {
                return Ok(true);
            }
            match other.file.read_exact_at(&mut theirs[..read], at) {
                Ok(()) if ours[..read] == theirs[..read] => at += read as u64,
                Ok(()) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}

const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// The file's bytes in memory that nobody can change; `None` if they are too many.
fn copy(file: &File) -> io::Result<Option<File>> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let descriptor = match memfd_create("mercury-plugin", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 there is no such flag, and no need of it.
        Err(rustix::io::Errno::INVAL) => memfd_create("mercury-plugin", flags),
        created => created,
    }?;
    let mut copy = File::from(descriptor);
    // On Linux this copies inside the kernel.
    if io::copy(&mut file.take(BYTES_MAX), &mut copy)? == BYTES_MAX {
        return Ok(None);
    }
    seal(&copy, || ())?;
    Ok(Some(copy))
}

/// How often memory that is busy is tried. The system waits for a sixth of a second each time.
const SEALED_AFTER: u32 = 30;

/// Seals memory that has no mapping, and does `between` each time that the system says it is busy.
///
/// Whoever looks at a page inside the kernel, to write it out or to count how often it is used,
/// holds it for a moment. The system does not know that from a write that is under way, and may
/// refuse to seal after a while (`memfd_wait_for_pins` in Linux's `mm/memfd.c`). Nobody else has
/// the descriptor, so it passes.
fn seal(memory: &File, mut between: impl FnMut()) -> io::Result<()> {
    let mut left = SEALED_AFTER;
    loop {
        match fcntl_add_seals(memory, SEALS) {
            Err(rustix::io::Errno::BUSY) if left > 0 => {
                left -= 1;
                between();
            }
            sealed => return Ok(sealed?),
        }
    }
}

/// Keeps an image that is about to be loaded, open and for good; or finds the one that holds the
/// same bytes of the same path.
///
/// Were the descriptor closed, the next one of its number would have its name, and the system's
/// loader would answer with the library that had the name first.
pub(super) fn keep(image: Image) -> Result<&'static Image, LoadError> {
    static KEPT: Mutex<Vec<&Image>> = Mutex::new(Vec::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    for earlier in kept.iter().filter(|earlier| earlier.path == image.path) {
        let same = earlier.same_bytes(&image).map_err(|error| unreadable(&image.path, error))?;
        if same && earlier.sealed == image.sealed {
            return Ok(earlier);
        }
        if !earlier.sealed && !image.sealed {
            let what = "was replaced since this process loaded it; restart the agent to load it";
            return Err(LoadError::new(LoadErrorKind::Replaced, &image.path, what));
        }
    }
    let image: &Image = Box::leak(Box::new(image));
    kept.push(image);
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_the_system_looks_at_is_sealed_when_that_is_over() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = memfd_create("mercury-test", flags).expect("memory");
        let memory = File::from(memory);
        memory.write_all_at(&[7; 4096], 0).expect("room for a page");
        // A page on its way through a pipe is held by the pipe.
        let (reader, writer) = io::pipe().expect("a pipe");
        let spliced = rustix::pipe::splice(
            &memory,
            Some(&mut 0),
            &writer,
            None,
            4096,
            rustix::pipe::SpliceFlags::empty(),
        );
        assert_eq!(spliced, Ok(4096));
        let (mut held, mut times) = (Some((reader, writer)), 0);
        seal(&memory, || {
            times += 1;
            held = None;
        })
        .expect("a seal");
        assert_eq!(times, 1);
        assert_eq!(fcntl_get_seals(&memory), Ok(SEALS));
    }
}
