//! Why a step did not do its work, in a form that crosses every boundary.

use std::{error::Error as StdError, fmt, io, time::Duration};

use serde::{Deserialize, Serialize};

/// What a fault asks of whoever hears of it.
///
/// Read from a peer or a journal of another version, a class that this one does not know is
/// [`Permanent`](Class::Permanent): nobody tries again for a reason that nobody here understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", from = "String")]
#[non_exhaustive]
pub enum Class {
    /// The same step may succeed later without anyone's help.
    Retryable,
    /// Somebody has to change something first: a path, a permission, free space.
    User,
    /// It will not succeed, whoever waits or helps.
    Permanent,
    /// What this work builds on is missing or does not fit; work of another kind is needed.
    Chain,
    /// Somebody newer has taken over; this side has to stop.
    Fenced,
    /// A contract was broken by code: a panic, an undeclared successor, a malformed message.
    Bug,
    /// It was asked to stop, and did.
    Cancelled,
    /// Whoever ran the step died; nothing is known of what the step did.
    Interrupted,
}

impl Class {
    /// The class as one lower-case word, as messages and the journal write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Retryable => "retryable",
            Class::User => "user",
            Class::Permanent => "permanent",
            Class::Chain => "chain",
            Class::Fenced => "fenced",
            Class::Bug => "bug",
            Class::Cancelled => "cancelled",
            Class::Interrupted => "interrupted",
        }
    }
}

impl From<String> for Class {
    fn from(word: String) -> Self {
        match &*word {
            "retryable" => Class::Retryable,
            "user" => Class::User,
            "chain" => Class::Chain,
            "fenced" => Class::Fenced,
            "bug" => Class::Bug,
            "cancelled" => Class::Cancelled,
            "interrupted" => Class::Interrupted,
            // "permanent", and what this version does not know.
            _ => Class::Permanent,
        }
    }
}

/// Why a step did not do its work: a class to act on, a stable code, and words for people.
///
/// ```
/// use fsm_core::{Class, Fault};
///
/// let fault = Fault::user("target.exists", "`orders.db` is already there")
///     .advise("choose another path, or ask to overwrite");
/// assert_eq!(fault.class(), Class::User);
/// assert!(!fault.is_retryable());
/// assert_eq!(fault.to_string(), "`orders.db` is already there (target.exists)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    class: Class,
    code: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chain: Vec<String>,
}

impl Fault {
    /// A fault of `class`. `code` is stable and machine-readable (`target.exists`); `message` is
    /// lower case, without a final stop, and names what failed on what.
    pub fn new(class: Class, code: impl Into<String>, message: impl Into<String>) -> Self {
        let (code, message) = (code.into(), message.into());
        Fault { class, code, message, advice: None, retry_after_ms: None, chain: Vec::new() }
    }

    /// A fault of class [`Class::Retryable`].
    pub fn retryable(code: impl Into<String>, message: impl Into<String>) -> Self {
        Fault::new(Class::Retryable, code, message)
    }

    /// A fault of class [`Class::User`].
    pub fn user(code: impl Into<String>, message: impl Into<String>) -> Self {
        Fault::new(Class::User, code, message)
    }

    /// A fault of class [`Class::Permanent`].
    pub fn permanent(code: impl Into<String>, message: impl Into<String>) -> Self {
        Fault::new(Class::Permanent, code, message)
    }

    /// A fault of class [`Class::Bug`].
    pub fn bug(code: impl Into<String>, message: impl Into<String>) -> Self {
        Fault::new(Class::Bug, code, message)
    }

    /// A fault of class [`Class::Cancelled`].
    pub fn cancelled() -> Self {
        Fault::new(Class::Cancelled, "cancelled", "the step was asked to stop")
    }

    /// The same, with what whoever asked for it said.
    pub(crate) fn cancelled_because(reason: &String) -> Self {
        Fault::new(Class::Cancelled, "cancelled", reason)
    }

    /// A fault of class [`Class::Interrupted`].
    pub fn interrupted(message: impl Into<String>) -> Self {
        Fault::new(Class::Interrupted, "interrupted", message)
    }

    /// Says what somebody can do about it.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Asks that the next attempt wait at least this long, whatever the state's policy says.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Appends `error` and its sources, as text.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.chain.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// What the fault asks for.
    pub fn class(&self) -> Class {
        self.class
    }

    /// A stable, machine-readable name of what failed.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What failed, on what, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What somebody can do about it.
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// The shortest wait before another attempt makes sense.
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after_ms.map(Duration::from_millis)
    }

    /// The causes, nearest first.
    pub fn chain(&self) -> &[String] {
        &self.chain
    }

    /// Whether the same step may succeed later without anyone's help.
    pub fn is_retryable(&self) -> bool {
        self.class == Class::Retryable
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl StdError for Fault {}

/// An I/O error without a subject: classes by what the operating system said.
impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let (class, code) = match error.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => (Class::User, "io.full"),
            Kind::NotFound => (Class::User, "io.not_found"),
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => (Class::User, "io.denied"),
            Kind::AlreadyExists => (Class::User, "io.exists"),
            Kind::InvalidData | Kind::UnexpectedEof => (Class::Permanent, "io.damaged"),
            _ => (Class::Retryable, "io"),
        };
        Fault::new(class, code, error.to_string())
    }
}
