//! SQLite's errors in the journal's words.

use rusqlite::{Error, ErrorCode};

use crate::{JournalError, JournalErrorKind};

/// What `error` means for whoever uses the journal.
pub(super) fn kind(error: &Error) -> JournalErrorKind {
    match error {
        // What was read has another form than what was written.
        Error::FromSqlConversionFailure(..)
        | Error::InvalidColumnType(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::Utf8Error(..) => return JournalErrorKind::Damaged,
        _ => {}
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => JournalErrorKind::Full,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalErrorKind::Busy,
        Some(ErrorCode::ConstraintViolation) => JournalErrorKind::Conflict,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::TypeMismatch) => JournalErrorKind::Damaged,
        Some(ErrorCode::NotADatabase) => JournalErrorKind::Unsupported,
        _ => JournalErrorKind::Storage,
    }
}

/// `error`, about `subject`.
pub(super) fn about(subject: impl Into<String>, error: Error) -> JournalError {
    JournalError::new(kind(&error), subject).caused_by(error)
}

impl From<Error> for JournalError {
    fn from(error: Error) -> Self {
        about("state database", error)
    }
}
