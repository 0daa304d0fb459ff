//! A sink whose chunks come out at the host's end.
//!
//! **Promise.** Chunks come out in order, at the address where the plugin wrote them. The sender
//! holds at most the pool's buffers and has at most as many foreign chunks queued. `finish` is
//! answered by whoever receives: with a receipt once the bytes are safe, or not at all if the
//! receiver is dropped first.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::channel::oneshot;

use super::pool::BufferPool;
use crate::abi::{BoxFuture, CallError, HostSink, LentBuffer, SinkError, TaskFault};

/// The sending end, to be handed to a plugin.
#[derive(Debug)]
pub struct ChannelSink {
    pool: BufferPool,
    shared: Arc<Shared>,
}

/// The receiving end, the host's. Dropping it closes the sink.
#[derive(Debug)]
pub struct ChunkReceiver {
    pool: BufferPool,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Queued>,
    foreign_queued: usize,
    stats: ChannelStats,
    end: End,
    /// Why the receiver closed the stream before the sender had finished it.
    failure: Option<Bytes>,
    closed: bool,
    sender: Option<Waker>,
    receiver: Option<Waker>,
}

#[derive(Debug)]
struct Queued {
    chunk: Bytes,
    foreign: bool,
}

/// How the sender's part ended.
#[derive(Debug, Default)]
enum End {
    #[default]
    Open,
    Finished(oneshot::Sender<Result<Bytes, CallError>>),
    /// The plugin dropped the sink without finishing it.
    GivenUp,
}

/// What went through a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStats {
    /// Chunks that lie in a buffer of the pool: nothing was copied.
    pub lent: u64,
    /// Chunks that lie elsewhere, in memory of the plugin's.
    pub foreign: u64,
    /// Bytes in all.
    pub bytes: u64,
}

impl ChannelSink {
    /// A sink that lends from `pool`, and its receiving end.
    #[must_use]
    pub fn new(pool: BufferPool) -> (Self, ChunkReceiver) {
        let shared = Arc::<Shared>::default();
        (Self { pool: pool.clone(), shared: shared.clone() }, ChunkReceiver { pool, shared })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl HostSink for ChannelSink {
    fn poll_buffer(
        &mut self,
        min_len: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<LentBuffer, SinkError>> {
        self.pool.poll_lend(min_len, cx)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        let mut state = self.shared.lock();
        if state.closed {
            return Poll::Ready(Err(SinkError::Closed));
        }
        if state.foreign_queued < self.pool.count() {
            return Poll::Ready(Ok(()));
        }
        state.sender = Some(cx.waker().clone());
        Poll::Pending
    }

    fn send(&mut self, chunk: Bytes) -> Result<(), SinkError> {
        let foreign = !self.pool.owns(&chunk);
        let woken = {
            let mut state = self.shared.lock();
            if state.closed || !matches!(state.end, End::Open) {
                return Err(SinkError::Closed);
            }
            if chunk.is_empty() {
                // It lies nowhere, so it would count as foreign, whatever it was made of.
                return Ok(());
            }
            if foreign {
                if state.foreign_queued >= self.pool.count() {
                    return Err(SinkError::NotReady);
                }
                state.foreign_queued += 1;
                state.stats.foreign += 1;
            } else {
                state.stats.lent += 1;
            }
            state.stats.bytes += chunk.len() as u64;
            state.queue.push_back(Queued { chunk, foreign });
            state.receiver.take()
        };
        wake(woken);
        Ok(())
    }

    fn finish(&mut self) -> BoxFuture<Result<Bytes, CallError>> {
        let (tell, answer) = oneshot::channel();
        let woken = {
            let mut state = self.shared.lock();
            if let Some(failure) = state.failure.clone() {
                let _ = tell.send(Err(CallError::Refused(failure)));
            } else if !state.closed && matches!(state.end, End::Open) {
                state.end = End::Finished(tell);
            }
            state.receiver.take()
        };
        wake(woken);
        Box::pin(async { answer.await.unwrap_or(Err(CallError::Fault(TaskFault::Revoked))) })
    }
}

impl Drop for ChannelSink {
    fn drop(&mut self) {
        let woken = {
            let mut state = self.shared.lock();
            if matches!(state.end, End::Open) {
                state.end = End::GivenUp;
            }
            state.receiver.take()
        };
        wake(woken);
    }
}

impl ChunkReceiver {
    /// The next chunk, or `None` when there will be no more; then [`is_finished`](Self::is_finished)
    /// says whether the stream is complete.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Bytes> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The polled form of [`recv`](Self::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.shared.lock();
        let Some(Queued { chunk, foreign }) = state.queue.pop_front() else {
            if !matches!(state.end, End::Open) {
                return Poll::Ready(None);
            }
            state.receiver = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let mut woken = None;
        if foreign {
            state.foreign_queued -= 1;
            woken = state.sender.take();
        }
        drop(state);
        wake(woken);
        Poll::Ready(Some(chunk))
    }

    /// Whether the sender has declared the stream complete.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.shared.lock().end, End::Finished(_))
    }

    /// Answers the sender's `finish`: with the receipt, once every byte is safe, or with the error
    /// document that says why they are not. Nothing happens if the sender did not finish.
    pub fn complete(self, receipt: Result<Bytes, Bytes>) {
        let end = {
            let mut state = self.shared.lock();
            match state.end {
                End::Finished(_) => std::mem::take(&mut state.end),
                _ => return,
            }
        };
        if let End::Finished(tell) = end {
            // Nobody listens if the plugin was abandoned meanwhile.
            let _ = tell.send(receipt.map_err(CallError::Refused));
        }
    }

    /// Closes the stream: whatever the sender does next is refused, and its `finish` is answered
    /// with `error`, the document that says why.
    pub fn fail(self, error: Bytes) {
        {
            let mut state = self.shared.lock();
            if matches!(state.end, End::Open) {
                state.failure = Some(error.clone());
            }
        }
        self.complete(Err(error));
    }

    /// What went through so far.
    #[must_use]
    pub fn stats(&self) -> ChannelStats {
        self.shared.lock().stats
    }
}

impl Drop for ChunkReceiver {
    fn drop(&mut self) {
        // First, so that a sender that finds the sink closed finds no buffer either.
        self.pool.close();
        let (queue, woken, end) = {
            let mut state = self.shared.lock();
            state.closed = true;
            let end = std::mem::replace(&mut state.end, End::GivenUp);
            (std::mem::take(&mut state.queue), state.sender.take(), end)
        };
        // Outside the lock: dropping a chunk, or telling the sender, runs foreign code.
        drop((queue, end));
        wake(woken);
    }
}
