//! What others ask of the task that drives a run.

use futures::channel::oneshot;

use super::RuntimeError;
use crate::Pending;

/// Where an answer goes. Dropped unanswered, it says that the task has gone, or that the request
/// is void.
pub(super) type Done = oneshot::Sender<Result<(), RuntimeError>>;

/// A request to a run's task. What it changes is durable when `done` hears of it.
pub(super) enum Command {
    /// A step is about to run an effect.
    Intent { attempt: u64, effect: String, done: Done },
    /// Somebody wants to know that the run is here.
    Attach { done: Done },
    /// Somebody asks the run to stop.
    Cancel { reason: String, done: Done },
    /// Its parent asks it to stop; void if anybody ever did.
    ParentCancels { reason: String, done: Done },
    /// An operator wants it to wait.
    Pause { reason: String, done: Done },
    /// An operator lets it continue.
    Resume { done: Done },
    /// An operator lets it continue although it failed.
    Redrive { done: Done },
    /// An operator gives it up.
    Abandon { reason: String, done: Done },
    /// Somebody tells it something.
    Signal { signal: Pending, done: Done },
    /// One of its children may have ended.
    ChildEnded,
    /// The process wants to end.
    Stop,
}
