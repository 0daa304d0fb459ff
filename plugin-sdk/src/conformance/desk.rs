//! Where the calls of steps to their host are counted, and one of them is disturbed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use fsm_core::Fault;

/// A place in a play where a step asks its host for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Crossing {
    /// What it asks for: the name of a call, or of what is done with a stream.
    pub(super) op: String,
    /// The state whose step asks.
    pub(super) state: String,
    /// Which step of the play that is, counted from 1.
    pub(super) step: usize,
}

/// Before a call has done its work, or after that, when nobody has heard of it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Before,
    After,
}

impl Moment {
    pub(super) const BOTH: [Moment; 2] = [Moment::Before, Moment::After];
}

/// What happens to one call of a play.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Blow {
    /// The process dies.
    Kill(Moment),
    /// The run is asked to stop, and then the call is answered.
    Cancel,
    /// The call is answered with a fault.
    Fail(Moment, Fault),
    /// The host panics.
    Panic,
    /// Something else is done first.
    Meet,
}

/// The calls of one play, over all of its processes.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Which call is disturbed, counted from 1, and how.
    blow: Option<(usize, Blow)>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    crossings: Vec<Crossing>,
    steps: usize,
    /// The call at which the blow fell.
    struck: Option<usize>,
    panics: Vec<String>,
}

impl Desk {
    pub(super) fn new(blow: Option<(usize, Blow)>) -> Self {
        Desk { blow, seen: Mutex::default() }
    }

    /// A step begins; the answer is its number.
    pub(super) fn step(&self) -> usize {
        let mut seen = self.seen();
        seen.steps += 1;
        seen.steps
    }

    /// A step asks for something; the answer is what becomes of it.
    pub(super) fn enter(&self, crossing: Crossing) -> Option<Blow> {
        let mut seen = self.seen();
        seen.crossings.push(crossing);
        let number = seen.crossings.len();
        let (_, blow) = self.blow.as_ref().filter(|(at, _)| *at == number)?;
        seen.struck = Some(number);
        Some(blow.clone())
    }

    /// The plugin has panicked.
    pub(super) fn panicked(&self, text: String) {
        self.seen().panics.push(text);
    }

    pub(super) fn crossings(&self) -> Vec<Crossing> {
        self.seen().crossings.clone()
    }

    pub(super) fn panics(&self) -> Vec<String> {
        self.seen().panics.clone()
    }

    /// How often the disturbed step has asked for something after the blow.
    pub(super) fn asked_after_blow(&self) -> usize {
        let seen = self.seen();
        let Some(struck) = seen.struck else { return 0 };
        let step = seen.crossings[struck - 1].step;
        seen.crossings[struck..].iter().filter(|crossing| crossing.step == step).count()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // No code that can panic runs under this lock.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
