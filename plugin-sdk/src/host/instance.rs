//! An initialised plugin and its requests under way, wherever the plugin's code is.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
#[cfg(feature = "conformance")]
use std::time::Duration;

use bytes::Bytes;

use super::redact::{Discreet, Redactor};
use crate::abi::{Cancellation, HostCalls, Reply, Requested, TaskFault};

/// A place where a plugin's code runs: this process, or a child.
pub(super) trait Backend: Send + Sync {
    /// Starts a request. Returns at once; `host` answers what the plugin asks for in its course.
    fn start(&self, request: Bytes, host: Arc<dyn HostCalls>) -> Pin<Box<dyn Work>>;

    /// The same plugin in a process of its own; `None` where there is only one process.
    fn apart(&self) -> Option<Arc<dyn Backend>>;

    /// Waits until the plugin has heard of each request that was cancelled, but not longer than
    /// `longest`. In this process it has at once.
    #[cfg(feature = "conformance")]
    fn await_asked(&self, longest: Duration) {
        let _ = longest;
    }

    /// Ends the process that the code is in, at once and whatever it does; nothing where that is
    /// this one. The next request has another process.
    #[cfg(feature = "conformance")]
    fn kill(&self) {}
}

/// A request under way. Dropping it abandons the request.
pub(crate) trait Work: Future<Output = Result<Reply, TaskFault>> + Send {
    /// Asks the plugin to stop. Called at any time, any number of times.
    fn cancel(&self);
}

/// An initialised plugin. Clones are the same instance; the plugin drops it with the last clone.
#[derive(Clone)]
pub struct PluginInstance {
    backend: Arc<dyn Backend>,
    redactor: Arc<Redactor>,
}

impl PluginInstance {
    /// An instance whose code is at `backend`. What it says goes through `redactor`.
    pub(super) fn new(backend: impl Backend + 'static, redactor: Arc<Redactor>) -> Self {
        Self { backend: Arc::new(backend), redactor }
    }

    /// The same instance, its code behind what `layer` puts before it.
    pub(super) fn over(self, layer: impl FnOnce(Arc<dyn Backend>) -> Arc<dyn Backend>) -> Self {
        Self { backend: layer(self.backend), redactor: self.redactor }
    }

    /// Starts a request; `host` answers what the plugin asks for in its course.
    ///
    /// What the plugin logs meanwhile belongs to the current span.
    pub fn start(&self, request: impl Into<Bytes>, host: Arc<dyn HostCalls>) -> Task {
        let redactor = Arc::clone(&self.redactor);
        let host = Arc::new(Discreet::new(host, Arc::clone(&redactor)));
        let work = self.backend.start(request.into(), host);
        let asked = Cancellation::new();
        Task { work, heard: Some(asked.requested()), asked, redactor }
    }

    /// The same plugin for one run: an isolated plugin gets a process of its own, which begins
    /// with the first request and ends with the last clone of what is returned. In this process
    /// it is the same instance.
    #[must_use]
    pub fn apart(&self) -> Self {
        match self.backend.apart() {
            Some(backend) => Self { backend, redactor: Arc::clone(&self.redactor) },
            None => self.clone(),
        }
    }

    /// Waits until the plugin has heard of each request that was cancelled, but not longer than
    /// `longest`: it may go on before, if it is in another process.
    #[cfg(feature = "conformance")]
    pub(crate) fn await_asked(&self, longest: Duration) {
        self.backend.await_asked(longest);
    }

    /// Ends the instance's process as a power cut would, and returns when it is gone; nothing
    /// where the plugin is in this one.
    #[cfg(feature = "conformance")]
    pub(crate) fn kill(&self) {
        self.backend.kill();
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
    work: Pin<Box<dyn Work>>,
    asked: Cancellation,
    heard: Option<Requested>,
    redactor: Arc<Redactor>,
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
        let answer = this.work.as_mut().poll(cx);
        if answer.is_ready() {
            this.heard = None;
        }
        answer.map(|answer| this.redactor.answer(answer))
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
