//! The task of one run: step, record, step, until the run ends.

use std::{sync::Arc, time::Duration};

use futures::channel::{mpsc, oneshot};

use super::{
    Entry, Inner, Registered, RuntimeError, RuntimeErrorKind, deadline::Deadline, handle::Ended,
    place::Place,
};
use crate::{
    Body, Cancel, Class, Data, EffectLog, End, Ending, Fault, Record, RunEvent, RunSnapshot,
    StateInfo, Status, StepKind, Timestamp, Verdict,
};

/// The wait after a first interruption; it doubles with each one that follows.
const INTERRUPTED_WAIT: Duration = Duration::from_secs(1);
/// No wait after an interruption is longer.
const INTERRUPTED_WAIT_MAX: Duration = Duration::from_secs(60);

/// What others ask of a run's task. A dropped `done` says that the task has gone, or that the
/// request is void.
pub(super) enum Command {
    /// A step is about to run an effect.
    Intent { attempt: u64, effect: String, done: oneshot::Sender<()> },
    /// Somebody asks the run to stop.
    Cancel { reason: String, done: oneshot::Sender<()> },
    /// An operator lets a paused run continue.
    Unpause { done: oneshot::Sender<()> },
    /// The process wants to end.
    Stop,
}

/// Why a task ends before its run does.
pub(super) enum Halt {
    Stopped,
    Journal(RuntimeError),
    Quarantined(String),
}

impl From<RuntimeError> for Halt {
    fn from(error: RuntimeError) -> Self {
        Halt::Journal(error)
    }
}

/// What the state is asked next, unless the run is cancelled.
enum Next {
    Run,
    Interrupted,
    Exhausted(Fault),
}

pub(super) struct Drive {
    pub(super) inner: Arc<Inner>,
    pub(super) registered: Registered,
    pub(super) snapshot: RunSnapshot,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) inbox: mpsc::UnboundedReceiver<Command>,
    /// Attempts that this task has made; tells a late intent of an old one apart.
    pub(super) attempt: u64,
    next: Next,
    /// Interruptions since the state was entered or last answered.
    interruptions: u32,
    /// After an interruption: not before this.
    pub(super) pause: Option<Deadline>,
    // In this order: who hears of the end finds the run's place free.
    place: Place,
    ended: oneshot::Sender<Ended>,
}

impl Drive {
    pub(super) fn new(
        registered: Registered,
        snapshot: RunSnapshot,
        entry: Entry,
        (commands, inbox): (mpsc::UnboundedSender<Command>, mpsc::UnboundedReceiver<Command>),
        place: Place,
        ended: oneshot::Sender<Ended>,
    ) -> Self {
        let next = match entry {
            Entry::Fresh => Next::Run,
            Entry::Interrupted => Next::Interrupted,
        };
        let inner = Arc::clone(place.inner());
        let (attempt, interruptions, pause) = (0, 0, None);
        Drive {
            inner,
            registered,
            snapshot,
            commands,
            inbox,
            attempt,
            next,
            interruptions,
            pause,
            place,
            ended,
        }
    }

    /// Drives the run to its end, tells everybody, and forgets the task.
    pub(super) async fn until_end(mut self) {
        let run = self.snapshot.run.clone();
        let end = match self.drive().await {
            Ok(end) => {
                self.inner.observer.observe(&run, RunEvent::Ended(end.clone()));
                Ok(end)
            }
            Err(Halt::Stopped) => Err(RuntimeError::new(RuntimeErrorKind::Stopped, run.as_str())),
            Err(Halt::Journal(error)) => {
                tracing::error!(%run, %error, "the run stands still");
                self.inner.observer.observe(&run, RunEvent::Stalled(error.to_string()));
                Err(error)
            }
            Err(Halt::Quarantined(why)) => {
                tracing::warn!(%run, why, "the run is quarantined");
                self.inner.observer.observe(&run, RunEvent::Quarantined(why.clone()));
                Err(RuntimeError::new(RuntimeErrorKind::Quarantined, why))
            }
        };
        let Drive { place, ended, .. } = self;
        drop(place);
        // Nobody may be waiting.
        let _ = ended.send(end.map_err(Arc::new));
    }

    async fn drive(&mut self) -> Result<End, Halt> {
        loop {
            // A step that is ready at once must not keep the thread, nor the inbox waiting.
            yield_once().await;
            if !matches!(self.snapshot.status, Status::Ended(..)) {
                self.serve_queued().await?;
            }
            let machine = Arc::clone(&self.registered.machine);
            let Some(state) = machine.graph().state(&self.snapshot.state) else {
                let state = &self.snapshot.state;
                return Err(Halt::Quarantined(format!("it is in the unknown state `{state}`")));
            };
            if let Some(ending) = state.ending {
                return self.finish(ending, None).await;
            }
            if let Status::Paused(_) = self.snapshot.status {
                self.wait(None).await?;
                continue;
            }
            let cancelled = self.cancelled(state);
            let now = self.inner.environment.now();
            if let Some(wait) = self.journaled_wait().filter(|_| !cancelled)
                && !wait.is_over(now)
            {
                // Whoever waits for a time runs no step, so nothing was interrupted.
                self.next = Next::Run;
                self.wait(Some(wait.at())).await?;
                continue;
            }
            self.snapshot.wake_at = None;
            if let Some(pause) = self.pause.filter(|pause| !pause.is_over(now)) {
                self.wait(Some(pause.at())).await?;
                continue;
            }
            if let Some(end) = self.step(state, cancelled).await? {
                return Ok(end);
            }
        }
    }

    /// The time that the state's step waits for, by the journal.
    fn journaled_wait(&self) -> Option<Deadline> {
        let at = self.snapshot.wake_at?;
        // After a failed attempt it is so long a wait; after an entry, a time that the author
        // chose.
        let retries = self.snapshot.attempts > 0;
        Some(if retries { Deadline::since(self.snapshot.at, at) } else { Deadline::wall(at) })
    }

    /// Whether a request to cancel is to be delivered in `state`.
    fn cancelled(&self, state: &StateInfo) -> bool {
        self.snapshot.carried.cancel.is_some() && state.cancel == Cancel::Deliver
    }

    /// Calls the state once and records what came of it.
    async fn step(&mut self, state: &StateInfo, cancelled: bool) -> Result<Option<End>, Halt> {
        let kind = if cancelled {
            StepKind::Cancel
        } else {
            match std::mem::replace(&mut self.next, Next::Run) {
                Next::Run => StepKind::Run,
                Next::Interrupted => StepKind::Interrupted,
                Next::Exhausted(fault) => StepKind::Exhausted(fault),
            }
        };
        let outcome = self.call(kind.clone(), state).await?;
        let effects = results(outcome.effects);
        let fault = match outcome.verdict {
            Verdict::Again if kind == StepKind::Interrupted => {
                self.write(effects).await?;
                return Ok(None);
            }
            Verdict::Again => {
                Fault::bug("state.again", "only the edge for interruptions may run the state again")
            }
            Verdict::Go { state: next, data, wake_at } => {
                if self.registered.machine.graph().allows(&state.name, &next) {
                    if cancelled {
                        // A request is delivered once: its edge settles it.
                        self.snapshot.carried.cancel = None;
                    }
                    return self.enter(next, data, wake_at, effects).await.map(|()| None);
                }
                let text =
                    format!("state `{}` does not declare the successor `{next}`", state.name);
                Fault::bug("state.undeclared", text)
            }
            Verdict::Fault(fault) => fault,
        };
        self.write(effects).await?;
        self.failed(kind, state, fault).await
    }

    /// Decides what follows a call that did not lead to another state.
    async fn failed(
        &mut self,
        kind: StepKind,
        state: &StateInfo,
        fault: Fault,
    ) -> Result<Option<End>, Halt> {
        if kind != StepKind::Cancel && self.cancelled(state) {
            // Stopped because it was asked to: the next round takes the edge for that.
            return Ok(None);
        }
        if fault.class() == Class::Interrupted {
            self.interrupted(kind);
            return Ok(None);
        }
        self.interruptions = 0;
        match kind {
            // The state names no edge, or a wrong one.
            StepKind::Cancel => return self.finish(Ending::Cancelled, Some(fault)).await.map(Some),
            StepKind::Exhausted(_) => {
                return self.finish(Ending::Failed, Some(fault)).await.map(Some);
            }
            StepKind::Run | StepKind::Interrupted => {}
        }
        let attempt = self.snapshot.attempts + 1;
        let again = kind == StepKind::Run && attempt < state.retry.attempts();
        if fault.is_retryable() && again {
            let drawn = state.retry.jittered_wait(attempt, self.inner.environment.random());
            let wait = fault.wait().map_or(drawn, |least| drawn.max(least));
            let next_at = self.inner.environment.now() + wait;
            let event = RunEvent::AttemptFailed { attempt, fault: fault.clone() };
            self.write(vec![Body::Attempt { attempt, fault, next_at }]).await?;
            self.inner.observer.observe(&self.snapshot.run, event);
        } else if fault.is_retryable() && state.retry.pauses() {
            self.write(vec![Body::Pause { fault: fault.clone() }]).await?;
            self.inner.observer.observe(&self.snapshot.run, RunEvent::Paused(fault));
        } else {
            self.next = Next::Exhausted(fault);
        }
        Ok(None)
    }

    /// Whoever ran the call died in it: the same is asked again after a wait that grows.
    fn interrupted(&mut self, kind: StepKind) {
        self.next = match kind {
            StepKind::Exhausted(fault) => Next::Exhausted(fault),
            _ => Next::Interrupted,
        };
        let factor = 2u32.saturating_pow(self.interruptions);
        let wait = INTERRUPTED_WAIT.saturating_mul(factor).min(INTERRUPTED_WAIT_MAX);
        self.interruptions = self.interruptions.saturating_add(1);
        self.pause = Some(Deadline::after(self.inner.environment.now(), wait));
    }

    /// Moves to `next`, durably.
    async fn enter(
        &mut self,
        next: String,
        data: Data,
        wake_at: Option<Timestamp>,
        mut bodies: Vec<Body>,
    ) -> Result<(), Halt> {
        let graph = self.registered.machine.graph();
        let carried = self.snapshot.carried.clone();
        let entry = self.snapshot.entry + 1;
        bodies.push(Body::Enter {
            entry,
            machine: graph.machine.clone(),
            version: graph.version,
            origin: self.registered.origin.clone(),
            graph: self.registered.fingerprint.clone(),
            state: next.clone(),
            data,
            wake_at,
            carried,
        });
        // Entering a terminal state and ending are one durable write.
        let ending = graph.state(&next).and_then(|state| state.ending);
        if let Some(ending) = ending {
            bodies.push(Body::End { ending, fault: None });
        }
        self.write(bodies).await?;
        (self.next, self.interruptions, self.pause) = (Next::Run, 0, None);
        tracing::debug!(run = %self.snapshot.run, state = next, entry, "entered");
        let event = RunEvent::Entered { state: next, entry };
        self.inner.observer.observe(&self.snapshot.run, event);
        Ok(())
    }

    async fn finish(&mut self, ending: Ending, fault: Option<Fault>) -> Result<End, Halt> {
        if !matches!(self.snapshot.status, Status::Ended(..)) {
            self.write(vec![Body::End { ending, fault: fault.clone() }]).await?;
        }
        let (state, data) = (self.snapshot.state.clone(), self.snapshot.data.clone());
        Ok(End { ending, state, data, fault })
    }

    /// Makes `bodies` durable, all or none, and folds them into the snapshot.
    pub(super) async fn write(&mut self, bodies: Vec<Body>) -> Result<(), Halt> {
        if bodies.is_empty() {
            return Ok(());
        }
        let at = self.inner.environment.now();
        let (run, first) = (&self.snapshot.run, self.snapshot.seq + 1);
        let records: Vec<Record> = (first..)
            .zip(bodies)
            .map(|(seq, body)| Record { run: run.clone(), seq, at, body })
            .collect();
        let written = self.inner.journal.append(records.clone()).await;
        written.map_err(RuntimeError::from)?;
        for record in records {
            self.snapshot.apply(record).map_err(Halt::Quarantined)?;
        }
        Ok(())
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

/// Lets whoever else is ready run first.
async fn yield_once() {
    let mut yielded = false;
    futures::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
