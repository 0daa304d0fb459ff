//! An initialised plugin and its requests under way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::log::CallSpan;
use super::redact::{Discreet, Redactor};
use crate::abi::{
    AbiCall, AbiInstance, Cancellation, ForeignTask, HostCalls, Reply, Requested, Start, TaskFault,
    host_handle,
};

/// An initialised plugin. Clones are the same instance; the plugin drops it with the last clone.
#[derive(Clone)]
pub struct PluginInstance(Arc<Inner>);

struct Inner {
    start: Start,
    instance: AbiInstance,
    redactor: Arc<Redactor>,
}

impl PluginInstance {
    /// An instance whose requests `start` begins: the function of the library that made it. What it
    /// says goes through `redactor`.
    pub(super) fn new(start: Start, instance: AbiInstance, redactor: Arc<Redactor>) -> Self {
        Self(Arc::new(Inner { start, instance, redactor }))
    }

    /// Starts a request; `host` answers what the plugin asks for in its course.
    ///
    /// What the plugin logs meanwhile belongs to the current span. A secret that the host gives it
    /// is kept out of its log, its faults and its answers from then on.
    pub fn start(&self, request: impl Into<Bytes>, host: Arc<dyn HostCalls>) -> Task {
        let redactor = Arc::clone(&self.0.redactor);
        let host = Arc::new(Discreet::new(host, Arc::clone(&redactor)));
        let revoked = Cancellation::new();
        let span = CallSpan::new();
        let call = AbiCall {
            request: request.into().into(),
            host: host_handle(host, revoked.clone()),
            id: span.id(),
        };
        // SAFETY: the instance is of the library that `start` is of, and lives in `self`.
        let task = unsafe { (self.0.start)(self.0.instance.data(), call) };
        let asked = Cancellation::new();
        Task {
            work: ForeignTask::new(task),
            ended: Ended { revoked, span: Some(span) },
            heard: Some(asked.requested()),
            asked,
            redactor,
            _instance: self.clone(),
        }
    }
}

impl fmt::Debug for PluginInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginInstance").finish_non_exhaustive()
    }
}

/// A request under way: a future of the plugin's reply, for any executor.
///
/// # Cancel safety
///
/// Dropping it abandons the request: the plugin's calls, sinks and sources are refused from then
/// on, and its job is dropped at the next point where it waits. Ask with [`cancel`](Self::cancel)
/// first to let the plugin tidy up.
#[must_use = "dropping a task abandons the request"]
pub struct Task {
    // Declared, and so dropped, before the instance that it works on; `Drop for Task` raises
    // `ended` before either.
    work: ForeignTask,
    ended: Ended,
    asked: Cancellation,
    heard: Option<Requested>,
    redactor: Arc<Redactor>,
    _instance: PluginInstance,
}

/// The end of a request, for the host's handle and for the log.
struct Ended {
    revoked: Cancellation,
    span: Option<CallSpan>,
}

impl Ended {
    fn end(&mut self) {
        self.revoked.request();
        self.span = None;
    }
}

impl Task {
    /// Asks the plugin to stop. It may be asked at any time and any number of times; the task
    /// still ends with a reply.
    pub fn cancel(&self) {
        self.work.cancel();
    }

    /// A way to cancel from elsewhere while the task is being awaited.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller(self.asked.clone())
    }
}

impl Future for Task {
    type Output = Result<Reply, TaskFault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(heard) = &mut this.heard
            && Pin::new(heard).poll(cx).is_ready()
        {
            this.heard = None;
            this.work.cancel();
        }
        let answer = Pin::new(&mut this.work).poll(cx);
        if answer.is_ready() {
            this.heard = None;
            this.ended.end();
        }
        answer.map(|answer| this.redactor.answer(answer))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.ended.end();
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}

/// Cancels a [`Task`] that is awaited elsewhere. It may outlive the task.
#[derive(Clone, Debug)]
pub struct Canceller(Cancellation);

impl Canceller {
    /// Asks the plugin to stop, at the task's next poll, which it causes.
    pub fn cancel(&self) {
        self.0.request();
    }
}
