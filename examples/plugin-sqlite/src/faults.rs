//! This crate's errors in the words that cross the boundary.

use plugin_sdk::{Class, Fault};

use crate::error::{Error, ErrorKind};

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let (class, code) = match error.kind() {
            ErrorKind::NotADatabase => (Class::User, "sqlite.not_a_database"),
            ErrorKind::Missing => (Class::User, "sqlite.missing"),
            ErrorKind::Locked => (Class::Retryable, "sqlite.locked"),
            ErrorKind::Corrupt => (Class::Permanent, "sqlite.corrupt"),
            ErrorKind::NeedsRecovery => (Class::User, "sqlite.needs_recovery"),
            ErrorKind::Exists => (Class::User, "sqlite.exists"),
            ErrorKind::Full => (Class::User, "sqlite.full"),
            ErrorKind::Denied => (Class::User, "sqlite.denied"),
            ErrorKind::Invalid => (Class::Bug, "sqlite.invalid"),
            ErrorKind::Io => (Class::Retryable, "sqlite.io"),
        };
        // Without the advice, which a fault keeps apart.
        let message = format!("{}: {}", error.kind().what(), error.path().display());
        let fault = Fault::new(class, code, message).advise(error.advice());
        match std::error::Error::source(&error) {
            Some(source) => fault.caused_by(source),
            None => fault,
        }
    }
}
