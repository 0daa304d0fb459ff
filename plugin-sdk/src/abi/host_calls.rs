//! The host's one function, `call(op, bytes) -> task`, and the handle that a plugin calls it by.
//!
//! **Promise.** A handle belongs to one request. Once that request has ended, or its task was
//! dropped, every call, and every sink and source that came out of one, is refused; calls under
//! way end as revoked, so that nothing of a plugin waits for a host that has moved on.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use abi_stable::StableAbi;
use abi_stable::std_types::RStr;
use bytes::Bytes;

use super::bytes::AbiBytes;
use super::guard::{contain, contain_quietly};
use super::reply::{Object, Reply, TaskFault};
use super::task::{AbiTask, BoxFuture, ForeignTask};
use fsm_core::Cancellation;

/// The handle of one request's host, as it crosses.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiHost {
    pub(super) data: *const (),
    pub(super) call: unsafe extern "C" fn(*const (), RStr<'_>, AbiBytes) -> AbiTask,
    pub(super) drop: unsafe extern "C" fn(*const ()),
}

// SAFETY: the only constructor takes `Send + Sync` state.
unsafe impl Send for AbiHost {}
// SAFETY: as above; `call` may be called from any thread, several times at once.
unsafe impl Sync for AbiHost {}

impl fmt::Debug for AbiHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbiHost").finish_non_exhaustive()
    }
}

impl Drop for AbiHost {
    fn drop(&mut self) {
        // SAFETY: called once, here.
        unsafe { (self.drop)(self.data) }
    }
}

/// No call of a host has a longer name.
const OP_BYTES_MAX: usize = 256;

/// The text, if it is text.
fn text(crossed: RStr<'_>) -> Option<&str> {
    if crossed.is_empty() {
        return Some("");
    }
    std::str::from_utf8(crossed.as_rslice().as_slice()).ok()
}

/// What a host answers its plugins with.
///
/// Called from any thread of the plugin's, several times at once, and only while the request is
/// current. `call` returns at once; the future is polled, and may be dropped, by the plugin. A
/// panic is contained and becomes the caller's [`TaskFault::Panicked`].
pub trait HostCalls: Send + Sync + 'static {
    /// Serves the operation named `op`; `body` is its document.
    fn call(&self, op: &str, body: Bytes) -> BoxFuture<Reply>;
}

struct Serving {
    calls: Arc<dyn HostCalls>,
    revoked: Cancellation,
}

impl AbiHost {
    fn new(calls: Arc<dyn HostCalls>, revoked: Cancellation) -> Self {
        unsafe extern "C" fn call(data: *const (), op: RStr<'_>, body: AbiBytes) -> AbiTask {
            // SAFETY: `data` is the box below, not yet dropped, and shared by reference only.
            let serving = unsafe { &*data.cast::<Serving>() };
            let revoked = serving.revoked.clone();
            if revoked.is_requested() {
                let refused = std::future::ready(Err(TaskFault::Revoked));
                return AbiTask::new(Box::pin(refused), revoked);
            }
            // A caller in C may have written anything.
            let Some(op) = text(op).filter(|op| op.len() <= OP_BYTES_MAX) else {
                return AbiTask::panicked("the name of a call is no text, or too long".to_owned());
            };
            match contain(|| serving.calls.call(op, body.into_bytes())) {
                Ok(answer) => {
                    AbiTask::new(Box::pin(while_current(answer, revoked)), Cancellation::new())
                }
                Err(text) => AbiTask::panicked(text),
            }
        }
        unsafe extern "C" fn release(data: *const ()) {
            contain_quietly("dropping a host's handle", || {
                // SAFETY: `data` is the box below; this is the one call of `drop`.
                drop(unsafe { Box::from_raw(data.cast_mut().cast::<Serving>()) });
            });
        }
        let data = Box::into_raw(Box::new(Serving { calls, revoked })).cast_const().cast();
        Self { data, call, drop: release }
    }
}

/// The answer, unless the request ends first; what is handed over ends with the request too.
async fn while_current(
    answer: BoxFuture<Reply>,
    revoked: Cancellation,
) -> Result<Reply, TaskFault> {
    let mut reply = unless_revoked(answer, &revoked).await?;
    reply.object = reply.object.map(|object| match object {
        Object::Sink(sink) => Object::Sink(sink.revocable(&revoked)),
        Object::Source(source) => Object::Source(source.revocable(&revoked)),
        descriptor @ Object::Descriptor(_) => descriptor,
    });
    Ok(reply)
}

/// What `answer` gives, unless the request ends first.
pub(super) async fn unless_revoked<T>(
    mut answer: impl Future<Output = T> + Unpin,
    revoked: &Cancellation,
) -> Result<T, TaskFault> {
    let mut ended = revoked.requested();
    poll_fn(|cx| {
        if Pin::new(&mut ended).poll(cx).is_ready() {
            return Poll::Ready(Err(TaskFault::Revoked));
        }
        Pin::new(&mut answer).poll(cx).map(Ok)
    })
    .await
}

/// A plugin's way to its host, for the time of one request. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct HostHandle(Arc<AbiHost>);

impl HostHandle {
    /// A handle that `calls` answers for, until `revoked` is raised.
    #[must_use]
    pub fn serve(calls: Arc<dyn HostCalls>, revoked: Cancellation) -> Self {
        Self::from_abi(AbiHost::new(calls, revoked))
    }

    pub(super) fn from_abi(host: AbiHost) -> Self {
        Self(Arc::new(host))
    }

    /// Asks the host for the operation `op`. The request leaves now, not at the first poll.
    ///
    /// # Errors
    ///
    /// A [`TaskFault`] if there was no answer; a refusal is in [`Reply::result`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the call; whether it took effect is for the host's operation
    /// to say.
    pub fn call(
        &self,
        op: &str,
        body: impl Into<Bytes>,
    ) -> impl Future<Output = Result<Reply, TaskFault>> + Send + 'static {
        // SAFETY: the handle is not dropped; `call` may be called from any thread.
        let task = unsafe { (self.0.call)(self.0.data, RStr::from_str(op), body.into().into()) };
        ForeignTask::new(task)
    }
}

/// What crosses for one handle.
#[cfg(feature = "host")]
pub(crate) fn host_handle(calls: Arc<dyn HostCalls>, revoked: Cancellation) -> AbiHost {
    AbiHost::new(calls, revoked)
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::super::reply::CallError;
    use super::super::sink::{HostSink, SinkError, SinkHandle};
    use super::*;
    use crate::abi::LentBuffer;

    struct Never;
    impl HostSink for Never {
        fn poll_buffer(
            &mut self,
            _: usize,
            _: &mut std::task::Context<'_>,
        ) -> Poll<Result<LentBuffer, SinkError>> {
            Poll::Pending
        }
        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), SinkError>> {
            Poll::Pending
        }
        fn send(&mut self, _: Bytes) -> Result<(), SinkError> {
            Ok(())
        }
        fn finish(&mut self) -> BoxFuture<Result<Bytes, CallError>> {
            Box::pin(std::future::ready(Ok(Bytes::new())))
        }
    }

    struct Calls;
    impl HostCalls for Calls {
        fn call(&self, op: &str, body: Bytes) -> BoxFuture<Reply> {
            match op {
                "sink" => {
                    let sink = Object::Sink(SinkHandle::serve(Never));
                    Box::pin(std::future::ready(Reply::ok("").with(sink)))
                }
                "never" => Box::pin(std::future::pending()),
                "panic" => panic!("the host's bug"),
                _ => Box::pin(std::future::ready(Reply::ok(body))),
            }
        }
    }

    #[test]
    fn a_panic_of_the_host_is_a_fault_of_the_call() {
        let host = HostHandle::serve(Arc::new(Calls), Cancellation::new());
        assert_eq!(block_on(host.call("echo", "hi")).expect("echo").result, Ok("hi".into()));
        let fault = block_on(host.call("panic", "")).expect_err("a fault");
        assert_eq!(fault, TaskFault::Panicked("the host's bug".into()));
    }

    #[test]
    fn the_end_of_the_request_ends_calls_and_sinks_that_wait_and_refuses_new_ones() {
        let request = Cancellation::new();
        let host = HostHandle::serve(Arc::new(Calls), request.clone());
        let reply = block_on(host.call("sink", "")).expect("a reply");
        let Some(Object::Sink(mut sink)) = reply.object else { panic!("a sink") };
        let waits = host.call("never", "");
        let call = std::thread::spawn(move || block_on(waits));
        let lend = std::thread::spawn(move || {
            let lent = block_on(sink.buffer(1)).map(|_| ());
            (lent, block_on(sink.send(vec![1])), block_on(sink.finish()))
        });
        request.request();
        assert_eq!(call.join().expect("ends").expect_err("revoked"), TaskFault::Revoked);
        assert_eq!(
            lend.join().expect("ends"),
            (
                Err(SinkError::Closed),
                Err(SinkError::Closed),
                Err(CallError::Fault(TaskFault::Revoked))
            )
        );
        let refused = block_on(host.call("echo", "")).expect_err("refused");
        assert_eq!(refused, TaskFault::Revoked);
    }
}
