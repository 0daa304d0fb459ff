//! What a task knows of a run beside the journal.

use std::time::Duration;

use super::deadline::Deadline;
use crate::{Fault, StepKind, Timestamp};

/// The wait after a first interruption; it doubles with each one that follows.
const INTERRUPTED_WAIT: Duration = Duration::from_secs(1);
/// No wait after an interruption is longer.
const INTERRUPTED_WAIT_MAX: Duration = Duration::from_secs(60);

/// How to go on with a run: what this process knows of it and the journal does not. The default
/// is a state that nothing has been asked of yet.
#[derive(Debug, Default)]
pub(super) struct Cue {
    pub(super) next: Next,
    /// Interruptions since the state was entered or last answered.
    pub(super) interruptions: u32,
    /// After an interruption: not before this.
    pub(super) pause: Option<Deadline>,
    /// Whether its children have been asked to stop.
    pub(super) cascaded: bool,
    /// Whether it waits for a journal that could not take a record.
    pub(super) stalled: bool,
    /// Its place in line, if a command took it out of there.
    pub(super) ticket: Option<u64>,
}

/// What the state is asked next, unless the run is cancelled.
#[derive(Debug, Default)]
pub(super) enum Next {
    #[default]
    Run,
    Interrupted,
    Exhausted(Box<Fault>),
}

impl Cue {
    /// A step may have run in the state, in a process that is gone.
    pub(super) fn interrupted() -> Self {
        Cue { next: Next::Interrupted, ..Cue::default() }
    }

    /// Whether the journal says as much.
    pub(super) fn is_default(&self) -> bool {
        let Cue { next, interruptions, pause, cascaded, stalled, ticket } = self;
        let waits = pause.is_some() || ticket.is_some();
        matches!(next, Next::Run) && *interruptions == 0 && !waits && !cascaded && !stalled
    }

    pub(super) fn is_exhausted(&self) -> bool {
        matches!(self.next, Next::Exhausted(_))
    }

    /// What is asked now; the time after is an ordinary one unless something else is said.
    pub(super) fn take_kind(&mut self) -> StepKind {
        match std::mem::take(&mut self.next) {
            Next::Run => StepKind::Run,
            Next::Interrupted => StepKind::Interrupted,
            Next::Exhausted(fault) => StepKind::Exhausted(*fault),
        }
    }

    /// Whoever ran a call of `kind` died in it: the same is asked again after a wait that grows.
    pub(super) fn was_interrupted(&mut self, kind: StepKind, now: Timestamp) {
        self.next = match kind {
            StepKind::Exhausted(fault) => Next::Exhausted(Box::new(fault)),
            _ => Next::Interrupted,
        };
        self.wait_longer(now);
    }

    /// Nothing is asked before a wait that grows.
    pub(super) fn wait_longer(&mut self, now: Timestamp) {
        let factor = 2u32.saturating_pow(self.interruptions);
        let wait = INTERRUPTED_WAIT.saturating_mul(factor).min(INTERRUPTED_WAIT_MAX);
        self.interruptions = self.interruptions.saturating_add(1);
        self.pause = Some(Deadline::after(now, wait));
    }
}
