//! A plugin whose code is in this process.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::instance::{Backend, Work};
use super::log::CallSpan;
use crate::abi::{
    AbiCall, AbiInstance, Cancellation, ForeignTask, HostCalls, Reply, Start, TaskFault,
    host_handle,
};

/// An instance, called through the tables of its library.
pub(crate) struct Local(Arc<Inner>);

struct Inner {
    start: Start,
    instance: AbiInstance,
}

impl Local {
    /// An instance whose requests `start` begins: the function of the library that made it.
    pub(super) fn new(start: Start, instance: AbiInstance) -> Self {
        Self(Arc::new(Inner { start, instance }))
    }

    /// As [`Backend::start`], for a request that the log knows as `id`.
    pub(crate) fn start_as(
        &self,
        id: u64,
        request: Bytes,
        host: Arc<dyn HostCalls>,
        span: Option<CallSpan>,
    ) -> LocalWork {
        let revoked = Cancellation::new();
        let host = host_handle(host, revoked.clone());
        let call = AbiCall { request: request.into(), host, id };
        // SAFETY: the instance is of the library that `start` is of, and lives in `self`.
        let task = unsafe { (self.0.start)(self.0.instance.data(), call) };
        LocalWork {
            work: ForeignTask::new(task),
            ended: Ended { revoked, span },
            _instance: Self(self.0.clone()),
        }
    }
}

impl Backend for Local {
    fn start(&self, request: Bytes, host: Arc<dyn HostCalls>) -> Pin<Box<dyn Work>> {
        let span = CallSpan::new();
        Box::pin(self.start_as(span.id(), request, host, Some(span)))
    }

    fn apart(&self) -> Option<Arc<dyn Backend>> {
        None
    }
}

/// A request that a library in this process serves.
pub(crate) struct LocalWork {
    // Declared, and so dropped, before the instance that it works on; `Drop` raises `ended`
    // before either.
    work: ForeignTask,
    ended: Ended,
    _instance: Local,
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

impl Work for LocalWork {
    fn cancel(&self) {
        self.work.cancel();
    }
}

impl Future for LocalWork {
    type Output = Result<Reply, TaskFault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.work).poll(cx);
        if answer.is_ready() {
            self.ended.end();
        }
        answer
    }
}

impl Drop for LocalWork {
    fn drop(&mut self) {
        self.ended.end();
    }
}
