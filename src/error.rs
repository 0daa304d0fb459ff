//! What an embedding program sees when something fails, and the one table that maps the errors
//! of the parts to one classification.

use std::{error::Error as StdError, fmt};

use archive::ErrorKind as ArchiveErrorKind;
use fsm_core::{Class, Fault, JournalError, JournalErrorKind, RuntimeError, RuntimeErrorKind};
use plugin_sdk::{
    abi::TaskFault,
    host::{InitError, LoadError, LoadErrorKind},
    message,
};
use throttle::{AcquireError, AcquireErrorKind, PolicyError};

/// What went wrong, coarsely enough to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The archive's key is missing, malformed, readable by others, or the wrong one.
    Key,
    /// Another engine uses the state directory.
    InUse,
    /// The state directory, or the store in it, cannot be used.
    State,
    /// The archive cannot be read or written, or is damaged.
    Archive,
    /// The directory for calls, or a socket in it, cannot be used, or a caller is not known.
    Ingress,
    /// A plugin cannot be loaded, or broke its contract.
    Plugin,
    /// The request itself makes no sense: an unknown item, point or operation, a malformed id.
    Request,
    /// The operation did not do its work; the error's class and code say why.
    Operation,
    /// The operation was cancelled.
    Cancelled,
    /// The engine is shutting down, or the operation goes on in the next process.
    Stopped,
}

/// An error of the engine: a kind, a class to act on, a stable code, words for people, advice.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    // Boxed, so that the success path does not carry the size of the failures.
    fault: Box<Fault>,
    cause: Option<Cause>,
}

#[derive(Debug)]
enum Cause {
    /// What the error comes from.
    Behind(Box<dyn StdError + Send + Sync>),
    /// A part's error whose text is this error's text; what it comes from is behind it.
    SameText(Box<dyn StdError + Send + Sync>),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, fault: Fault) -> Self {
        Error { kind, fault: Box::new(fault), cause: None }
    }

    pub(crate) fn request(code: &str, message: impl Into<String>, advice: &str) -> Self {
        Error::new(ErrorKind::Request, Fault::user(code, message).advise(advice))
    }

    pub(crate) fn stopped(message: impl Into<String>) -> Self {
        let fault = Fault::retryable("engine.stopped", message);
        Error::new(ErrorKind::Stopped, fault.advise("start the engine again; nothing is lost"))
    }

    /// The part's error that this one was made of.
    pub(crate) fn part<E: StdError + 'static>(&self) -> Option<&E> {
        match self.cause.as_ref()? {
            Cause::SameText(error) => error.downcast_ref(),
            Cause::Behind(_) => None,
        }
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(Cause::Behind(source.into()));
        self
    }

    /// The kind of the error; match on this, with a `_` arm.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the error asks of whoever hears of it.
    pub fn class(&self) -> Class {
        self.fault.class()
    }

    /// A stable, machine-readable name of what failed.
    pub fn code(&self) -> &str {
        self.fault.code()
    }

    /// What somebody can do about it.
    pub fn advice(&self) -> Option<&str> {
        self.fault.advice()
    }

    /// Whether the same call may succeed later without anyone's help.
    pub fn is_retryable(&self) -> bool {
        self.fault.is_retryable()
    }

    /// The error in the form that is journaled and crosses boundaries.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fault.message())?;
        if self.cause.is_none() {
            for cause in self.fault.chain() {
                write!(f, ": {cause}")?;
            }
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self.cause.as_ref()? {
            Cause::Behind(error) => Some(&**error),
            Cause::SameText(error) => error.source(),
        }
    }
}

/// The code of an operation whose deadline passed before it could begin.
pub(crate) const EXPIRED: &str = "throttle.expired";

/// The mapping table: every error of a part, as a kind and a fault.
macro_rules! mapped {
    ($($error:ty => $map:expr;)+) => { $(
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                let (kind, fault): (ErrorKind, Fault) = $map(&error);
                let mut mapped = Error::new(kind, fault.caused_by_sources(&error));
                mapped.cause = Some(Cause::SameText(Box::new(error)));
                mapped
            }
        }
    )+ };
}

trait CausedBySources {
    fn caused_by_sources(self, error: &(dyn StdError + 'static)) -> Self;
}

impl CausedBySources for Fault {
    /// The error's own text is the fault's message already; only what is behind it is added.
    fn caused_by_sources(self, error: &(dyn StdError + 'static)) -> Self {
        match error.source() {
            Some(source) => self.caused_by(source),
            None => self,
        }
    }
}

mapped! {
    archive::Error => |error: &archive::Error| {
        let (kind, class, code) = match error.kind() {
            ArchiveErrorKind::NotFound => (ErrorKind::Archive, Class::User, "archive.not_found"),
            ArchiveErrorKind::WrongKey => (ErrorKind::Key, Class::User, "archive.wrong_key"),
            ArchiveErrorKind::Damaged => (ErrorKind::Archive, Class::Permanent, "archive.damaged"),
            ArchiveErrorKind::Fenced => (ErrorKind::Archive, Class::Fenced, "archive.fenced"),
            ArchiveErrorKind::Exists => (ErrorKind::Archive, Class::User, "archive.exists"),
            ArchiveErrorKind::Full => (ErrorKind::Archive, Class::User, "archive.full"),
            ArchiveErrorKind::Input => (ErrorKind::Archive, Class::Bug, "archive.input"),
            ArchiveErrorKind::Closed => (ErrorKind::Archive, Class::Retryable, "archive.closed"),
            _ => (ErrorKind::Archive, Class::Retryable, "archive.storage"),
        };
        (kind, Fault::new(class, code, error.to_string()).advise(error.advice()))
    };
    JournalError => |error: &JournalError| {
        let (class, code, advice) = journal(error.kind());
        (ErrorKind::State, Fault::new(class, code, error.to_string()).advise(advice))
    };
    RuntimeError => |error: &RuntimeError| {
        let (kind, (class, code, advice)) = match error.kind() {
            RuntimeErrorKind::Stopped => {
                let advice = "start the engine again; nothing is lost";
                (ErrorKind::Stopped, (Class::Retryable, "engine.stopped", advice))
            }
            RuntimeErrorKind::Journal(kind) => (ErrorKind::State, journal(kind)),
            RuntimeErrorKind::Graph => {
                (ErrorKind::Plugin, (Class::Bug, "plugin.graph", "report it to the plugin's author"))
            }
            RuntimeErrorKind::Quarantined | RuntimeErrorKind::UnknownMachine => {
                let advice = "start the engine with the version of the plugin that began the run";
                (ErrorKind::Plugin, (Class::User, "run.quarantined", advice))
            }
            _ => (ErrorKind::State, (Class::Bug, "run.unknown", "report it, with the log")),
        };
        (kind, Fault::new(class, code, error.to_string()).advise(advice))
    };
    LoadError => |error: &LoadError| {
        let (class, code, advice) = load(error.kind());
        (ErrorKind::Plugin, Fault::new(class, code, error.to_string()).advise(advice))
    };
    InitError => |error: &InitError| (ErrorKind::Plugin, match error {
        InitError::Refused(document) => message::decode_fault(document),
        _ => Fault::bug("plugin.init", error.to_string()),
    });
    PolicyError => |error: &PolicyError| {
        (ErrorKind::Plugin, Fault::bug("plugin.policy", error.to_string()))
    };
    AcquireError => |error: &AcquireError| match error.kind() {
        AcquireErrorKind::Closed => (
            ErrorKind::Stopped,
            Fault::retryable("engine.stopped", "the engine is shutting down"),
        ),
        AcquireErrorKind::Rejected { code, .. } => {
            (ErrorKind::Operation, Fault::user(code.clone(), error.to_string()))
        }
        AcquireErrorKind::Expired { waited, blocked_by } => {
            let blocker = blocked_by.as_deref().unwrap_or("capacity");
            let message = format!(
                "the deadline of operation {} passed while it waited for {blocker} ({} s)",
                error.owner(),
                waited.as_secs()
            );
            let advice = "ask again, with a later deadline or a higher priority";
            (ErrorKind::Operation, Fault::retryable(EXPIRED, message).advise(advice))
        }
        AcquireErrorKind::WouldWait { .. } => {
            (ErrorKind::Operation, Fault::retryable("throttle.busy", error.to_string()))
        }
        _ => {
            let fault = Fault::permanent("throttle.claim", error.to_string());
            let advice = "raise the engine's limit, or mend the plugin's claims or its manifest";
            (ErrorKind::Operation, fault.advise(advice))
        }
    };
}

/// Class, code and advice of why a plugin was not loaded.
fn load(kind: LoadErrorKind) -> (Class, &'static str, &'static str) {
    use LoadErrorKind as Kind;
    const RULE: &str = "nothing of it was run; have an administrator do what the message says, or \
                        give the plugin another trust";
    const BUILD: &str = "give the path of a Mercury plugin built for this agent";
    match kind {
        Kind::Missing => (Class::User, "plugin.missing", BUILD),
        Kind::OtherAbi | Kind::OtherSdk => (Class::User, "plugin.other_abi", BUILD),
        Kind::Untrusted | Kind::RelativePath | Kind::SymbolicLink => {
            (Class::User, "plugin.untrusted", RULE)
        }
        Kind::LockMissing | Kind::LockDamaged => (Class::User, "plugin.lock", RULE),
        Kind::NotPinned | Kind::NotPinnedHere => (Class::User, "plugin.not_pinned", RULE),
        Kind::DigestMismatch => (Class::User, "plugin.other_bytes", RULE),
        Kind::SignatureMissing | Kind::BadSignature => (Class::User, "plugin.signature", RULE),
        Kind::SidecarMissing | Kind::SidecarDamaged => (Class::User, "plugin.sidecar", RULE),
        Kind::NotSealed => (Class::User, "plugin.not_sealed", RULE),
        Kind::Replaced => (Class::User, "plugin.replaced", "restart the agent"),
        Kind::ManifestMismatch => {
            let advice = "get the plugin from its vendor again, with its description";
            (Class::User, "plugin.mismatch", advice)
        }
        Kind::Runner => {
            let advice = "begin `main` with `mercury::runner::serve_if_asked()`, install \
                          `plugin-runner` beside the agent, or load the plugin with `in_process`";
            (Class::User, "plugin.runner", advice)
        }
        Kind::Manifest | Kind::Layout | Kind::Crashed => {
            (Class::Bug, "plugin.broken", "report it to the plugin's author")
        }
        _ => (Class::User, "plugin.not_a_plugin", BUILD),
    }
}

/// Class, code and advice of what a store answered with.
fn journal(kind: JournalErrorKind) -> (Class, &'static str, &'static str) {
    match kind {
        JournalErrorKind::Full => (Class::User, "state.full", "free space for the state directory"),
        JournalErrorKind::InUse => {
            (Class::User, "state.in_use", "stop the other engine first, or name another directory")
        }
        JournalErrorKind::TooLong => {
            (Class::Permanent, "state.too_long", "have the plugin store large data outside")
        }
        JournalErrorKind::Damaged | JournalErrorKind::Unsupported => (
            Class::Permanent,
            "state.damaged",
            "move the state directory away; every recovery point is in the archive",
        ),
        _ => (Class::Retryable, "state.storage", "check the disk, then start the engine again"),
    }
}

impl From<TaskFault> for Error {
    fn from(fault: TaskFault) -> Self {
        Error::new(ErrorKind::Plugin, fault.into())
    }
}

/// A fault that a plugin or a run answered with.
impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let kind = match fault.class() {
            Class::Cancelled => ErrorKind::Cancelled,
            _ => ErrorKind::Operation,
        };
        Error::new(kind, fault)
    }
}
