//! The one error type of the crate.
//!
//! **Promise.** Every error says what failed, on which object, and what to do next; it never holds
//! a key or a byte of what was backed up.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, coarsely enough to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The archive, item, point, stream or hold that was asked for does not exist.
    NotFound,
    /// The key does not open this archive or this item.
    WrongKey,
    /// An object is missing, shortened or altered, or is of an unknown format.
    Damaged,
    /// A newer writer (a higher epoch) has taken over the item.
    Fenced,
    /// Something else already exists under this name.
    Exists,
    /// The store has no room left.
    Full,
    /// The store could not be reached, or refused.
    Storage,
    /// The request itself makes no sense.
    Input,
    /// The stream or session failed before, and takes no more calls.
    Closed,
}

impl ErrorKind {
    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::WrongKey => "the key does not fit",
            Self::Damaged => "object is damaged",
            Self::Fenced => "a newer writer has taken over",
            Self::Exists => "already exists",
            Self::Full => "the store is full",
            Self::Storage => "the store failed",
            Self::Input => "request is not valid",
            Self::Closed => "stream has failed before",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::NotFound => "list what there is and check the name",
            Self::WrongKey => "give the key that this archive was created with",
            Self::Damaged => {
                "restore another point, or bring the named object back from a copy of the archive"
            }
            Self::Fenced => "stop this writer, or start it again with a newer epoch",
            Self::Exists => "choose another name, or open what exists",
            Self::Full => "free space in the store, then try again",
            Self::Storage => "check that the store can be reached and written, then try again",
            Self::Input => "correct the request",
            Self::Closed => "begin a new take",
        }
    }
}

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// An error from the archive. See [`Error::kind`].
pub struct Error {
    kind: ErrorKind,
    subject: String,
    detail: &'static str,
    retryable: bool,
    source: Option<Source>,
}

/// What the calls of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The class of the error; match on this, with a `_` arm.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anyone's help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// The object, item, point, stream or argument that the error is about.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What to do next, in a sentence for an operator.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        self.kind.advice()
    }

    pub(crate) fn new(kind: ErrorKind, subject: impl Into<String>, detail: &'static str) -> Self {
        Self { kind, subject: subject.into(), detail, retryable: false, source: None }
    }

    pub(crate) fn damaged(subject: impl Into<String>, detail: &'static str) -> Self {
        Self::new(ErrorKind::Damaged, subject, detail)
    }

    pub(crate) fn input(subject: impl Into<String>, detail: &'static str) -> Self {
        Self::new(ErrorKind::Input, subject, detail)
    }

    pub(crate) fn not_found(subject: impl Into<String>, detail: &'static str) -> Self {
        Self::new(ErrorKind::NotFound, subject, detail)
    }

    /// Wraps what the operating system said about `subject`.
    pub(crate) fn io(subject: impl Into<String>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            _ if is_full(&source) => ErrorKind::Full,
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Storage,
        };
        Self {
            kind,
            subject: subject.into(),
            detail: "",
            retryable: kind == ErrorKind::Storage,
            source: Some(Box::new(source)),
        }
    }

    /// Wraps what the object store said about `subject`.
    pub(crate) fn store(subject: impl Into<String>, source: object_store::Error) -> Self {
        use object_store::Error as Store;
        let (kind, retryable) = match &source {
            Store::NotFound { .. } => (ErrorKind::NotFound, false),
            Store::AlreadyExists { .. } => (ErrorKind::Exists, false),
            Store::InvalidPath { .. } => (ErrorKind::Input, false),
            Store::PermissionDenied { .. }
            | Store::Unauthenticated { .. }
            | Store::NotImplemented { .. }
            | Store::NotSupported { .. }
            | Store::UnknownConfigurationKey { .. } => (ErrorKind::Storage, false),
            other if chain_is_full(other) => (ErrorKind::Full, false),
            _ => (ErrorKind::Storage, true),
        };
        Self {
            kind,
            subject: subject.into(),
            detail: "",
            retryable,
            source: Some(Box::new(source)),
        }
    }

    /// A task of ours ended without an answer: it panicked, or the runtime is going down.
    pub(crate) fn task(subject: impl Into<String>, source: tokio::task::JoinError) -> Self {
        Self {
            kind: ErrorKind::Closed,
            subject: subject.into(),
            detail: "its task ended without an answer",
            retryable: false,
            source: Some(Box::new(source)),
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Io;
    matches!(error.kind(), Io::StorageFull | Io::QuotaExceeded)
}

fn chain_is_full(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<std::io::Error>().is_some_and(is_full) {
            return true;
        }
        next = error.source();
    }
    false
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("subject", &self.subject)
            .field("detail", &self.detail)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.text(), self.subject)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_recognised_however_deep_it_is_wrapped() {
        let io = std::io::Error::new(std::io::ErrorKind::StorageFull, "no space");
        let wrapped = object_store::Error::Generic { store: "test", source: Box::new(io) };
        let error = Error::store("a/pack", wrapped);
        assert_eq!(error.kind(), ErrorKind::Full);
        assert_eq!(error.to_string(), "the store is full: a/pack");
    }
}
