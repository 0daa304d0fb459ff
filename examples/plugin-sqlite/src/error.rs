//! The one error of this crate: what failed, on which file, and what to do next.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rusqlite::ffi;

/// What went wrong, coarsely enough to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file exists but holds no SQLite database that can be read: another format, or encrypted.
    NotADatabase,
    /// A file or directory that must exist does not.
    Missing,
    /// Another connection holds a lock that excludes us. The only retryable kind.
    Locked,
    /// The database is damaged.
    Corrupt,
    /// A crashed writer left a rollback journal that must be played back before anyone may read.
    NeedsRecovery,
    /// The target, or a file that SQLite would replay onto it, is already there.
    Exists,
    /// The disk, the quota or the file size limit is used up.
    Full,
    /// The operating system refused access.
    Denied,
    /// The request itself makes no sense, such as a buffer smaller than a page.
    Invalid,
    /// Any other fault of the file system or of SQLite.
    Io,
}

impl ErrorKind {
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::NotADatabase => "not an sqlite database",
            Self::Missing => "no such file or directory",
            Self::Locked => "database is locked",
            Self::Corrupt => "database is damaged",
            Self::NeedsRecovery => "database has an unfinished transaction to roll back",
            Self::Exists => "file is in the way",
            Self::Full => "no space left",
            Self::Denied => "access denied",
            Self::Invalid => "invalid request",
            Self::Io => "file could not be read or written",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::NotADatabase => "check the path; an encrypted database needs its own plugin",
            Self::Missing => "check the path and that its volume is mounted",
            Self::Locked => "try again when the other connection has finished its transaction",
            Self::Corrupt => "run `pragma integrity_check`, then restore an older recovery point",
            Self::NeedsRecovery => "open it once for writing with its own application",
            Self::Exists => "move it away, or ask to replace it",
            Self::Full => "free some space, or choose another volume",
            Self::Denied => "grant the agent's user access to the file and its directory",
            Self::Invalid => "correct the request",
            Self::Io => "look at the cause and at the system's log",
        }
    }
}

/// An error about one file. See [`Error::kind`].
///
/// Its message is lower case and reads `what: path; advice`; the cause, where
/// there is one, is the [`source`](StdError::source).
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    path: PathBuf,
    advice: &'static str,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, path: &Path) -> Self {
        Self { kind, path: path.to_owned(), advice: kind.advice(), source: None }
    }

    pub(crate) fn with_advice(mut self, advice: &'static str) -> Self {
        self.advice = advice;
        self
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Classifies a fault of the operating system on `path`.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::Missing,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ErrorKind::Denied
            }
            io::ErrorKind::AlreadyExists => ErrorKind::Exists,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => ErrorKind::Full,
            io::ErrorKind::IsADirectory => ErrorKind::NotADatabase,
            _ => ErrorKind::Io,
        };
        Self::new(kind, path).caused_by(source)
    }

    /// Classifies a fault that SQLite reports on `path`.
    ///
    /// The result codes are those of <https://sqlite.org/rescode.html>.
    pub(crate) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let extended = source.sqlite_error().map_or(0, |error| error.extended_code);
        let kind = match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => ErrorKind::NotADatabase,
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed,
            ) => ErrorKind::Locked,
            Some(ErrorCode::DatabaseCorrupt) => ErrorKind::Corrupt,
            Some(ErrorCode::DiskFull) => ErrorKind::Full,
            Some(ErrorCode::ReadOnly)
                if matches!(
                    extended,
                    ffi::SQLITE_READONLY_ROLLBACK | ffi::SQLITE_READONLY_RECOVERY
                ) =>
            {
                ErrorKind::NeedsRecovery
            }
            Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
                ErrorKind::Denied
            }
            _ => ErrorKind::Io,
        };
        Self::new(kind, path).caused_by(source)
    }

    /// The class of the error; match on this, with a `_` arm.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anyone's help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind == ErrorKind::Locked
    }

    /// The file or directory that the error is about.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a person can do about it, as a lower-case clause.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        self.advice
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.kind.what(), self.path.display(), self.advice)
    }
}
