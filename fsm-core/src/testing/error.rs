//! Why a trial failed.

use std::{error::Error as StdError, fmt};

/// Why a trial failed, coarsely enough to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrialErrorKind {
    /// The trial itself is wrong: an input without a serde form, an unknown machine, a schedule
    /// that cannot be read.
    Setup,
    /// Everything stands still, and no run will ever go on.
    Standstill,
    /// It goes on and on.
    Endless,
    /// A run's history is damaged or not sound.
    Unsound,
    /// The disturbed play differs from the undisturbed one.
    Different,
    /// What must always hold does not.
    Broken,
}

/// Why a trial failed, in which schedule, and how to play that schedule again.
///
/// Its `Debug` form is its `Display` form: a test that unwraps it shows something to read.
pub struct TrialError {
    /// Boxed, as it travels through every `Result` of a play.
    failure: Box<Failure>,
}

struct Failure {
    kind: TrialErrorKind,
    machine: String,
    what: String,
    details: Vec<(&'static str, String)>,
    schedule: String,
    told: String,
    seed: Option<u64>,
}

impl TrialError {
    pub(super) fn new(kind: TrialErrorKind, what: impl Into<String>) -> Self {
        let (machine, schedule, told) = Default::default();
        let (details, seed) = (Vec::new(), None);
        let what = what.into();
        let failure = Failure { kind, machine, what, details, schedule, told, seed };
        TrialError { failure: Box::new(failure) }
    }

    pub(super) fn detail(mut self, name: &'static str, detail: impl Into<String>) -> Self {
        self.failure.details.push((name, detail.into()));
        self
    }

    pub(super) fn of(
        mut self,
        machine: &str,
        schedule: &super::schedule::Schedule,
        seed: Option<u64>,
    ) -> Self {
        self.failure.machine = machine.to_owned();
        (self.failure.schedule, self.failure.told) = (schedule.to_string(), schedule.told());
        self.failure.seed = seed;
        self
    }

    /// The class of the error; match on this, with a `_` arm.
    pub fn kind(&self) -> TrialErrorKind {
        self.failure.kind
    }

    /// What is wrong, in words: "the end of `trial`", say.
    pub fn what(&self) -> &str {
        &self.failure.what
    }

    /// The schedule in which it went wrong, for [`Trial::replay`](super::Trial::replay).
    pub fn schedule(&self) -> &str {
        &self.failure.schedule
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (machine, what) = (&self.machine, &self.what);
        match self.kind {
            TrialErrorKind::Setup => write!(f, "{machine}: the trial cannot be played: {what}")?,
            TrialErrorKind::Standstill => write!(f, "{machine} stands still for ever")?,
            TrialErrorKind::Endless => write!(f, "{machine} does not come to an end")?,
            TrialErrorKind::Unsound => write!(f, "{machine}: the history is not sound: {what}")?,
            TrialErrorKind::Different => write!(f, "{machine}: not as undisturbed: {what}")?,
            TrialErrorKind::Broken => {
                write!(f, "{machine}: what must always hold does not: {what}")?
            }
        }
        if self.kind != TrialErrorKind::Setup {
            write!(f, "\n  when:     {}", self.told)?;
        }
        for (name, detail) in &self.details {
            write!(f, "\n  {:<9} {detail}", format!("{name}:"))?;
        }
        if self.kind == TrialErrorKind::Setup {
            return Ok(());
        }
        let seed = self.seed.map(|seed| format!(".seed({seed})")).unwrap_or_default();
        write!(f, "\n  replay:   {seed}.replay(\"{}\")", self.schedule)
    }
}

impl fmt::Display for TrialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.failure, f)
    }
}

impl fmt::Debug for TrialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.failure, f)
    }
}

impl StdError for TrialError {}
