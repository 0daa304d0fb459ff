//! Streams of the kit's host: buffers of any size, an archive of any pace.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use fsm_core::{Fault, RunId};
use futures::{
    FutureExt,
    future::{BoxFuture, ready},
};

use super::floor::Floor;
use crate::{
    Receipt,
    abi::{CallError, HostSink, HostSource, LentBuffer, SinkError},
    message::{self, StreamOpen},
};

/// No host lends more in one piece.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// How a stream's buffers are, and how the archive takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// How many there are.
    pub(super) buffers: usize,
    /// How many bytes one has; more if more are asked for.
    pub(super) bytes: usize,
    /// How often the plugin has to ask in vain before the archive takes a chunk.
    pub(super) slow: usize,
    /// Whether chunks are kept to the end, and longer.
    pub(super) kept: bool,
}

impl Default for Shape {
    /// Small ones, so that a small item takes several.
    fn default() -> Self {
        Shape { buffers: 4, bytes: 4096, slow: 0, kept: false }
    }
}

/// What went through the streams of a play.
#[derive(Debug, Default)]
pub(super) struct StreamStats {
    pub(super) lent: AtomicUsize,
    pub(super) foreign: AtomicUsize,
    pub(super) foreign_bytes_max: AtomicUsize,
    /// Chunks that are kept, with the hash that they had when they came.
    kept: Mutex<Vec<(Bytes, blake3::Hash)>>,
}

impl StreamStats {
    fn keep(&self, chunk: Bytes) {
        let hash = blake3::hash(&chunk);
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push((chunk, hash));
    }

    /// How many chunks were kept, and how many of them are no longer what they were.
    pub(super) fn kept(&self) -> (usize, usize) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = kept.iter().filter(|(chunk, hash)| blake3::hash(chunk) != *hash).count();
        (kept.len(), changed)
    }
}

/// The buffers of one stream that are out.
#[derive(Default)]
struct Loans(Mutex<Out>);

#[derive(Default)]
struct Out {
    /// Where each begins, and its length.
    at: Vec<(usize, usize)>,
    waiting: Option<Waker>,
}

impl Loans {
    fn out(&self) -> MutexGuard<'_, Out> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owns(&self, chunk: &[u8]) -> bool {
        let at = chunk.as_ptr().addr();
        self.out().at.iter().any(|&(start, len)| at >= start && at + chunk.len() <= start + len)
    }
}

/// A buffer that is out.
struct Loan {
    memory: Vec<u8>,
    loans: Arc<Loans>,
}

impl AsMut<[u8]> for Loan {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let waiting = {
            let mut out = self.loans.out();
            let at = self.memory.as_ptr().addr();
            out.at.retain(|&(start, _)| start != at);
            out.waiting.take()
        };
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

type Gate = BoxFuture<'static, Result<(), Fault>>;

/// A stream that is being written. Dropped unfinished, it leaves its take unfinished.
struct KitSink {
    floor: Arc<Floor>,
    run: RunId,
    open: StreamOpen,
    loans: Arc<Loans>,
    queue: VecDeque<Bytes>,
    received: Vec<u8>,
    patience: usize,
    /// What the plugin asks for now, until it was let through.
    gate: Option<Gate>,
    is_through: bool,
    failure: Option<Fault>,
}

pub(super) fn sink(floor: Arc<Floor>, run: RunId, open: StreamOpen) -> impl HostSink {
    let (loans, queue, received) = Default::default();
    let patience = floor.scope.shape.slow;
    KitSink {
        floor,
        run,
        open,
        loans,
        queue,
        received,
        patience,
        gate: None,
        is_through: false,
        failure: None,
    }
}

impl KitSink {
    /// Whether the plugin is let through with what it asks for, once each time.
    fn poll_gate(&mut self, op: &'static str, cx: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        if self.failure.is_some() {
            return Poll::Ready(Err(SinkError::Closed));
        }
        if self.is_through {
            return Poll::Ready(Ok(()));
        }
        let gate = self.gate.get_or_insert_with(|| {
            let (floor, run) = (Arc::clone(&self.floor), self.run.clone());
            Box::pin(async move { floor.cross(&run, op, || Ok(())).await })
        });
        let Poll::Ready(let_through) = gate.poll_unpin(cx) else { return Poll::Pending };
        self.gate = None;
        match let_through {
            Ok(()) => {
                self.is_through = true;
                Poll::Ready(Ok(()))
            }
            Err(fault) => {
                self.failure = Some(fault);
                Poll::Ready(Err(SinkError::Closed))
            }
        }
    }

    /// The archive takes the oldest chunk.
    fn take_one(&mut self) {
        if let Some(chunk) = self.queue.pop_front() {
            self.received.extend_from_slice(&chunk);
            if self.floor.scope.shape.kept {
                self.floor.stats.keep(chunk);
            }
            self.patience = self.floor.scope.shape.slow;
        }
    }
}

impl HostSink for KitSink {
    fn poll_buffer(
        &mut self,
        min_len: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<LentBuffer, SinkError>> {
        if min_len > BUFFER_BYTES_MAX {
            return Poll::Ready(Err(SinkError::TooLarge));
        }
        match self.poll_gate("stream.buffer", cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        let shape = self.floor.scope.shape;
        let is_out = |loans: &Loans| !shape.kept && loans.out().at.len() >= shape.buffers;
        if is_out(&self.loans) && self.patience == 0 {
            self.take_one();
        }
        if is_out(&self.loans) {
            if self.queue.is_empty() {
                // The plugin holds all of them itself.
                self.loans.out().waiting = Some(cx.waker().clone());
            } else {
                self.patience = self.patience.saturating_sub(1);
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        self.is_through = false;
        let memory = vec![0; min_len.max(shape.bytes).max(1)];
        self.loans.out().at.push((memory.as_ptr().addr(), memory.len()));
        Poll::Ready(Ok(LentBuffer::new(Loan { memory, loans: Arc::clone(&self.loans) })))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        let let_through = self.poll_gate("stream.ready", cx);
        if let_through == Poll::Ready(Ok(())) {
            self.is_through = false;
        }
        let_through
    }

    fn send(&mut self, chunk: Bytes) -> Result<(), SinkError> {
        if self.failure.is_some() {
            return Err(SinkError::Closed);
        }
        if chunk.is_empty() {
            return Ok(());
        }
        let stats = &self.floor.stats;
        if self.loans.owns(&chunk) {
            stats.lent.fetch_add(1, SeqCst);
        } else {
            stats.foreign.fetch_add(1, SeqCst);
            stats.foreign_bytes_max.fetch_max(chunk.len(), SeqCst);
        }
        self.queue.push_back(chunk);
        if self.floor.scope.shape.slow == 0 {
            self.take_one();
        }
        Ok(())
    }

    fn finish(&mut self) -> BoxFuture<'static, Result<Bytes, CallError>> {
        if let Some(fault) = self.failure.clone() {
            return Box::pin(ready(Err(refused(&fault))));
        }
        while !self.queue.is_empty() {
            self.take_one();
        }
        let bytes = Bytes::from(std::mem::take(&mut self.received));
        let StreamOpen { take, stream } = self.open.clone();
        let hash = blake3::hash(&bytes).to_hex().to_string();
        let receipt = Receipt { take, stream, length: bytes.len() as u64, hash };
        let (floor, run) = (Arc::clone(&self.floor), self.run.clone());
        Box::pin(async move {
            let hold = || {
                floor.stream_finished(receipt.clone(), bytes)?;
                message::encode(&receipt)
            };
            floor.cross(&run, "stream.finish", hold).await.map_err(|fault| refused(&fault))
        })
    }
}

/// A stream of a point.
struct KitSource {
    floor: Arc<Floor>,
    run: RunId,
    bytes: Bytes,
}

pub(super) fn source(floor: Arc<Floor>, run: RunId, bytes: Bytes) -> impl HostSource {
    KitSource { floor, run, bytes }
}

impl HostSource for KitSource {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, len: u64) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let end = self.len();
        // No more than the stream's length, which is a `usize`.
        let from = offset.min(end) as usize;
        let to = offset.saturating_add(len).min(end) as usize;
        let part = self.bytes.slice(from..to);
        let (floor, run) = (Arc::clone(&self.floor), self.run.clone());
        Box::pin(async move {
            let read = floor.cross(&run, "source.read", || Ok(part)).await;
            read.map_err(|fault| refused(&fault))
        })
    }
}

fn refused(fault: &Fault) -> CallError {
    CallError::Refused(message::encode_fault(fault))
}
