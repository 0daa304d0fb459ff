//! A place to send bytes to.
//!
//! **Promise.** What is sent arrives in order, without a copy. The buffers that the sink lends, and
//! the room that it grants for foreign bytes, are the only backpressure: a plugin whose consumer
//! stops holds at most its buffers. Sending is not saving: only the answer of `finish` proves that
//! the bytes are safe.

use std::fmt;
use std::future::{Future, poll_fn};
use std::task::{Context, Poll};

use abi_stable::StableAbi;
use bytes::Bytes;

use super::buffer::{AbiBuffer, Chunk, LentBuffer};
use super::bytes::AbiBytes;
use super::guard::{contain, contain_quietly};
use super::host_calls::unless_revoked;
use super::reply::{CallError, TaskFault, answer, body};
use super::task::{AbiPoll, AbiTask, BoxFuture, ForeignTask};
use super::waker::{AbiWaker, WakerCache, with_waker};
use fsm_core::{Cancellation, Requested};

/// A sink as it crosses. All functions but `drop` are called by one thread at a time.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiSink {
    pub(super) data: *mut (),
    pub(super) poll_buffer: unsafe extern "C" fn(*mut (), u64, *const AbiWaker) -> AbiPoll<AbiLend>,
    pub(super) poll_ready: unsafe extern "C" fn(*mut (), *const AbiWaker) -> AbiPoll<u8>,
    pub(super) send: unsafe extern "C" fn(*mut (), AbiBytes) -> u8,
    pub(super) finish: unsafe extern "C" fn(*mut ()) -> AbiTask,
    pub(super) drop: unsafe extern "C" fn(*mut ()),
}

/// A lent buffer, or the status that says why there is none.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct AbiLend {
    pub(super) status: u8,
    pub(super) buffer: AbiBuffer,
}

// SAFETY: the only constructor takes a `Send` implementation.
unsafe impl Send for AbiSink {}
// SAFETY: nothing is reachable through a shared reference.
unsafe impl Sync for AbiSink {}

impl fmt::Debug for AbiSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbiSink").finish_non_exhaustive()
    }
}

impl Drop for AbiSink {
    fn drop(&mut self) {
        // SAFETY: called once, here.
        unsafe { (self.drop)(self.data) }
    }
}

/// Why a sink did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SinkError {
    /// Nobody listens any more; `finish` says why.
    Closed,
    /// The buffer that was asked for is larger than any that the sink lends.
    TooLarge,
    /// Foreign bytes were sent before the sink said that it has room for them.
    NotReady,
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the sink is closed",
            Self::TooLarge => "the sink lends no buffer of that size",
            Self::NotReady => "the sink has no room yet",
        })
    }
}

impl std::error::Error for SinkError {}

pub(super) const OK: u8 = 0;
pub(super) const CLOSED: u8 = 1;
pub(super) const TOO_LARGE: u8 = 2;
pub(super) const NOT_READY: u8 = 3;

fn status(done: Result<(), SinkError>) -> u8 {
    match done {
        Ok(()) => OK,
        Err(SinkError::Closed) => CLOSED,
        Err(SinkError::TooLarge) => TOO_LARGE,
        Err(SinkError::NotReady) => NOT_READY,
    }
}

/// A status of a later minor version counts as closed: `finish` has the details.
fn from_status(status: u8) -> Result<(), SinkError> {
    match status {
        OK => Ok(()),
        TOO_LARGE => Err(SinkError::TooLarge),
        NOT_READY => Err(SinkError::NotReady),
        _ => Err(SinkError::Closed),
    }
}

/// What stands behind a sink.
///
/// The caller calls from one thread at a time, sends foreign bytes only after
/// [`poll_ready`](Self::poll_ready), and nothing after [`finish`](Self::finish). A panic here is
/// contained, and closes the sink: what it was sent may be lost, so there is no receipt from then
/// on.
pub trait HostSink: Send + 'static {
    /// Lends a buffer of at least `min_len` bytes once one is free.
    ///
    /// # Errors
    ///
    /// [`SinkError::Closed`], or [`SinkError::TooLarge`] if no buffer is ever that large.
    fn poll_buffer(
        &mut self,
        min_len: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<LentBuffer, SinkError>>;

    /// Ready once there is room for one chunk of bytes that are not a loan of this sink.
    ///
    /// # Errors
    ///
    /// [`SinkError::Closed`].
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SinkError>>;

    /// Takes the next chunk. Returns at once.
    ///
    /// # Errors
    ///
    /// [`SinkError::Closed`], or [`SinkError::NotReady`] for foreign bytes without room.
    fn send(&mut self, chunk: Bytes) -> Result<(), SinkError>;

    /// Declares the stream complete; the answer is the proof that it is safe, or the reason why
    /// it is not.
    fn finish(&mut self) -> BoxFuture<Result<Bytes, CallError>>;
}

/// The sender's end of a sink. Dropped without [`finish`](Self::finish), the stream is incomplete.
pub struct SinkHandle {
    sink: AbiSink,
    wakers: WakerCache,
}

impl SinkHandle {
    /// A sink that `sink` answers for.
    #[must_use]
    pub fn serve<S: HostSink>(sink: S) -> Self {
        Self::from_abi(AbiSink {
            data: Box::into_raw(Box::new(Served { sink, panicked: None })).cast(),
            poll_buffer: poll_buffer::<S>,
            poll_ready: poll_ready::<S>,
            send: send::<S>,
            finish: finish::<S>,
            drop: release::<S>,
        })
    }

    pub(super) fn from_abi(sink: AbiSink) -> Self {
        Self { sink, wakers: WakerCache::default() }
    }

    pub(super) fn into_abi(self) -> AbiSink {
        self.sink
    }

    /// A sink that is closed as soon as `revoked` is raised.
    pub(super) fn revocable(self, revoked: &Cancellation) -> Self {
        Self::serve(Revocable { sink: self, revoked: revoked.clone(), wait: revoked.requested() })
    }

    /// Waits for a buffer of at least `min_len` bytes to write into.
    ///
    /// # Errors
    ///
    /// [`SinkError::Closed`] or [`SinkError::TooLarge`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes no buffer.
    pub async fn buffer(&mut self, min_len: usize) -> Result<LentBuffer, SinkError> {
        poll_fn(|cx| self.poll_buffer(min_len, cx)).await
    }

    /// Sends a chunk: a filled loan at once, foreign bytes as soon as there is room.
    ///
    /// # Errors
    ///
    /// [`SinkError::Closed`]; the chunk is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is done drops the chunk; it was not sent.
    pub async fn send(&mut self, chunk: impl Into<Chunk>) -> Result<(), SinkError> {
        let chunk = chunk.into();
        if !chunk.is_lent() {
            poll_fn(|cx| self.poll_ready(cx)).await?;
        }
        self.send_now(chunk)
    }

    /// Declares the stream complete and waits for the receipt.
    ///
    /// # Errors
    ///
    /// [`CallError::Refused`] with the owner's error document, or the fault that kept it from
    /// answering. Without a receipt nothing may be taken as saved.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropped before its end, nobody knows whether the stream is complete.
    pub fn finish(self) -> impl Future<Output = Result<Bytes, CallError>> + Send + 'static {
        let mut this = self;
        let task = this.start_finish();
        async move {
            let answer = body(task.await);
            drop(this); // only now, so that the owner does not see a sender that gave up
            answer
        }
    }

    /// The polled form of [`buffer`](Self::buffer).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn poll_buffer(
        &mut self,
        min_len: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<LentBuffer, SinkError>> {
        let waker = self.wakers.address_of(cx.waker());
        // SAFETY: the sink is not dropped, `&mut self` makes this the only call, and the cache
        // keeps the waker valid.
        match unsafe { (self.sink.poll_buffer)(self.sink.data, min_len as u64, waker) } {
            AbiPoll::Pending => Poll::Pending,
            AbiPoll::Ready(lend) => {
                Poll::Ready(from_status(lend.status).map(|()| LentBuffer::from_abi(lend.buffer)))
            }
            AbiPoll::Panicked(text) => Poll::Ready(Err(closed_by(&text))),
        }
    }

    /// Ready once a foreign chunk may be sent.
    ///
    /// # Errors
    ///
    /// [`SinkError::Closed`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        let waker = self.wakers.address_of(cx.waker());
        // SAFETY: as in `poll_buffer`.
        match unsafe { (self.sink.poll_ready)(self.sink.data, waker) } {
            AbiPoll::Pending => Poll::Pending,
            AbiPoll::Ready(status) => Poll::Ready(from_status(status)),
            AbiPoll::Panicked(text) => Poll::Ready(Err(closed_by(&text))),
        }
    }

    /// Sends a chunk without waiting: a loan, or foreign bytes after
    /// [`poll_ready`](Self::poll_ready).
    ///
    /// # Errors
    ///
    /// [`SinkError::Closed`] or [`SinkError::NotReady`]; the chunk is gone.
    pub fn send_now(&mut self, chunk: Chunk) -> Result<(), SinkError> {
        // SAFETY: the sink is not dropped and `&mut self` makes this the only call.
        from_status(unsafe { (self.sink.send)(self.sink.data, chunk.into_abi()) })
    }

    fn start_finish(&mut self) -> ForeignTask {
        // SAFETY: as in `send_now`.
        ForeignTask::new(unsafe { (self.sink.finish)(self.sink.data) })
    }
}

impl fmt::Debug for SinkHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkHandle").finish_non_exhaustive()
    }
}

fn closed_by(panic: &AbiBytes) -> SinkError {
    tracing::error!(panic = panic.to_text(), "the sink's owner panicked");
    SinkError::Closed
}

/// A sink that is served, and the panic after which it is not any more.
struct Served<S> {
    sink: S,
    panicked: Option<String>,
}

impl<S: HostSink> Served<S> {
    /// Does `work`, unless the sink has panicked before.
    fn serve<T>(&mut self, work: impl FnOnce(&mut S) -> T) -> Result<T, String> {
        if let Some(text) = &self.panicked {
            return Err(text.clone());
        }
        contain(|| work(&mut self.sink)).inspect_err(|text| self.panicked = Some(text.clone()))
    }
}

// In the functions below, `data` is the box of `SinkHandle::serve`, not yet dropped, and the caller
// makes one call at a time.

unsafe extern "C" fn poll_buffer<S: HostSink>(
    data: *mut (),
    min_len: u64,
    waker: *const AbiWaker,
) -> AbiPoll<AbiLend> {
    // SAFETY: see above.
    let served = unsafe { &mut *data.cast::<Served<S>>() };
    let polled = served.serve(|sink| {
        let Ok(min_len) = usize::try_from(min_len) else {
            return Poll::Ready(Err(SinkError::TooLarge));
        };
        // SAFETY: the caller's waker is valid for this call.
        unsafe { with_waker(waker, |cx| sink.poll_buffer(min_len, cx)) }
    });
    match polled {
        Ok(Poll::Pending) => AbiPoll::Pending,
        Ok(Poll::Ready(Ok(buffer))) => {
            AbiPoll::Ready(AbiLend { status: OK, buffer: buffer.into_abi() })
        }
        Ok(Poll::Ready(Err(error))) => {
            AbiPoll::Ready(AbiLend { status: status(Err(error)), buffer: AbiBuffer::none() })
        }
        Err(text) => AbiPoll::Panicked(text.into()),
    }
}

unsafe extern "C" fn poll_ready<S: HostSink>(data: *mut (), waker: *const AbiWaker) -> AbiPoll<u8> {
    // SAFETY: see above.
    let served = unsafe { &mut *data.cast::<Served<S>>() };
    // SAFETY: the caller's waker is valid for this call.
    match served.serve(|sink| unsafe { with_waker(waker, |cx| sink.poll_ready(cx)) }) {
        Ok(Poll::Pending) => AbiPoll::Pending,
        Ok(Poll::Ready(done)) => AbiPoll::Ready(status(done)),
        Err(text) => AbiPoll::Panicked(text.into()),
    }
}

unsafe extern "C" fn send<S: HostSink>(data: *mut (), chunk: AbiBytes) -> u8 {
    // SAFETY: see above.
    let served = unsafe { &mut *data.cast::<Served<S>>() };
    let done = served.serve(|sink| sink.send(chunk.into_bytes()));
    status(done.unwrap_or_else(|panic| {
        contain_quietly("sending", || tracing::error!(panic, "a sink panicked"));
        Err(SinkError::Closed)
    }))
}

unsafe extern "C" fn finish<S: HostSink>(data: *mut ()) -> AbiTask {
    // SAFETY: see above.
    let served = unsafe { &mut *data.cast::<Served<S>>() };
    match served.serve(S::finish) {
        Ok(finishing) => {
            AbiTask::new(Box::pin(async { answer(finishing.await) }), Cancellation::new())
        }
        Err(text) => AbiTask::panicked(text),
    }
}

unsafe extern "C" fn release<S>(data: *mut ()) {
    contain_quietly("dropping a sink", || {
        // SAFETY: `data` is the box of `serve`; this is the one call of `drop`.
        drop(unsafe { Box::from_raw(data.cast::<Served<S>>()) });
    });
}

/// A sink of a request that may end before its user knows.
struct Revocable {
    sink: SinkHandle,
    revoked: Cancellation,
    wait: Requested,
}

impl Revocable {
    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Result<(), SinkError> {
        match std::pin::Pin::new(&mut self.wait).poll(cx) {
            Poll::Ready(()) => Err(SinkError::Closed),
            Poll::Pending => Ok(()),
        }
    }
}

impl HostSink for Revocable {
    fn poll_buffer(
        &mut self,
        min_len: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<LentBuffer, SinkError>> {
        self.poll_revoked(cx)?;
        self.sink.poll_buffer(min_len, cx)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        self.poll_revoked(cx)?;
        self.sink.poll_ready(cx)
    }

    fn send(&mut self, chunk: Bytes) -> Result<(), SinkError> {
        if self.revoked.is_requested() {
            return Err(SinkError::Closed);
        }
        self.sink.send_now(chunk.into())
    }

    fn finish(&mut self) -> BoxFuture<Result<Bytes, CallError>> {
        if self.revoked.is_requested() {
            return Box::pin(std::future::ready(Err(CallError::Fault(TaskFault::Revoked))));
        }
        let (finishing, revoked) = (self.sink.start_finish(), self.revoked.clone());
        Box::pin(async move { body(unless_revoked(finishing, &revoked).await.flatten()) })
    }
}
