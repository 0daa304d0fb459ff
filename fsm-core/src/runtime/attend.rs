//! What a run's task does while a step is at work: it serves commands, and watches the time.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
};

use futures::{
    FutureExt, StreamExt,
    future::{Either, select},
    pin_mut,
};
use tracing::Instrument;

use super::{
    command::Command,
    deadline::Deadline,
    drive::{Drive, Halt},
    due::is_cancelled,
    port::{Retire, StepPort},
};
use crate::{
    Body, Cancellation, Environment, Fault, Outcome, StateInfo, StepCall, StepKind, Timestamp,
};

/// What it means that a step is out of time.
#[derive(Clone, Copy)]
enum Limit {
    Attempt,
    State,
    Grace,
    Run,
}

type Answer = std::thread::Result<Outcome>;

impl Drive {
    /// Calls the state, contains its panics, and serves commands meanwhile. `None` if the run has
    /// ended in the middle of it.
    pub(super) async fn call(
        &mut self,
        kind: StepKind,
        state: &StateInfo,
    ) -> Result<Option<Outcome>, Halt> {
        self.attempt += 1;
        let cancellation = Cancellation::new();
        let port = Arc::new(StepPort {
            inner: Arc::clone(&self.inner),
            run: self.snapshot.run.clone(),
            commands: self.commands.clone(),
            cancellation: cancellation.clone(),
            attempt: self.attempt,
            retired: AtomicBool::new(false),
        });
        let retire = Retire(Arc::clone(&port));
        let limits = self.limits(&kind, state);
        let stop = (kind == StepKind::Run).then_some(&cancellation);
        let ended = self.snapshot.carried.children.iter().filter(|child| child.end.is_some());
        // The edges of a state get no context, and so see no children.
        let shown = ended.filter(|_| kind == StepKind::Run);
        self.seen = shown.map(|child| child.run.clone()).collect();
        let call = self.step_call(kind);
        let (attempt, entry) = (call.attempt, call.entry);
        let span = tracing::debug_span!("step", state = state.name, entry, attempt);
        let machine = Arc::clone(&self.registered.machine);
        let step = AssertUnwindSafe(async move { machine.step(call, port).await }).catch_unwind();
        let mut step = Box::pin(step.instrument(span));
        self.at_work = true;
        let outcome = self.attend(step.as_mut(), stop, limits, state).await;
        self.at_work = false;
        drop(retire);
        // A step that is dropped half done runs its authors' drop code.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(step))) {
            std::mem::forget(payload);
            tracing::error!(state = state.name, "a step panicked when it was dropped");
        }
        outcome
    }

    /// Waits until the host is ready for a step of the run. False if something was asked of the
    /// run, or its deadline came: what is next for it is decided anew.
    pub(super) async fn may_begin(&mut self) -> Result<bool, Halt> {
        let (machine, run) = (Arc::clone(&self.registered.machine), self.snapshot.run.clone());
        let environment = Arc::clone(&self.inner.environment);
        let command = {
            let timer = sleep(&*environment, self.snapshot.carried.deadline);
            let ready = AssertUnwindSafe(async { machine.ready(&run).await }).catch_unwind();
            pin_mut!(ready, timer);
            match select(ready, select(self.inbox.next(), timer)).await {
                Either::Left((Ok(()), _)) => return Ok(true),
                Either::Left((Err(payload), _)) => {
                    return Err(Halt::Quarantined(panicked(payload).to_string()));
                }
                Either::Right((Either::Left((command, _)), _)) => command,
                Either::Right((Either::Right(((), _)), _)) => return Ok(false),
            }
        };
        self.serve(command).await?;
        Ok(false)
    }

    fn step_call(&self, kind: StepKind) -> StepCall {
        let snapshot = &self.snapshot;
        StepCall {
            run: snapshot.run.clone(),
            machine: snapshot.machine.clone(),
            state: snapshot.state.clone(),
            data: snapshot.data.clone(),
            entry: snapshot.entry,
            attempt: snapshot.attempts + 1,
            kind,
            effects: snapshot.effects.clone(),
            signals: snapshot.carried.signals.clone(),
            children: snapshot.carried.children.clone(),
            deadline: snapshot.carried.deadline,
        }
    }

    /// How long a call of `kind` may take from now on.
    fn limits(&self, kind: &StepKind, state: &StateInfo) -> Vec<(Deadline, Limit)> {
        let now = self.inner.environment.now();
        let attempt = state.retry.attempt_limit().map(|limit| (limit, Limit::Attempt));
        if *kind != StepKind::Run {
            return attempt
                .map(|(left, limit)| (Deadline::after(now, left), limit))
                .into_iter()
                .collect();
        }
        let total = state.retry.total_limit().map(|limit| {
            let left = (self.snapshot.counted_from + limit).since(now);
            // The first attempt gets its time however late it begins.
            (if left.is_zero() { limit } else { left.min(limit) }, Limit::State)
        });
        let limits = attempt.into_iter().chain(total);
        let mut limits: Vec<_> =
            limits.map(|(left, limit)| (Deadline::after(now, left), limit)).collect();
        if let Some(deadline) = self.snapshot.carried.deadline {
            limits.push((Deadline::wall(deadline), Limit::Run));
        }
        limits
    }

    /// Polls `step` until it answers or is out of time. A request to cancel is durable before
    /// the step is asked to `stop`.
    async fn attend(
        &mut self,
        mut step: Pin<&mut (impl Future<Output = Answer> + ?Sized)>,
        stop: Option<&Cancellation>,
        mut limits: Vec<(Deadline, Limit)>,
        state: &StateInfo,
    ) -> Result<Option<Outcome>, Halt> {
        let environment = Arc::clone(&self.inner.environment);
        loop {
            let command = {
                let first = limits.iter().map(|(deadline, _)| deadline.at()).min();
                let timer = sleep(&*environment, first);
                pin_mut!(timer);
                match select(step.as_mut(), select(self.inbox.next(), timer)).await {
                    Either::Left((answer, _)) => {
                        let outcome = answer.unwrap_or_else(|payload| panicked(payload).into());
                        return Ok(Some(outcome));
                    }
                    Either::Right((Either::Left((command, _)), _)) => Some(command),
                    Either::Right((Either::Right(((), _)), _)) => None,
                }
            };
            match command {
                Some(Some(Command::Intent { attempt, effect, done }))
                    if attempt == self.attempt =>
                {
                    self.write(vec![Body::Intent { effect }]).await?;
                    let _ = done.send(Ok(()));
                }
                Some(command) => self.serve(command).await?,
                None => match expired(&mut limits, environment.now()) {
                    Some(Limit::Run) => self.expire().await?,
                    Some(limit) => return Ok(Some(out_of_time(limit).into())),
                    None => {}
                },
            }
            if self.has_ended() {
                return Ok(None);
            }
            if is_cancelled(&self.snapshot, state)
                && let Some(stop) = stop.filter(|stop| !stop.is_requested())
            {
                stop.request();
                let grace = Deadline::after(environment.now(), self.inner.cancel_grace);
                limits = vec![(grace, Limit::Grace)];
            }
        }
    }
}

/// Takes out a limit that is reached, if one is.
fn expired(limits: &mut Vec<(Deadline, Limit)>, now: Timestamp) -> Option<Limit> {
    for (deadline, limit) in limits.iter_mut() {
        // Grace that ends too soon does little harm; an attempt that does is work lost.
        if let Limit::Attempt | Limit::State = limit {
            *deadline = deadline.counted_anew(now);
        }
    }
    let reached = limits.iter().position(|(deadline, _)| deadline.is_over(now))?;
    Some(limits.swap_remove(reached).1)
}

async fn sleep(environment: &dyn Environment, until: Option<Timestamp>) {
    match until {
        Some(until) => environment.sleep_until(until).await,
        None => futures::future::pending().await,
    }
}

/// What a state fails with that has taken too long. The wait before a next attempt would end too
/// late, so there is none.
pub(super) fn state_timeout() -> Fault {
    Fault::retryable("state.timeout", "the state took too long")
}

fn out_of_time(limit: Limit) -> Fault {
    match limit {
        Limit::Attempt => Fault::retryable("attempt.timeout", "the attempt took too long"),
        Limit::State => state_timeout(),
        Limit::Grace | Limit::Run => Fault::cancelled(),
    }
}

/// A step's panic as a fault. The payload is forgotten: its own drop might panic.
pub(super) fn panicked(payload: Box<dyn std::any::Any + Send>) -> Fault {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a payload that is no text".to_owned());
    std::mem::forget(payload);
    Fault::bug("step.panicked", format!("the step panicked: {text}"))
}
