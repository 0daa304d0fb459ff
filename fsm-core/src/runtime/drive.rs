//! One run at work: step, record, step, until it ends or waits.

use std::sync::Arc;

use futures::channel::mpsc;

use super::{
    RuntimeError, RuntimeErrorKind,
    attend::state_timeout,
    command::Command,
    cue::{Cue, Next},
    due::{Due, Later, due, is_out_of_time},
    family::Birth,
    inner::{Inner, Registered, Settled},
    outcome::too_long,
    permit::Permit,
};
use crate::{
    Body, Carried, Data, End, Ending, Fault, JournalErrorKind, Record, RunEvent, RunId,
    RunSnapshot, StateInfo, StepKind, Timestamp,
};

const CONFLICT: RuntimeErrorKind = RuntimeErrorKind::Journal(JournalErrorKind::Conflict);

/// Why a task ends before its run does.
pub(super) enum Halt {
    /// The run waits; its place is kept without a task.
    Parked,
    Stopped,
    /// There is no such run.
    Unknown,
    Journal(RuntimeError),
    Quarantined(String),
}

impl From<RuntimeError> for Halt {
    fn from(error: RuntimeError) -> Self {
        Halt::Journal(error)
    }
}

pub(super) struct Drive {
    pub(super) inner: Arc<Inner>,
    pub(super) registered: Registered,
    pub(super) snapshot: RunSnapshot,
    pub(super) cue: Cue,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) inbox: mpsc::UnboundedReceiver<Command>,
    permit: Option<Permit>,
    /// The children whose ends the step at work has seen.
    pub(super) seen: Vec<RunId>,
    /// Attempts that this task has made; tells a late intent of an old one apart.
    pub(super) attempt: u64,
    /// Whether one of them is at work.
    pub(super) at_work: bool,
}

impl Drive {
    pub(super) fn new(
        inner: Arc<Inner>,
        registered: Registered,
        snapshot: RunSnapshot,
        cue: Cue,
        (commands, inbox): (mpsc::UnboundedSender<Command>, mpsc::UnboundedReceiver<Command>),
        permit: Option<Permit>,
    ) -> Self {
        let (seen, attempt, at_work) = Default::default();
        Drive { inner, registered, snapshot, cue, commands, inbox, permit, seen, attempt, at_work }
    }

    pub(super) async fn until_end(&mut self) -> Result<End, Halt> {
        self.inner.table().quarantined.remove(&self.snapshot.run);
        self.look_at_wait();
        self.meet_parent().await?;
        self.meet_children().await?;
        loop {
            if let Some(end) = self.snapshot.end() {
                return Ok(end);
            }
            self.serve_queued().await?;
            // A step that is ready at once must not keep the thread, and whoever has just heard
            // of the run may want to say something before it goes on.
            yield_once().await;
            self.serve_queued().await?;
            if self.has_ended() {
                continue;
            }
            let machine = Arc::clone(&self.registered.machine);
            let Some(state) = machine.graph().state(&self.snapshot.state) else {
                let state = &self.snapshot.state;
                return Err(Halt::Quarantined(format!("it is in the unknown state `{state}`")));
            };
            if let Some(ending) = state.ending {
                if self.snapshot.graph == self.registered.fingerprint {
                    return self.finish(ending, None).await;
                }
                // A migration has led here, and what it made of the state is the result.
                let RunSnapshot { state: next, data, carried, .. } = self.snapshot.clone();
                let moved = Move { next, data, wake_at: None, carried };
                if let Some(fault) = self.enter(moved, &[], Vec::new()).await? {
                    return Err(Halt::Quarantined(fault.to_string()));
                }
                continue;
            }
            match due(&self.snapshot, state, &self.cue, self.inner.environment.now()) {
                Due::Deadline => self.expire().await?,
                Due::CancelChildren => self.cancel_children().await?,
                Due::Later(later) => self.park(later).await?,
                Due::Cancel => {
                    self.cancel_children().await?;
                    let outcome = self.call(StepKind::Cancel, state).await?;
                    self.record(StepKind::Cancel, outcome, state).await?;
                }
                Due::Call if !self.cue.is_exhausted() && self.is_out_of_time(state) => {
                    self.failed(StepKind::Run, state, state_timeout(), Vec::new()).await?;
                }
                Due::Call => {
                    if matches!(self.cue.next, Next::Run)
                        && !(self.enter_lane().await? && self.may_begin().await?)
                    {
                        continue;
                    }
                    self.snapshot.wake_at = None;
                    let kind = self.cue.take_kind();
                    let outcome = self.call(kind.clone(), state).await?;
                    self.record(kind, outcome, state).await?;
                }
            }
        }
    }

    /// What the journal shows to have waited until now was not interrupted.
    fn look_at_wait(&mut self) {
        let graph = self.registered.machine.graph();
        let state = graph.state(&self.snapshot.state).filter(|state| state.ending.is_none());
        let Some(state) = state.filter(|_| matches!(self.cue.next, Next::Interrupted)) else {
            return;
        };
        let now = self.inner.environment.now();
        if !self.has_ended()
            && let Due::Later(Later { untouched: true, .. }) =
                due(&self.snapshot, state, &self.cue, now)
        {
            self.cue.next = Next::Run;
        }
    }

    fn is_out_of_time(&self, state: &StateInfo) -> bool {
        is_out_of_time(&self.snapshot, state, self.inner.environment.now())
    }

    /// Puts the run aside until `later`, unless somebody asks something of it right now.
    async fn park(&mut self, later: Later) -> Result<(), Halt> {
        if later.untouched {
            // Whoever waits runs no step, so nothing was interrupted.
            self.cue.next = Next::Run;
        }
        let timed = later.at.is_some();
        let (cue, lane, mut first) = (&mut self.cue, self.registered.lane, false);
        let settled = self.inner.settle(&self.snapshot.run, &mut self.inbox, |table, run| {
            first = table.park(run, lane, later, std::mem::take(cue));
        });
        if timed {
            self.inner.put_aside(self.inner.environment.now(), first);
        }
        self.settled(settled).await
    }

    /// Takes a place among those at work; or gets in line, and then this task has to go.
    async fn enter_lane(&mut self) -> Result<bool, Halt> {
        let lane = self.registered.lane;
        if self.permit.is_none() {
            self.permit = Permit::try_enter(&self.inner, lane);
        }
        if self.permit.is_some() {
            return Ok(true);
        }
        let cue = &mut self.cue;
        let settled = self.inner.settle(&self.snapshot.run, &mut self.inbox, |table, run| {
            table.queue(run, lane, std::mem::take(cue));
        });
        self.inner.dispatch(lane);
        self.settled(settled).await.map(|()| false)
    }

    async fn settled(&mut self, settled: Settled) -> Result<(), Halt> {
        match settled {
            Settled::Away => Err(Halt::Parked),
            Settled::Stopping => Err(Halt::Stopped),
            Settled::Asked(command) => self.serve(Some(command)).await,
        }
    }

    /// Moves to the next state, durably, together with the children that are born with the move.
    /// Answers with the fault of a step whose children cannot be born, or that wants too much
    /// recorded.
    pub(super) async fn enter(
        &mut self,
        Move { next, data, wake_at, mut carried }: Move,
        effects: &[Body],
        births: Vec<Birth>,
    ) -> Result<Option<Fault>, Halt> {
        let graph = self.registered.machine.graph();
        let entry = self.snapshot.entry + 1;
        carried.children.extend(births.iter().map(|birth| birth.child.clone()));
        let mut bodies = effects.to_vec();
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
            // A run that has cleaned up after a request to stop says what it was asked.
            let asked = self.snapshot.carried.asked.as_ref();
            let fault = asked.filter(|_| ending == Ending::Cancelled).map(Fault::cancelled_because);
            bodies.push(Body::End { ending, fault });
        }
        let firsts = births.iter().map(|birth| birth.first.clone()).collect();
        match too_long(self.append(bodies, firsts).await) {
            Ok(None) => {}
            Ok(fault) => return Ok(fault),
            Err(Halt::Journal(error)) if error.kind() == CONFLICT => {
                let taken = self.taken(&births).await?;
                return taken.map_or(Err(Halt::Journal(error)), |fault| Ok(Some(fault)));
            }
            Err(halt) => return Err(halt),
        }
        self.cue = Cue::default();
        tracing::debug!(state = next, entry, "entered");
        self.inner.tell(&self.snapshot.run, RunEvent::Entered { state: next, entry });
        for Birth { child, lane, .. } in births {
            self.inner.line_up(&child.run, lane, Cue::default());
        }
        Ok(None)
    }

    pub(super) async fn finish(
        &mut self,
        ending: Ending,
        fault: Option<Fault>,
    ) -> Result<End, Halt> {
        self.write(vec![Body::End { ending, fault: fault.clone() }]).await?;
        let (state, data) = (self.snapshot.state.clone(), self.snapshot.data.clone());
        Ok(End { ending, state, data, fault })
    }

    /// Makes `bodies` durable, all or none, and folds them into the snapshot.
    pub(super) async fn write(&mut self, bodies: Vec<Body>) -> Result<(), Halt> {
        if bodies.is_empty() {
            return Ok(());
        }
        self.append(bodies, Vec::new()).await
    }

    /// As [`write`](Drive::write), together with `others` of other runs.
    async fn append(&mut self, bodies: Vec<Body>, others: Vec<Record>) -> Result<(), Halt> {
        let at = self.inner.environment.now();
        let (run, first) = (&self.snapshot.run, self.snapshot.seq + 1);
        let records: Vec<Record> = (first..)
            .zip(bodies)
            .map(|(seq, body)| Record { run: run.clone(), seq, at, body })
            .collect();
        let batch = records.iter().cloned().chain(others).collect();
        self.inner.journal.append(batch).await.map_err(RuntimeError::from)?;
        for record in records {
            self.snapshot.apply(record).map_err(Halt::Quarantined)?;
        }
        Ok(())
    }
}

/// Where a step wants to go.
pub(super) struct Move {
    pub(super) next: String,
    pub(super) data: Data,
    pub(super) wake_at: Option<Timestamp>,
    pub(super) carried: Box<Carried>,
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
