//! Where records are kept.

use std::{error::Error as StdError, fmt};

use futures::future::BoxFuture;

use crate::{Record, RunId, RunSnapshot};

/// A durable, ordered store of [`Record`]s.
///
/// **Callers guarantee** that one run's records come from one caller, numbered without a gap.
///
/// **Implementers guarantee** that [`append`](Journal::append) is all or nothing, that it returns
/// `Ok` only once the records survive a power cut, that a second record of one run and number is
/// refused, and that after a failed write nothing more is acknowledged
/// ([`JournalErrorKind::Poisoned`]) until the journal is opened again.
pub trait Journal: Send + Sync + 'static {
    /// Writes `records`, all or none.
    ///
    /// # Errors
    ///
    /// [`JournalError`]; nothing of the batch is visible then, unless the kind is
    /// [`JournalErrorKind::Storage`], after which only opening the journal again tells.
    ///
    /// # Cancel safety
    ///
    /// The records may be written although the future was dropped.
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), JournalError>>;

    /// Where `run` stands; `None` if there is no such run.
    ///
    /// # Errors
    ///
    /// [`JournalErrorKind::Damaged`] if its records do not fit together.
    fn load(&self, run: &RunId) -> BoxFuture<'static, Result<Option<RunSnapshot>, JournalError>>;

    /// Where each run stands that has not ended. A run that cannot be read does not hide others.
    ///
    /// # Errors
    ///
    /// [`JournalError`] if the journal itself cannot be read.
    fn unfinished(&self) -> BoxFuture<'static, Result<Vec<Loaded>, JournalError>>;

    /// All records of `run` that are still kept, in order.
    ///
    /// # Errors
    ///
    /// [`JournalError`] if they cannot be read.
    fn history(&self, run: &RunId) -> BoxFuture<'static, Result<Vec<Record>, JournalError>>;
}

/// One run that a restart found.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The run.
    pub run: RunId,
    /// Where it stands, or why that cannot be read.
    pub snapshot: Result<RunSnapshot, String>,
}

/// What went wrong with a journal, coarsely enough to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalErrorKind {
    /// A run's records do not fit together.
    Damaged,
    /// The record's number is taken: somebody else writes to this run.
    Conflict,
    /// The medium is full.
    Full,
    /// Reading or writing failed.
    Storage,
    /// An earlier write failed; the journal must be opened again.
    Poisoned,
    /// The file is no journal, or one of a newer version.
    Unsupported,
}

/// An error from a journal or its store.
#[derive(Debug)]
pub struct JournalError {
    kind: JournalErrorKind,
    subject: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl JournalError {
    /// An error of `kind` about `subject`: a run, or a file.
    pub fn new(kind: JournalErrorKind, subject: impl Into<String>) -> Self {
        JournalError { kind, subject: subject.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The class of the error; match on this, with a `_` arm.
    pub fn kind(&self) -> JournalErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anyone's help.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            JournalErrorKind::Damaged => "the journal's records do not fit together",
            JournalErrorKind::Conflict => "somebody else writes to this run",
            JournalErrorKind::Full => "no space is left for the journal",
            JournalErrorKind::Storage => "the journal could not be read or written",
            JournalErrorKind::Poisoned => "an earlier write failed; open the journal again",
            JournalErrorKind::Unsupported => "this is no journal that this version can read",
        };
        write!(f, "{what}: {}", self.subject)
    }
}

impl StdError for JournalError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
