//! A data directory on its way to its place: files only, nothing of Mercury's machines.
//!
//! | module | does |
//! | --- | --- |
//! | `unpack` | writes the files of a base backup, whose bytes come piece by piece |
//! | `recovery` | says how far the server replays when it is started on the directory |
//! | `place` | where the directory waits, and how it gets its target's name in one move |

mod place;
mod recovery;
mod unpack;

use std::{io, path::Path};

use plugin_sdk::{Class, Fault};

pub use self::recovery::ReplayTo;
pub(crate) use self::{
    place::{Place, refuse_existing},
    recovery::{WAL_DIRECTORY, configure},
    unpack::Unpacking,
};

/// A fault of the file system at `path`.
pub(crate) fn file_fault(what: &str, path: &Path, error: &io::Error) -> Fault {
    use io::ErrorKind::{
        AlreadyExists, DirectoryNotEmpty, NotADirectory, NotFound, PermissionDenied, QuotaExceeded,
        ReadOnlyFilesystem, StorageFull,
    };
    let (class, code, advice) = match error.kind() {
        AlreadyExists | DirectoryNotEmpty => {
            (Class::User, "postgres.exists", "choose a directory that is empty or not there")
        }
        PermissionDenied | ReadOnlyFilesystem => {
            (Class::User, "postgres.file_denied", "let the agent's user write there")
        }
        NotFound | NotADirectory => {
            (Class::User, "postgres.no_directory", "make the directory above the target first")
        }
        StorageFull | QuotaExceeded => {
            (Class::User, "postgres.full", "make room, or choose another volume")
        }
        _ => (Class::Retryable, "postgres.file", "look into the system's log"),
    };
    Fault::new(class, code, format!("cannot {what} {}", path.display()))
        .caused_by(error)
        .advise(advice)
}
