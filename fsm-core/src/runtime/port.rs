//! What the runtime does for one step of a run of its own process.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::{
    channel::{mpsc, oneshot},
    future::BoxFuture,
};

use super::{command::Command, inner::Inner};
use crate::{Cancellation, Fault, Port, Progress, RunEvent, RunId, Timestamp};

/// The [`Port`] of one attempt. The run's task owns the sequence of its records, so an intent is
/// a message to that task; a step that is no longer current finds nobody at the other end.
pub(super) struct StepPort {
    pub(super) inner: Arc<Inner>,
    pub(super) run: RunId,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) cancellation: Cancellation,
    /// Which attempt this port belongs to, counted over the task.
    pub(super) attempt: u64,
    pub(super) retired: AtomicBool,
}

/// Shuts a port when its attempt is over, however it is over: a step that goes on behind a
/// boundary is not heard any more.
pub(super) struct Retire(pub(super) Arc<StepPort>);

impl Drop for Retire {
    fn drop(&mut self) {
        self.0.retired.store(true, Ordering::Release);
    }
}

fn stale() -> Fault {
    Fault::interrupted("the step is no longer current")
}

impl Port for StepPort {
    fn intent<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let (done, recorded) = oneshot::channel();
            let command = Command::Intent { attempt: self.attempt, effect: name.to_owned(), done };
            self.commands.unbounded_send(command).map_err(|_| stale())?;
            match recorded.await {
                Ok(Ok(())) => Ok(()),
                _ => Err(stale()),
            }
        })
    }

    fn progress(&self, progress: Progress) {
        if !self.retired.load(Ordering::Acquire) {
            self.inner.tell(&self.run, RunEvent::Progressed(progress));
        }
    }

    fn now(&self) -> Timestamp {
        self.inner.environment.now()
    }

    fn cancellation(&self) -> Cancellation {
        self.cancellation.clone()
    }
}
