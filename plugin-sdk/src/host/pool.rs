//! The buffers that a host lends to one stream.
//!
//! **Promise.** There are never more than the fixed number of them; each is lent to one holder at
//! a time, and comes back once, when the last slice of what was written into it drops, on whatever
//! thread. They start on a page boundary and are reused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::abi::{LentBuffer, SinkError};

/// Buffers start on a boundary of this many bytes, as direct file access wants.
const ALIGN_BYTES: usize = 4096;

/// A fixed number of equal buffers. Clones are the same pool.
#[derive(Clone, Debug)]
pub struct BufferPool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    count: usize,
    buffer_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<Memory>,
    /// Where each buffer begins; grows as buffers are first needed.
    made: Vec<usize>,
    lent: usize,
    lent_peak: usize,
    lends: u64,
    returns: u64,
    closed: bool,
    waiting: Vec<Waker>,
}

/// What a pool has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// How often a buffer was lent.
    pub lends: u64,
    /// How often one came back.
    pub returns: u64,
    /// How many are out.
    pub lent: usize,
    /// The most that were ever out at once.
    pub lent_peak: usize,
}

impl BufferPool {
    /// A pool of `count` buffers of `buffer_bytes` each; memory is taken when first needed.
    ///
    /// # Panics
    ///
    /// If `count` is less than two (a stream with one buffer cannot be filled and emptied at once)
    /// or `buffer_bytes` is zero.
    #[must_use]
    pub fn new(count: usize, buffer_bytes: usize) -> Self {
        assert!(count >= 2, "a stream needs two buffers, not {count}");
        assert!(buffer_bytes > 0, "a buffer holds at least one byte");
        Self(Arc::new(Shared { count, buffer_bytes, state: Mutex::default() }))
    }

    /// How many bytes each buffer holds.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.0.buffer_bytes
    }

    /// How many buffers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count
    }

    /// What the pool has done so far.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let State { lends, returns, lent, lent_peak, .. } = *self.0.lock();
        PoolStats { lends, returns, lent, lent_peak }
    }

    /// Whether `bytes` lie in a buffer of this pool.
    #[must_use]
    pub fn owns(&self, bytes: &[u8]) -> bool {
        let at = bytes.as_ptr().addr();
        let end = at.saturating_add(bytes.len());
        let state = self.0.lock();
        state.made.iter().any(|begin| at >= *begin && end <= begin + self.0.buffer_bytes)
    }

    /// Lends a buffer of at least `min_len` bytes as soon as one is free.
    ///
    /// # Errors
    ///
    /// [`SinkError::TooLarge`] if no buffer is that large, [`SinkError::Closed`] after
    /// [`close`](Self::close).
    pub fn poll_lend(
        &self,
        min_len: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<LentBuffer, SinkError>> {
        if min_len > self.0.buffer_bytes {
            return Poll::Ready(Err(SinkError::TooLarge));
        }
        let mut state = self.0.lock();
        if state.closed {
            return Poll::Ready(Err(SinkError::Closed));
        }
        let memory = match state.free.pop() {
            Some(memory) => memory,
            None if state.made.len() < self.0.count => {
                let memory = Memory::new(self.0.buffer_bytes);
                state.made.push(memory.address());
                memory
            }
            None => {
                if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    state.waiting.push(cx.waker().clone());
                }
                return Poll::Pending;
            }
        };
        state.lends += 1;
        state.lent += 1;
        state.lent_peak = state.lent_peak.max(state.lent);
        drop(state);
        Poll::Ready(Ok(LentBuffer::new(Loan { memory: Some(memory), pool: self.0.clone() })))
    }

    /// Lends nothing more; whoever waits is told. What is out still comes back.
    pub fn close(&self) {
        let woken = {
            let mut state = self.0.lock();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        wake(woken);
    }
}

fn wake(woken: Vec<Waker>) {
    // Outside the lock, because a waker runs foreign code.
    for waker in woken {
        waker.wake();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent at every point where something under the lock can panic (memory
        // may run out).
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory of one buffer: `start` is where the aligned part begins.
#[derive(Debug)]
struct Memory {
    bytes: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Memory {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + ALIGN_BYTES - 1].into_boxed_slice();
        let start = bytes.as_ptr().align_offset(ALIGN_BYTES);
        Self { bytes, start, len }
    }

    fn address(&self) -> usize {
        self.bytes.as_ptr().addr() + self.start
    }
}

/// A buffer that is out; its drop brings the memory back.
struct Loan {
    memory: Option<Memory>,
    pool: Arc<Shared>,
}

impl AsMut<[u8]> for Loan {
    fn as_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Some(memory) => &mut memory.bytes[memory.start..memory.start + memory.len],
            None => &mut [],
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let woken = {
            let mut state = self.pool.lock();
            state.returns += 1;
            state.lent -= 1;
            state.free.extend(self.memory.take());
            std::mem::take(&mut state.waiting)
        };
        wake(woken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lend(pool: &BufferPool) -> Poll<Result<LentBuffer, SinkError>> {
        pool.poll_lend(1, &mut Context::from_waker(Waker::noop()))
    }

    #[track_caller]
    fn lent(pool: &BufferPool) -> LentBuffer {
        match lend(pool) {
            Poll::Ready(Ok(buffer)) => buffer,
            other => panic!("no buffer: {other:?}"),
        }
    }

    #[test]
    fn a_buffer_is_aligned_recognised_and_reused() {
        let pool = BufferPool::new(2, 10_000);
        let buffer = lent(&pool);
        let at = buffer.as_ptr().addr();
        assert_eq!((at % ALIGN_BYTES, buffer.len()), (0, 10_000));
        assert!(pool.owns(&buffer) && !pool.owns(b"elsewhere"));
        drop(buffer.freeze(5));
        assert_eq!(lent(&pool).as_ptr().addr(), at);
        let expected = PoolStats { lends: 2, returns: 2, lent: 0, lent_peak: 1 };
        assert_eq!(pool.stats(), expected);
    }

    #[test]
    fn no_more_than_the_fixed_number_is_out_and_closing_wakes_whoever_waits() {
        let pool = BufferPool::new(2, 64);
        let (one, _two) = (lent(&pool), lent(&pool));
        assert!(lend(&pool).is_pending());
        drop(one);
        let _three = lent(&pool);
        assert_eq!(pool.stats().lent_peak, 2);
        let waits = pool.clone();
        let thread = std::thread::spawn(move || {
            futures::executor::block_on(std::future::poll_fn(|cx| waits.poll_lend(1, cx)))
        });
        pool.close();
        let told = thread.join().expect("the thread ends");
        assert_eq!(told.map(|_| ()), Err(SinkError::Closed));
    }

    #[test]
    fn a_size_that_no_buffer_has_is_refused_at_once() {
        let pool = BufferPool::new(2, 64);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(pool.poll_lend(65, &mut cx), Poll::Ready(Err(SinkError::TooLarge))));
    }
}
