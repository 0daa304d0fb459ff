//! Errors of the runtime.

use std::{error::Error as StdError, fmt};

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
    /// The runtime was stopped.
    Stopped,
}

/// An error from a [`Runtime`](crate::Runtime).
#[derive(Debug)]
pub struct RuntimeError {
    kind: RuntimeErrorKind,
    subject: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl RuntimeError {
    pub(crate) fn new(kind: RuntimeErrorKind, subject: impl Into<String>) -> Self {
        RuntimeError { kind, subject: subject.into(), source: None }
    }

    /// What several have to hear.
    pub(crate) fn shared(error: std::sync::Arc<RuntimeError>) -> Self {
        let (kind, subject) = (error.kind, error.subject.clone());
        match std::sync::Arc::try_unwrap(error) {
            Ok(error) => error,
            Err(error) => RuntimeError::new(kind, subject).caused_by(error),
        }
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The class of the error; match on this, with a `_` arm.
    pub fn kind(&self) -> RuntimeErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anyone's help.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl From<JournalError> for RuntimeError {
    fn from(error: JournalError) -> Self {
        let kind = RuntimeErrorKind::Journal(error.kind());
        RuntimeError { kind, subject: "journal".to_owned(), source: Some(Box::new(error)) }
    }
}

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            RuntimeErrorKind::UnknownMachine => "no such machine is registered",
            RuntimeErrorKind::UnknownRun => "there is no such run",
            RuntimeErrorKind::Graph => "the machine cannot be registered",
            RuntimeErrorKind::Quarantined => "the run cannot be continued here",
            RuntimeErrorKind::Journal(_) => "the runtime's journal failed",
            RuntimeErrorKind::Input => "this has no serde form",
            RuntimeErrorKind::Ended => "the run has ended",
            RuntimeErrorKind::NotFailed => "the run did not fail in a state that it can go on at",
            RuntimeErrorKind::Stopped => "the runtime was stopped",
        };
        write!(f, "{what}: {}", self.subject)
    }
}

impl StdError for RuntimeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
