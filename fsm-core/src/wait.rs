//! What a state waits for before its step runs: data, in the graph.

use std::time::Duration;

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    signals: &'static [&'static str],
    children: bool,
    at_most: Option<Duration>,
}

impl Wait {
    /// For nothing: the step runs at once.
    pub const NONE: Wait = Wait { signals: &[], children: false, at_most: None };

    /// For any one of the signals `names` ([`Signal::NAME`](crate::Signal::NAME)).
    pub const fn for_signals(names: &'static [&'static str]) -> Self {
        Wait { signals: names, ..Wait::NONE }
    }

    /// For the end of every child that the run has spawned.
    pub const fn for_children() -> Self {
        Wait { children: true, ..Wait::NONE }
    }

    /// Also for the end of every child, whichever comes first.
    #[must_use]
    pub const fn or_children(mut self) -> Self {
        self.children = true;
        self
    }

    /// No longer than this, counted from the entry into the state. The step then runs without
    /// what it waited for.
    #[must_use]
    pub const fn at_most(mut self, longest: Duration) -> Self {
        self.at_most = Some(longest);
        self
    }

    /// The wait as the graph keeps it; `None` if there is nothing to wait for.
    pub(crate) fn info(&self) -> Option<WaitInfo> {
        let for_nothing = self.signals.is_empty() && !self.children;
        (!for_nothing).then(|| WaitInfo {
            signals: self.signals.iter().map(|&name| name.to_owned()).collect(),
            children: self.children,
            at_most_ms: self.at_most.map(|at_most| at_most.as_millis() as u64),
        })
    }
}

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
}
