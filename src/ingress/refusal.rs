//! Why a call comes to nothing.

use fsm_core::Fault;

use crate::Error;

/// What the host's log is told, and what the caller is.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// A stable code.
    pub(crate) code: String,
    /// Why, for people.
    pub(crate) why: String,
    /// What is written to the caller; empty to only hang up.
    pub(crate) answer: Vec<u8>,
}

impl Refusal {
    pub(crate) fn new(code: impl Into<String>, why: impl Into<String>) -> Self {
        Refusal { code: code.into(), why: why.into(), answer: Vec::new() }
    }

    /// The workload has broken its contract.
    pub(crate) fn broken(why: impl Into<String>) -> Self {
        Refusal::new("plugin.contract", why)
    }

    /// The engine takes no new work.
    pub(crate) fn stopped() -> Self {
        Refusal::new("engine.stopped", "the engine is shutting down")
    }

    /// The caller is told `answer`.
    pub(crate) fn telling(mut self, answer: Vec<u8>) -> Self {
        self.answer = answer;
        self
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::from(error.fault())
    }
}

impl From<&Fault> for Refusal {
    fn from(fault: &Fault) -> Self {
        Refusal::new(fault.code(), fault.to_string())
    }
}
