//! What came of a call: what is recorded of it, and what follows.

use super::{
    RuntimeErrorKind,
    cue::Next,
    drive::{Drive, Halt, Move},
    due::is_cancelled,
};
use crate::{
    Body, Carried, Class, EffectLog, Ending, Fault, JournalErrorKind, Outcome, RunEvent,
    RunSnapshot, StateInfo, StepKind, Timestamp, Verdict,
};

/// What a journal says to a record that it has no room for, and never will.
pub(super) const TOO_LONG: RuntimeErrorKind = RuntimeErrorKind::Journal(JournalErrorKind::TooLong);

impl Drive {
    /// Records what came of a call.
    pub(super) async fn record(
        &mut self,
        kind: StepKind,
        outcome: Option<Outcome>,
        state: &StateInfo,
    ) -> Result<(), Halt> {
        // Given up by an operator in the middle of it.
        let Some(outcome) = outcome else { return Ok(()) };
        let Outcome { effects, taken, spawned, verdict } = outcome;
        let effects = results(effects);
        let fault = match verdict {
            Verdict::Again if kind == StepKind::Interrupted => {
                match too_long(self.write(effects.clone()).await)? {
                    None => return Ok(()),
                    Some(fault) => fault,
                }
            }
            Verdict::Again => {
                Fault::bug("state.again", "only the edge for interruptions may run the state again")
            }
            Verdict::Go { state: next, data, wake_at } => {
                if self.registered.machine.graph().allows(&state.name, &next) {
                    let carried = self.taken_along(&kind, &taken, state);
                    let moved = Move { next, data, wake_at, carried };
                    match self.births(spawned) {
                        Ok(births) => match self.enter(moved, &effects, births).await? {
                            None => return Ok(()),
                            Some(fault) => fault,
                        },
                        Err(fault) => fault,
                    }
                } else {
                    let text =
                        format!("state `{}` does not declare the successor `{next}`", state.name);
                    Fault::bug("state.undeclared", text)
                }
            }
            // The input of a run is its starter's; all else was written by a machine, which can be
            // there again.
            Verdict::Unreadable(fault) if !self.is_own_input() => {
                return Err(Halt::Quarantined(fault.to_string()));
            }
            Verdict::Quarantine(fault) => return Err(Halt::Quarantined(fault.to_string())),
            Verdict::Unreadable(fault) | Verdict::Fault(fault) => fault,
        };
        self.failed(kind, state, fault, effects).await
    }

    /// Whether the state's data are what this very machine was started with.
    fn is_own_input(&self) -> bool {
        let RunSnapshot { entry, graph, origin, .. } = &self.snapshot;
        let registered = &self.registered;
        *entry == 1 && *graph == registered.fingerprint && *origin == registered.origin
    }

    /// What the run takes along to the next state.
    fn taken_along(&self, kind: &StepKind, taken: &[String], state: &StateInfo) -> Box<Carried> {
        let mut carried = self.snapshot.carried.clone();
        if *kind == StepKind::Cancel {
            // A request is delivered once: its edge settles it.
            carried.cancel = None;
        }
        carried.signals.retain(|signal| !taken.contains(&signal.id));
        if state.wait.as_ref().is_some_and(|wait| wait.children) {
            carried.children.retain(|child| !self.seen.contains(&child.run));
        }
        carried
    }

    /// Records a call that did not lead to another state, with the results of its `effects`, and
    /// decides what follows.
    pub(super) async fn failed(
        &mut self,
        kind: StepKind,
        state: &StateInfo,
        fault: Fault,
        effects: Vec<Body>,
    ) -> Result<(), Halt> {
        match too_long(self.follow(kind.clone(), state, fault, effects).await)? {
            None => Ok(()),
            // Be it the results or the fault itself that is too long: both go.
            Some(fault) => self.follow(kind, state, fault, Vec::new()).await,
        }
    }

    async fn follow(
        &mut self,
        kind: StepKind,
        state: &StateInfo,
        fault: Fault,
        mut effects: Vec<Body>,
    ) -> Result<(), Halt> {
        let now = self.inner.environment.now();
        if kind != StepKind::Cancel && is_cancelled(&self.snapshot, state) {
            // Stopped because it was asked to: the next round takes the edge for that.
            return self.write(effects).await;
        }
        if fault.class() == Class::Interrupted {
            self.write(effects).await?;
            self.cue.was_interrupted(kind, now);
            return Ok(());
        }
        self.cue.interruptions = 0;
        let ending = match kind {
            // The state names no edge, or a wrong one.
            StepKind::Cancel => Some(Ending::Cancelled),
            StepKind::Exhausted(_) => Some(Ending::Failed),
            StepKind::Run | StepKind::Interrupted => None,
        };
        if let Some(ending) = ending {
            self.write(effects).await?;
            return self.finish(ending, Some(self.reason(fault))).await.map(|_| ());
        }
        match self.next_attempt(&kind, state, &fault, now) {
            Some((attempt, next_at)) => {
                let event = RunEvent::AttemptFailed { attempt, fault: fault.clone() };
                effects.push(Body::Attempt { attempt, fault, next_at });
                self.write(effects).await?;
                self.inner.tell(&self.snapshot.run, event);
            }
            None if state.retry.pauses(fault.is_retryable()) => {
                self.pause(effects, fault, true).await?;
            }
            None => {
                self.write(effects).await?;
                self.cue.next = Next::Exhausted(Box::new(fault));
            }
        }
        Ok(())
    }

    /// Which attempt has failed and when the next one begins, if there is to be one.
    fn next_attempt(
        &self,
        kind: &StepKind,
        state: &StateInfo,
        fault: &Fault,
        now: Timestamp,
    ) -> Option<(u32, Timestamp)> {
        let attempt = self.snapshot.attempts + 1;
        if *kind != StepKind::Run || !fault.is_retryable() || attempt >= state.retry.attempts() {
            return None;
        }
        let drawn = state.retry.jittered_wait(attempt, self.inner.environment.random());
        let next_at = now + fault.wait().map_or(drawn, |least| drawn.max(least));
        let in_time = state
            .retry
            .total_limit()
            .is_none_or(|limit| next_at < self.snapshot.counted_from + limit);
        in_time.then_some((attempt, next_at))
    }

    /// Whoever asked the run to stop said why; a state that has no edge for it cannot.
    fn reason(&self, fault: Fault) -> Fault {
        match &self.snapshot.carried.cancel {
            Some(reason) if fault == Fault::cancelled() => Fault::cancelled_because(reason),
            _ => fault,
        }
    }
}

/// The fault of a step that wants more recorded than the journal has room for; `None` if it is
/// `written`.
pub(super) fn too_long(written: Result<(), Halt>) -> Result<Option<Fault>, Halt> {
    match written {
        Err(Halt::Journal(error)) if error.kind() == TOO_LONG => {
            let message = "what the step wants recorded is longer than a record can be";
            let fault = Fault::permanent("record.too_long", message).caused_by(&error);
            Ok(Some(fault.advise("store what is large outside, and record its name")))
        }
        written => written.map(|()| None),
    }
}

/// The results of effects that are not in the journal yet.
fn results(effects: Vec<EffectLog>) -> Vec<Body> {
    let known = effects.into_iter();
    known
        .filter_map(|EffectLog { name, result }| {
            result.map(|data| Body::Result { effect: name, data })
        })
        .collect()
}
