//! What a state waits for before its step runs: data, in the graph.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// What a run waits for in a state before the state's step runs.
///
/// A run that waits is a row: no task, no thread, no place among the steps that may run at a time.
/// The step runs once one of the named signals is there, or all children have ended, or the
/// longest wait is over; the step finds out which with
/// [`Context::take`](crate::Context::take) and [`Context::children`](crate::Context::children).
///
/// ```
/// use fsm_core::Wait;
/// use std::time::Duration;
///
/// const APPROVAL: Wait = Wait::for_signals(&["approval"]).at_most(Duration::from_secs(3600));
/// ```
///
/// A wait for nothing (no signal, or a time alone) is refused by [`check!`](crate::check!) and by
/// [`Graph::validate`](crate::Graph::validate); to wait for a time there is
/// [`go_at`](crate::go_at).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// `None` if signals were never asked for: an empty list is a mistake.
    signals: Option<&'static [&'static str]>,
    children: bool,
    at_most: Option<Duration>,
}

impl Wait {
    /// For nothing: the step runs at once.
    pub const NONE: Wait = Wait { signals: None, children: false, at_most: None };

    /// For any one of the signals `names` ([`Signal::NAME`](crate::Signal::NAME)).
    pub const fn for_signals(names: &'static [&'static str]) -> Self {
        Wait { signals: Some(names), ..Wait::NONE }
    }

    /// For the end of every child that the run has spawned; without any there is no wait.
    pub const fn for_children() -> Self {
        Wait { children: true, ..Wait::NONE }
    }

    /// Also for the end of every child, whichever comes first.
    #[must_use]
    pub const fn or_children(mut self) -> Self {
        self.children = true;
        self
    }

    /// No longer than this, counted from the entry into the state by the wall clock: one that is set
    /// back prolongs the wait. The step then runs without what it waited for.
    #[must_use]
    pub const fn at_most(mut self, longest: Duration) -> Self {
        self.at_most = Some(longest);
        self
    }

    /// The wait as the graph keeps it; `None` if the state does not wait.
    pub(crate) fn info(&self) -> Option<WaitInfo> {
        (*self != Wait::NONE).then(|| WaitInfo {
            signals: self.signals.unwrap_or_default().iter().map(|&name| name.to_owned()).collect(),
            children: self.children,
            at_most_ms: self.at_most.map(|at_most| at_most.as_millis() as u64),
        })
    }

    pub(crate) const fn is_none(&self) -> bool {
        self.signals.is_none() && !self.children && self.at_most.is_none()
    }

    /// What is wrong with the wait, if anything is.
    pub(crate) const fn mistake(&self) -> Option<&'static str> {
        let Some(signals) = self.signals else {
            let for_a_time_alone = !self.children && self.at_most.is_some();
            return if for_a_time_alone { Some(FOR_A_TIME_ALONE) } else { None };
        };
        if signals.is_empty() {
            return Some(FOR_NO_SIGNAL);
        }
        let mut i = 0;
        while i < signals.len() {
            if signals[i].is_empty() {
                return Some(NAMELESS_SIGNAL);
            }
            i += 1;
        }
        None
    }
}

const FOR_A_TIME_ALONE: &str =
    "it waits for nothing but a time; move to it with `go_at`, which waits for a time";
const FOR_NO_SIGNAL: &str = "it waits for a signal and names none";
const NAMELESS_SIGNAL: &str = "it waits for a signal with an empty name";

/// A [`Wait`] as part of a [`Graph`](crate::Graph).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WaitInfo {
    /// The names of the signals, any one of which ends the wait.
    #[serde(default)]
    pub signals: Vec<String>,
    /// Whether the wait ends when all children have.
    #[serde(default)]
    pub children: bool,
    /// The longest wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most_ms: Option<u64>,
}

impl WaitInfo {
    /// The longest wait.
    pub fn at_most(&self) -> Option<Duration> {
        self.at_most_ms.map(Duration::from_millis)
    }

    /// What is wrong with the wait, if anything is.
    pub(crate) fn mistake(&self) -> Option<&'static str> {
        if self.signals.is_empty() && !self.children {
            return Some("it waits for nothing");
        }
        self.signals.iter().any(String::is_empty).then_some(NAMELESS_SIGNAL)
    }
}

/// For people, as part of a sentence: `approval or all children, at most 90 min`.
impl fmt::Display for WaitInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let children = self.children.then_some("all children");
        for (index, awaited) in self.signals.iter().map(String::as_str).chain(children).enumerate()
        {
            let separator = if index == 0 { "" } else { " or " };
            write!(f, "{separator}{awaited}")?;
        }
        match self.at_most_ms {
            None => Ok(()),
            Some(ms) if ms > 0 && ms % 3_600_000 == 0 => {
                write!(f, ", at most {} h", ms / 3_600_000)
            }
            Some(ms) if ms > 0 && ms % 60_000 == 0 => write!(f, ", at most {} min", ms / 60_000),
            Some(ms) if ms % 1_000 == 0 => write!(f, ", at most {} s", ms / 1_000),
            Some(ms) => write!(f, ", at most {ms} ms"),
        }
    }
}
