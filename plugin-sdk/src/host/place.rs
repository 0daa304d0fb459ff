//! From a path to an open file, past nobody who is not trusted.
//!
//! **Promise.** Under a policy of owners, every directory from `/` to the file was examined on the
//! descriptor through which the next one was opened. So nobody but the owners that the policy
//! trusts can have put another file there, before, meanwhile or afterwards.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, open, openat, readlinkat, statat};

use super::error::{LoadError, LoadErrorKind};

/// Whom the file and the directories above it may belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// Whoever it is: nothing is checked, and links are followed.
    Anybody,
    Root,
    RootOr(u32),
}

/// An open file, and where it was found.
#[derive(Debug)]
pub(super) struct Place {
    /// The file's own path: absolute and without links.
    pub(super) path: PathBuf,
    pub(super) file: File,
    directory: OwnedFd,
    owners: Owners,
}

/// What is opened and not waited for: a pipe must not block, nor a terminal become ours.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);
const PASS: OFlags =
    OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens the file at `path`.
pub(super) fn find(path: &Path, owners: Owners) -> Result<Place, LoadError> {
    let canonical;
    let path = match owners {
        Owners::Anybody => {
            canonical = path.canonicalize().map_err(|error| unreadable(path, error))?;
            &canonical
        }
        _ => path,
    };
    let (directory, name) = walk(path, owners)?;
    let (name, file) = open_in(&directory, name, path, owners)?;
    Ok(Place { path: path.with_file_name(name), file, directory, owners })
}

impl Place {
    /// Opens the file `name` that lies beside this one; `None` if there is none.
    pub(super) fn beside(&self, name: &str) -> Result<Option<File>, LoadError> {
        let path = self.path.with_file_name(name);
        match open_in(&self.directory, OsStr::new(name), &path, self.owners) {
            Ok((_, file)) => Ok(Some(file)),
            Err(error) if error.kind() == LoadErrorKind::Missing => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The directory of `path`, each one above it examined, and the file's name.
fn walk(path: &Path, owners: Owners) -> Result<(OwnedFd, &OsStr), LoadError> {
    let mut parts = path.components();
    let relative = || {
        let what = "is not an absolute path without `..`; name the library by its full path";
        LoadError::new(LoadErrorKind::RelativePath, path, what)
    };
    if parts.next() != Some(Component::RootDir) {
        return Err(relative());
    }
    let mut passed = PathBuf::from("/");
    let mut directory =
        open("/", PASS, Mode::empty()).map_err(|error| unreadable(path, error.into()))?;
    examine(path, &passed, &directory, owners)?;
    let mut next = parts.next();
    while let Some(part) = next {
        let Component::Normal(name) = part else { return Err(relative()) };
        next = parts.next();
        if next.is_none() {
            return Ok((directory, name));
        }
        passed.push(name);
        directory = match openat(&directory, name, PASS, Mode::empty()) {
            Ok(directory) => directory,
            // With these flags a link is no directory.
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP)
                if is_link(&directory, name) =>
            {
                return Err(linked(path, &passed));
            }
            Err(error) => return Err(unreadable(path, error.into())),
        };
        examine(path, &passed, &directory, owners)?;
    }
    Err(not_a_file(path))
}

/// Opens a file of a directory that was examined. A link is followed once, to a file of the same
/// directory: that is how versions of a library are kept side by side.
fn open_in(
    directory: &OwnedFd,
    name: &OsStr,
    path: &Path,
    owners: Owners,
) -> Result<(OsString, File), LoadError> {
    let unreadable = |error: rustix::io::Errno| unreadable(path, error.into());
    let mut name = name.to_owned();
    let mut found = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(unreadable)?;
    if kind(&found) == FileType::Symlink {
        let target = readlinkat(directory, &name, Vec::new()).map_err(unreadable)?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        let mut parts = target.components();
        let (Some(Component::Normal(sibling)), None) = (parts.next(), parts.next()) else {
            return Err(linked(path, path));
        };
        name = sibling.to_owned();
        found = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(unreadable)?;
        if kind(&found) == FileType::Symlink {
            return Err(linked(path, path));
        }
    }
    // Before opening: opening a device can have effects.
    if kind(&found) != FileType::RegularFile {
        return Err(not_a_file(path));
    }
    let file = openat(directory, &name, READ, Mode::empty()).map_err(unreadable)?;
    if kind(&fstat(&file).map_err(unreadable)?) != FileType::RegularFile {
        return Err(not_a_file(path));
    }
    examine(path, path, &file, owners)?;
    Ok((name, File::from(file)))
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn is_link(directory: &OwnedFd, name: &OsStr) -> bool {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|found| kind(&found) == FileType::Symlink)
}

/// Whether `part`, opened as `descriptor`, is in the hands of `owners` alone.
fn examine(
    path: &Path,
    part: &Path,
    descriptor: impl AsFd,
    owners: Owners,
) -> Result<(), LoadError> {
    let stat = fstat(descriptor).map_err(|error| unreadable(path, error.into()))?;
    sound(stat.st_uid, stat.st_mode, owners).map_err(|why| {
        let what = format!("is not trusted: {} {why}", part.display());
        LoadError::new(LoadErrorKind::Untrusted, path, what)
    })
}

/// Whether a file of this owner and mode is in the hands of `owners` alone. An access list cannot
/// say otherwise: what it grants shows in the mode's group bits.
fn sound(owner: u32, mode: u32, owners: Owners) -> Result<(), &'static str> {
    match owners {
        Owners::Anybody => return Ok(()),
        Owners::Root if owner != 0 => {
            return Err("does not belong to root; have an administrator install it");
        }
        Owners::RootOr(user) if owner != 0 && owner != user => {
            return Err("belongs neither to root nor to this process's user; install it anew");
        }
        _ => {}
    }
    if mode & 0o022 != 0 {
        return Err("is writable by others than its owner; run `chmod go-w` on it");
    }
    Ok(())
}

pub(super) fn unreadable(path: &Path, error: io::Error) -> LoadError {
    match error.kind() {
        io::ErrorKind::NotFound => {
            LoadError::new(LoadErrorKind::Missing, path, "there is no such file")
        }
        _ => LoadError::new(LoadErrorKind::Unreadable, path, "cannot be read; check access")
            .caused_by(error),
    }
}

fn not_a_file(path: &Path) -> LoadError {
    let what = "is not a file; name the library itself";
    LoadError::new(LoadErrorKind::NotAFile, path, what)
}

fn linked(path: &Path, link: &Path) -> LoadError {
    let what = format!("is reached by the symbolic link {}; name the file itself", link.display());
    LoadError::new(LoadErrorKind::SymbolicLink, path, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(owner: u32, mode: u32, owners: Owners, expected: Result<(), &str>) {
        let found = sound(owner, mode, owners);
        match (found, expected) {
            (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
            (found, expected) => assert_eq!(found, expected, "{owner} {mode:o} {owners:?}"),
        }
    }

    #[test]
    fn only_what_the_owners_alone_can_write_is_sound() {
        check(0, 0o100755, Owners::Root, Ok(()));
        check(0, 0o040755, Owners::RootOr(7), Ok(()));
        check(7, 0o040700, Owners::RootOr(7), Ok(()));
        check(7, 0o100755, Owners::Root, Err("does not belong to root"));
        check(8, 0o100755, Owners::RootOr(7), Err("neither to root"));
        check(0, 0o100775, Owners::Root, Err("chmod go-w"));
        check(0, 0o100757, Owners::RootOr(7), Err("chmod go-w"));
        check(0, 0o041777, Owners::Root, Err("chmod go-w"));
        check(8, 0o100777, Owners::Anybody, Ok(()));
    }
}
