//! How a request is stopped: asked, given time, abandoned.
//!
//! 1. *Asked.* The plugin's token is raised; its job should tidy up and reply.
//! 2. *Grace.* The job goes on with all its services. Whatever it replies counts.
//! 3. *Abandoned.* Its time is over: the host drops the task. From then on the job's calls, sinks
//!    and sources are refused, and it is dropped at the next point where it waits.
//!
//! In the host's process that is all that can be done. A job that never waits keeps its thread and
//! whatever it holds of the outside world, so its end is [`Ended::Abandoned`] and nothing softer:
//! nobody may take for granted that it has stopped, and the same work must not begin again in this
//! process. In a process of its own it can be killed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fsm_core::{Environment, Timestamp};

use super::instance::Task;
use crate::abi::{BoxFuture, Cancellation, Reply, Requested, TaskFault};

/// How a request that could be stopped ended.
#[derive(Debug)]
#[must_use]
pub enum Ended {
    /// The plugin answered, whether it was asked to stop or not.
    Answered(Result<Reply, TaskFault>),
    /// It was asked to stop and did not answer in time. Its job may still be at work.
    Abandoned {
        /// When it was asked.
        asked_at: Timestamp,
        /// How long it was given.
        grace: Duration,
    },
}

impl Task {
    /// This request, to be stopped once `stop` is raised: it is asked, given `grace`, and then
    /// abandoned.
    pub fn stoppable(
        self,
        stop: &Cancellation,
        grace: Duration,
        clock: Arc<dyn Environment>,
    ) -> Stoppable {
        Stoppable { task: Some(self), stop: Stop::Unasked(stop.requested()), grace, clock }
    }
}

/// The future of [`Task::stoppable`].
///
/// # Cancel safety
///
/// Dropping it abandons the request without asking.
#[must_use = "a future does nothing until it is polled"]
pub struct Stoppable {
    /// `None` once it has ended.
    task: Option<Task>,
    stop: Stop,
    grace: Duration,
    clock: Arc<dyn Environment>,
}

enum Stop {
    Unasked(Requested),
    Grace { asked_at: Timestamp, over: BoxFuture<()> },
}

impl Stoppable {
    /// Ready with the time at which the request was asked, once its grace is over.
    fn poll_grace(&mut self, task: &Task, cx: &mut Context<'_>) -> Poll<Timestamp> {
        if let Stop::Unasked(requested) = &mut self.stop {
            std::task::ready!(Pin::new(requested).poll(cx));
            task.cancel();
            let asked_at = self.clock.now();
            let over = self.clock.sleep_until(asked_at + self.grace);
            self.stop = Stop::Grace { asked_at, over };
        }
        let Stop::Grace { asked_at, over } = &mut self.stop else { return Poll::Pending };
        // A clock may wake early, when it was set back.
        loop {
            std::task::ready!(over.as_mut().poll(cx));
            if self.clock.now() >= *asked_at + self.grace {
                return Poll::Ready(*asked_at);
            }
            *over = self.clock.sleep_until(*asked_at + self.grace);
        }
    }
}

impl Future for Stoppable {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let this = &mut *self;
        let Some(mut task) = this.task.take() else {
            return Poll::Ready(Ended::Answered(Err(TaskFault::Finished)));
        };
        // The token first: what is asked now is heard by the poll below.
        let over = this.poll_grace(&task, cx);
        // An answer that is there counts, even at the last moment.
        if let Poll::Ready(answer) = Pin::new(&mut task).poll(cx) {
            return Poll::Ready(Ended::Answered(answer));
        }
        if let Poll::Ready(asked_at) = over {
            drop(task);
            return Poll::Ready(Ended::Abandoned { asked_at, grace: this.grace });
        }
        this.task = Some(task);
        Poll::Pending
    }
}

impl fmt::Debug for Stoppable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stoppable").field("grace", &self.grace).finish_non_exhaustive()
    }
}
