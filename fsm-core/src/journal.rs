//! Where records are kept.

use std::{error::Error as StdError, fmt};

use futures::future::BoxFuture;

use crate::{Pruned, Record, Retention, RunId, RunSnapshot, RunSummary, Timestamp};

/// A durable, ordered store of [`Record`]s.
///
/// **Callers guarantee** that one run's records come from one caller, numbered without a gap.
///
/// **Implementers guarantee** that [`append`](Journal::append) is all or nothing, that it returns
/// `Ok` only once the records survive a power cut, that a record which does not follow its run's
/// last one is refused, that what was damaged is found and named instead of being read, and that
/// after a failed write, except for one that wrote nothing
/// ([`is_retryable`](JournalError::is_retryable), [`JournalErrorKind::TooLong`]), nothing more is acknowledged
/// ([`JournalErrorKind::Poisoned`]) until the journal is opened again. `fsm_core::testing::journal_suite` is this promise as tests.
pub trait Journal: Send + Sync + 'static {
    /// Writes `records`, of one run or of several, all or none. What was asked for first is
    /// written first, also by those whose futures were dropped; no records at all are written
    /// once everything before them is.
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

    /// Where up to `limit` runs stand that have not ended, by id, those after `after` only. A
    /// run that cannot be read does not hide others. Fewer than `limit` are the last.
    ///
    /// # Errors
    ///
    /// [`JournalError`] if the journal itself cannot be read.
    fn unfinished(
        &self,
        after: Option<&RunId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Loaded>, JournalError>>;

    /// A page of all runs, by id.
    ///
    /// # Errors
    ///
    /// [`JournalError`] if the journal cannot be read.
    fn list(&self, page: Page) -> BoxFuture<'static, Result<Vec<RunSummary>, JournalError>>;

    /// All records of `run` that are still kept, in order.
    ///
    /// # Errors
    ///
    /// [`JournalErrorKind::Damaged`] if one of them cannot be read.
    fn history(&self, run: &RunId) -> BoxFuture<'static, Result<Vec<Record>, JournalError>>;

    /// The number of the last record of `run`, found without reading what its records say;
    /// `None` if there is no such run.
    ///
    /// # Errors
    ///
    /// [`JournalError`] if the journal cannot be read.
    fn head(&self, run: &RunId) -> BoxFuture<'static, Result<Option<u64>, JournalError>>;

    /// Forgets what `retention` lets it forget at the time `now`. Appends go on meanwhile.
    ///
    /// # Errors
    ///
    /// As [`append`](Journal::append).
    fn prune(
        &self,
        retention: Retention,
        now: Timestamp,
    ) -> BoxFuture<'static, Result<Pruned, JournalError>>;
}

/// Journals are lent and shared.
impl<J: Journal + ?Sized> Journal for std::sync::Arc<J> {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), JournalError>> {
        (**self).append(records)
    }

    fn load(&self, run: &RunId) -> BoxFuture<'static, Result<Option<RunSnapshot>, JournalError>> {
        (**self).load(run)
    }

    fn unfinished(
        &self,
        after: Option<&RunId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Loaded>, JournalError>> {
        (**self).unfinished(after, limit)
    }

    fn list(&self, page: Page) -> BoxFuture<'static, Result<Vec<RunSummary>, JournalError>> {
        (**self).list(page)
    }

    fn history(&self, run: &RunId) -> BoxFuture<'static, Result<Vec<Record>, JournalError>> {
        (**self).history(run)
    }

    fn head(&self, run: &RunId) -> BoxFuture<'static, Result<Option<u64>, JournalError>> {
        (**self).head(run)
    }

    fn prune(
        &self,
        retention: Retention,
        now: Timestamp,
    ) -> BoxFuture<'static, Result<Pruned, JournalError>> {
        (**self).prune(retention, now)
    }
}

/// Which runs [`Journal::list`] answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// Only runs after this one.
    pub after: Option<RunId>,
    /// Only runs that have not ended.
    pub unfinished: bool,
    /// Only runs of this machine.
    pub machine: Option<String>,
    /// No more than this many.
    pub limit: usize,
}

impl Default for Page {
    /// The first 100 runs.
    fn default() -> Self {
        Page { after: None, unfinished: false, machine: None, limit: 100 }
    }
}

impl Page {
    /// Only runs after `run`: the last one of the page before.
    #[must_use]
    pub fn after(mut self, run: RunId) -> Self {
        self.after = Some(run);
        self
    }

    /// Only runs that have not ended.
    #[must_use]
    pub fn unfinished(mut self) -> Self {
        self.unfinished = true;
        self
    }

    /// Only runs of the machine `name`.
    #[must_use]
    pub fn machine(mut self, name: impl Into<String>) -> Self {
        self.machine = Some(name.into());
        self
    }

    /// No more than `limit` runs.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Whether `summary` belongs on it, but for the limit.
    pub fn shows(&self, summary: &RunSummary) -> bool {
        self.after.as_ref().is_none_or(|after| summary.run > *after)
            && !(self.unfinished && matches!(summary.standing, crate::Standing::Ended(_)))
            && self.machine.as_ref().is_none_or(|machine| summary.machine == *machine)
    }
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
    /// Somebody else holds the medium.
    Busy,
    /// A record is longer than the journal can hold. Nothing was written, and the journal takes
    /// others.
    TooLong,
    /// Reading or writing failed.
    Storage,
    /// An earlier write failed; the journal must be opened again.
    Poisoned,
    /// The file is open already, here or in another process. Two who write to one journal would
    /// run each step twice: close the other one first.
    InUse,
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

    /// Whether the same call may succeed later, with this very journal: nothing of it was written,
    /// and the reason may go away.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, JournalErrorKind::Full | JournalErrorKind::Busy)
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            JournalErrorKind::Damaged => "the journal's records do not fit together",
            JournalErrorKind::Conflict => "somebody else writes to this run",
            JournalErrorKind::Full => "no space is left for the journal",
            JournalErrorKind::Busy => "somebody else holds the journal",
            JournalErrorKind::TooLong => "the journal holds no record of this length",
            JournalErrorKind::Storage => "the journal could not be read or written",
            JournalErrorKind::Poisoned => "an earlier write failed; open the journal again",
            JournalErrorKind::InUse => "the journal is open already; close the other one first",
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
