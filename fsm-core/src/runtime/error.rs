//! Errors of the runtime.

use std::{error::Error as StdError, fmt, sync::Arc};

use crate::{JournalError, JournalErrorKind};

/// What went wrong, coarsely enough to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuntimeErrorKind {
    /// No machine of that name is registered.
    UnknownMachine,
    /// There is no such run.
    UnknownRun,
    /// The machine's graph is not sound, or its name is taken.
    Graph,
    /// The run's record cannot be used with the machines that are here.
    Quarantined,
    /// The journal failed; its kind says how.
    Journal(JournalErrorKind),
    /// A run's input, or a signal, has no serde form.
    Input,
    /// The run has ended, so what was asked of it cannot be.
    Ended,
    /// The run did not fail in a state that it could continue at.
    NotFailed,
    /// [`SIGNALS_MAX`](crate::Carried::SIGNALS_MAX) signals wait in the run that no state has
    /// taken yet.
    TooManySignals,
    /// There is such a run, of another machine.
    OtherMachine,
    /// The runtime was stopped.
    Stopped,
}

/// An error from a [`Runtime`](crate::Runtime).
#[derive(Clone, Debug)]
pub struct RuntimeError {
    kind: RuntimeErrorKind,
    subject: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl RuntimeError {
    pub(crate) fn new(kind: RuntimeErrorKind, subject: impl Into<String>) -> Self {
        RuntimeError { kind, subject: subject.into(), source: None }
    }

    /// What several have to hear.
    pub(crate) fn shared(error: Arc<RuntimeError>) -> Self {
        Arc::unwrap_or_clone(error)
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// The class of the error; match on this, with a `_` arm.
    pub fn kind(&self) -> RuntimeErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later: see [`JournalError::is_retryable`].
    pub fn is_retryable(&self) -> bool {
        let kinds = [JournalErrorKind::Full, JournalErrorKind::Busy];
        matches!(self.kind, RuntimeErrorKind::Journal(kind) if kinds.contains(&kind))
    }
}

impl From<JournalError> for RuntimeError {
    fn from(error: JournalError) -> Self {
        let kind = RuntimeErrorKind::Journal(error.kind());
        RuntimeError::new(kind, "").caused_by(error)
    }
}

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            RuntimeErrorKind::UnknownMachine => "no such machine is registered",
            RuntimeErrorKind::UnknownRun => "there is no such run",
            RuntimeErrorKind::Graph => "the machine cannot be registered",
            RuntimeErrorKind::Quarantined => "the run cannot be continued here",
            RuntimeErrorKind::Journal(_) => "what the run did could not be recorded",
            RuntimeErrorKind::Input => "this has no serde form",
            RuntimeErrorKind::Ended => "the run has ended",
            RuntimeErrorKind::NotFailed => "the run did not fail in a state that it can go on at",
            RuntimeErrorKind::TooManySignals => "too many signals wait in the run already",
            RuntimeErrorKind::OtherMachine => "the run is one of another machine",
            RuntimeErrorKind::Stopped => "the runtime was stopped",
        };
        match self.subject.as_str() {
            "" => f.write_str(what),
            subject => write!(f, "{what}: {subject}"),
        }
    }
}

impl StdError for RuntimeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
