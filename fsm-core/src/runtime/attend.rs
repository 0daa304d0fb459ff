//! What a run's task does while it waits: for a step, for a time, for a command.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
};

use futures::{
    FutureExt, StreamExt,
    channel::oneshot,
    future::{Either, select},
    pin_mut,
};

use super::{
    deadline::Deadline,
    drive::{Command, Drive, Halt},
    port::{Retire, StepPort},
};
use crate::{
    Body, Cancel, Cancellation, Environment, Fault, Outcome, StateInfo, Status, StepCall, StepKind,
    Timestamp,
};

/// What a deadline of a step means.
#[derive(Clone, Copy)]
enum Limit {
    Attempt,
    Grace,
}

type Answer = std::thread::Result<Outcome>;

impl Drive {
    /// Calls the state, contains its panics, and serves commands meanwhile.
    pub(super) async fn call(
        &mut self,
        kind: StepKind,
        state: &StateInfo,
    ) -> Result<Outcome, Halt> {
        self.attempt += 1;
        let deliver = state.cancel == Cancel::Deliver && kind == StepKind::Run;
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
        let call = StepCall {
            run: self.snapshot.run.clone(),
            machine: self.snapshot.machine.clone(),
            state: self.snapshot.state.clone(),
            data: self.snapshot.data.clone(),
            entry: self.snapshot.entry,
            attempt: self.snapshot.attempts + 1,
            kind,
            effects: self.snapshot.effects.clone(),
            signals: self.snapshot.carried.signals.clone(),
            children: self.snapshot.carried.children.clone(),
            deadline: self.snapshot.carried.deadline,
        };
        let machine = Arc::clone(&self.registered.machine);
        let step = AssertUnwindSafe(async move { machine.step(call, port).await }).catch_unwind();
        let mut step = Box::pin(step);
        let stop = deliver.then_some(&cancellation);
        let outcome = self.attend(step.as_mut(), stop, state).await;
        drop(retire);
        // A step that is dropped half done runs its authors' drop code.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(step))) {
            std::mem::forget(payload);
            tracing::error!(run = %self.snapshot.run, state = state.name, "a step panicked when it was dropped");
        }
        outcome
    }

    /// Polls `step` until it answers or is out of time. A request to cancel is durable before
    /// the step is asked to `stop`.
    async fn attend(
        &mut self,
        mut step: Pin<&mut (impl Future<Output = Answer> + ?Sized)>,
        stop: Option<&Cancellation>,
        state: &StateInfo,
    ) -> Result<Outcome, Halt> {
        let environment = Arc::clone(&self.inner.environment);
        let limit = state.retry.attempt_limit();
        let mut deadline =
            limit.map(|limit| (Deadline::after(environment.now(), limit), Limit::Attempt));
        loop {
            let command = {
                let timer = sleep(&*environment, deadline.map(|(deadline, _)| deadline.at()));
                pin_mut!(timer);
                match select(step.as_mut(), select(self.inbox.next(), timer)).await {
                    Either::Left((answer, _)) => {
                        return Ok(answer.unwrap_or_else(|payload| panicked(payload).into()));
                    }
                    Either::Right((Either::Left((command, _)), _)) => Some(command),
                    Either::Right((Either::Right(((), _)), _)) => None,
                }
            };
            let Some(command) = command else {
                match deadline {
                    Some((deadline, limit)) if deadline.is_over(environment.now()) => {
                        return Ok(out_of_time(limit).into());
                    }
                    _ => continue,
                }
            };
            match command {
                Some(Command::Intent { attempt, effect, done }) if attempt == self.attempt => {
                    self.write(vec![Body::Intent { effect }]).await?;
                    let _ = done.send(());
                }
                command => self.serve(command).await?,
            }
            if self.snapshot.carried.cancel.is_some()
                && let Some(stop) = stop.filter(|stop| !stop.is_requested())
            {
                stop.request();
                let grace = Deadline::after(environment.now(), self.inner.cancel_grace);
                deadline = Some((grace, Limit::Grace));
            }
        }
    }

    /// Waits for a time, or for ever, or for a command.
    pub(super) async fn wait(&mut self, until: Option<Timestamp>) -> Result<(), Halt> {
        let command = {
            let environment = Arc::clone(&self.inner.environment);
            let timer = sleep(&*environment, until);
            pin_mut!(timer);
            match select(self.inbox.next(), timer).await {
                Either::Left((command, _)) => command,
                Either::Right(((), _)) => return Ok(()),
            }
        };
        self.serve(command).await
    }

    /// Serves what has arrived while nobody listened.
    pub(super) async fn serve_queued(&mut self) -> Result<(), Halt> {
        while let Ok(command) = self.inbox.try_recv() {
            self.serve(Some(command)).await?;
        }
        Ok(())
    }

    async fn serve(&mut self, command: Option<Command>) -> Result<(), Halt> {
        match command {
            Some(Command::Stop) | None => Err(Halt::Stopped),
            // The step that asks is not current: its sender is dropped here.
            Some(Command::Intent { .. }) => Ok(()),
            Some(Command::Cancel { reason, done }) => self.cancel(reason, done).await,
            Some(Command::Unpause { done }) => {
                if let Status::Paused(_) = self.snapshot.status {
                    self.write(vec![Body::Resume]).await?;
                }
                let _ = done.send(());
                Ok(())
            }
        }
    }

    async fn cancel(&mut self, reason: String, done: oneshot::Sender<()>) -> Result<(), Halt> {
        if self.snapshot.carried.cancel.is_none() {
            self.write(vec![Body::Cancel { reason }]).await?;
            // Its edge is another call than the one that was interrupted.
            self.pause = None;
        }
        let _ = done.send(());
        Ok(())
    }
}

async fn sleep(environment: &dyn Environment, until: Option<Timestamp>) {
    match until {
        Some(until) => environment.sleep_until(until).await,
        None => futures::future::pending().await,
    }
}

fn out_of_time(limit: Limit) -> Fault {
    match limit {
        Limit::Attempt => Fault::retryable("attempt.timeout", "the attempt took too long"),
        Limit::Grace => Fault::cancelled(),
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
