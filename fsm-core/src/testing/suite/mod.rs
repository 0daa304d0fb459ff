//! The contract of a journal as tests: what every implementer runs.
//!
//! **How.** A behaviour is a sentence of [`Journal`]'s contract and a function that tries it on an
//! empty medium of its own. All of them are tried, so that one failure does not hide others.

mod appending;
mod bench;
mod damaged;
mod forgetting;
mod reading;

use std::{collections::BTreeMap, error::Error as StdError, fmt};

use self::bench::{AnyMedium, Bench, Tried};
use super::Medium;

/// One sentence of the contract.
struct Behaviour {
    name: &'static str,
    says: &'static str,
    test: fn(&Bench<'_>) -> Tried,
}

/// Tries whether the journals on the media that `fresh` makes keep the contract of
/// [`Journal`](crate::Journal). Each behaviour gets an empty medium of its own, and opens it as
/// often as it likes, one journal at a time.
///
/// ```
/// use fsm_core::{MemoryJournal, testing::journal_suite};
///
/// let report = journal_suite(|| {
///     let journal = MemoryJournal::new();
///     move || journal.clone()
/// })?;
/// println!("{report}");
/// # Ok::<(), fsm_core::testing::SuiteFailure>(())
/// ```
///
/// # Errors
///
/// [`SuiteFailure`] names every behaviour that the journal does not have.
pub fn journal_suite<M: Medium>(fresh: impl Fn() -> M) -> Result<SuiteReport, SuiteFailure> {
    let (mut kept, mut not_tried, mut broken) = (Vec::new(), Vec::new(), BTreeMap::new());
    let groups = [appending::ALL, reading::ALL, forgetting::ALL, damaged::ALL];
    for behaviour in groups.into_iter().flatten() {
        let medium = fresh();
        match (behaviour.test)(&Bench::new(&medium as &dyn AnyMedium)) {
            Tried::Kept => kept.push(behaviour.name),
            Tried::Skipped => not_tried.push(behaviour.name),
            Tried::Broken(how) => {
                broken.insert(behaviour.name, format!("{}: {how}", behaviour.says));
            }
        }
    }
    match broken.is_empty() {
        true => Ok(SuiteReport { kept, not_tried }),
        false => Err(SuiteFailure { broken }),
    }
}

/// What a journal that passed has kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuiteReport {
    kept: Vec<&'static str>,
    not_tried: Vec<&'static str>,
}

impl SuiteReport {
    /// The names of the behaviours that were tried.
    pub fn kept(&self) -> &[&'static str] {
        &self.kept
    }

    /// The names of those that were not, as the medium cannot be damaged.
    pub fn not_tried(&self) -> &[&'static str] {
        &self.not_tried
    }
}

impl fmt::Display for SuiteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} behaviours kept", self.kept.len())?;
        if !self.not_tried.is_empty() {
            write!(f, ", not tried: {}", self.not_tried.join(", "))?;
        }
        Ok(())
    }
}

/// What a journal does not keep.
///
/// Its `Debug` form is its `Display` form: a test that unwraps it shows something to read.
#[derive(Clone, PartialEq, Eq)]
pub struct SuiteFailure {
    broken: BTreeMap<&'static str, String>,
}

impl SuiteFailure {
    /// The names of the behaviours that the journal does not have.
    pub fn broken(&self) -> impl Iterator<Item = &'static str> {
        self.broken.keys().copied()
    }

    /// What the journal did instead of the behaviour `name`.
    pub fn how(&self, name: &str) -> Option<&str> {
        self.broken.get(name).map(String::as_str)
    }
}

impl fmt::Display for SuiteFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the journal breaks {} behaviours", self.broken.len())?;
        for (name, how) in &self.broken {
            write!(f, "\n  {name}: {how}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SuiteFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for SuiteFailure {}
