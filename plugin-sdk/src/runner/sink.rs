//! A sink of the parent's, as the plugin fills it.
//!
//! **How.** The plugin's buffers are slots of the stream's memory: what is written there is where
//! the parent reads it. A slot comes back when the parent has taken it and the plugin holds no
//! slice of it any more. Bytes that the plugin has elsewhere are copied into slots of their own,
//! so that a plugin that holds all its buffers does not wait for itself. What the parent has taken
//! is seen in the memory; it sends a message only to a plugin that waits.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};

use super::connection::Connection;
use crate::abi::{BoxFuture, CallError, HostSink, LentBuffer, SinkError};
use crate::wire::{LENT_SLOTS, SLOT_BYTES, SLOTS, Sent, SharedMemory, ToHost};

/// The sink that the plugin has.
pub(super) struct ChildSink {
    connection: Arc<Connection>,
    slots: Arc<Slots>,
    finished: bool,
}

/// The slots of a sink, and what is on its way in them.
pub(super) struct Slots {
    request: u64,
    sink: u64,
    memory: SharedMemory,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    free: Vec<u32>,
    free_foreign: Vec<u32>,
    /// The slots that the parent had not taken when that was last looked at, in order, and the
    /// chunks that lie in those that are lent.
    sent: VecDeque<(u32, Bytes)>,
    /// How many slots were sent in all, and how many of them are known to be taken.
    sent_count: u32,
    taken_count: u32,
    /// What waits for a slot, and what waits behind it.
    queue: VecDeque<Queued>,
    closed: bool,
    waiting: Vec<Waker>,
}

enum Queued {
    Lent(u32, Bytes),
    Foreign(Bytes),
    Finish(u64),
}

impl ChildSink {
    pub(super) fn new(
        connection: Arc<Connection>,
        request: u64,
        sink: u64,
        memory: OwnedFd,
    ) -> io::Result<Self> {
        let memory = SharedMemory::of(&memory)?;
        let state = State {
            free: (0..LENT_SLOTS).rev().collect(),
            free_foreign: (LENT_SLOTS..SLOTS).rev().collect(),
            ..State::default()
        };
        let slots = Arc::new(Slots { request, sink, memory, state: Mutex::new(state) });
        let mut sinks = connection.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        sinks.insert((request, sink), slots.clone());
        drop(sinks);
        Ok(Self { connection, slots, finished: false })
    }
}

impl Slots {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent wherever something under the lock can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parent has taken slots.
    pub(super) fn taken(&self, connection: &Connection) {
        self.pump(connection);
        self.wake();
    }

    /// Gives back the slots that the parent has taken; whether there were any.
    fn reap(&self) -> bool {
        let chunks: Vec<Bytes> = {
            let mut state = self.lock();
            let count = self.memory.taken().wrapping_sub(state.taken_count) as usize;
            let taken: Vec<_> = (0..count).map_while(|_| state.sent.pop_front()).collect();
            state.taken_count = state.taken_count.wrapping_add(taken.len() as u32);
            let foreign = taken.iter().filter(|(slot, _)| *slot >= LENT_SLOTS);
            state.free_foreign.extend(foreign.map(|(slot, _)| slot));
            taken.into_iter().map(|(_, chunk)| chunk).collect()
        };
        // The last slice of a chunk gives its slot back, so not under the lock.
        !chunks.is_empty()
    }

    /// The parent takes nothing any more.
    pub(super) fn close(&self) {
        let (sent, queue) = {
            let mut state = self.lock();
            state.closed = true;
            (std::mem::take(&mut state.sent), self.drop_queue(&mut state))
        };
        drop((sent, queue));
        self.wake();
    }

    /// Everything that is queued but the question for the receipt, which says why it closed.
    fn drop_queue(&self, state: &mut State) -> VecDeque<Queued> {
        let queued = std::mem::take(&mut state.queue).into_iter();
        let (kept, dropped) = queued.partition(|queued| matches!(queued, Queued::Finish(_)));
        state.queue = kept;
        dropped
    }

    fn wake(&self) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        for waker in waiting {
            waker.wake();
        }
    }

    /// Sends what is queued, as far as there are slots.
    fn pump(&self, connection: &Connection) {
        loop {
            self.reap();
            // Dropped after the lock: it may be the last slice of a slot.
            let mut spent = Bytes::new();
            // One at a time under the lock, so that they leave in order.
            let mut state = self.lock();
            let Some(queued) = state.queue.pop_front() else { return };
            match queued {
                Queued::Lent(slot, chunk) => {
                    let len = chunk.len();
                    self.send(&mut state, connection, Sent { slot, len }, chunk);
                }
                Queued::Foreign(mut bytes) => {
                    let Some(slot) = state.free_foreign.pop() else {
                        state.queue.push_front(Queued::Foreign(bytes));
                        if self.memory.await_taken(state.taken_count) {
                            continue;
                        }
                        return;
                    };
                    let len = bytes.len().min(SLOT_BYTES);
                    self.memory.copy_in(slot, &bytes[..len]);
                    bytes.advance(len);
                    match bytes.is_empty() {
                        true => spent = bytes,
                        false => state.queue.push_front(Queued::Foreign(bytes)),
                    }
                    self.send(&mut state, connection, Sent { slot, len }, Bytes::new());
                }
                Queued::Finish(call) => {
                    let (request, sink) = (self.request, self.sink);
                    let message = ToHost::Finish { request, call, sink };
                    // Without a parent nothing matters any more.
                    let _ = connection.say(&message, Bytes::new(), None);
                }
            }
            drop(state);
            drop(spent);
        }
    }

    fn send(&self, state: &mut State, connection: &Connection, sent: Sent, chunk: Bytes) {
        let number = state.sent_count;
        state.sent_count = number.wrapping_add(1);
        state.sent.push_back((sent.slot, chunk));
        if self.memory.send(number, sent) {
            let message = ToHost::Sent { request: self.request, sink: self.sink };
            // As above.
            let _ = connection.say(&message, Bytes::new(), None);
        }
    }

    /// Tries `get` until it has something, or the waker of `cx` is woken when it is to try again.
    fn wait_for<T>(
        &self,
        connection: &Connection,
        cx: &mut Context<'_>,
        mut get: impl FnMut(&mut State) -> Option<T>,
    ) -> Poll<Result<T, SinkError>> {
        loop {
            let mut state = self.lock();
            if state.closed {
                return Poll::Ready(Err(SinkError::Closed));
            }
            if let Some(got) = get(&mut state) {
                return Poll::Ready(Ok(got));
            }
            state.wait(cx);
            if !self.memory.await_taken(state.taken_count) {
                return Poll::Pending;
            }
            drop(state);
            self.pump(connection);
        }
    }
}

/// A slot that the plugin writes into.
struct Loan {
    slots: Arc<Slots>,
    slot: u32,
}

impl AsMut<[u8]> for Loan {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the slot was free, and is this loan's until it drops.
        unsafe { self.slots.memory.slot(self.slot) }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.slots.lock().free.push(self.slot);
        self.slots.wake();
    }
}

impl HostSink for ChildSink {
    fn poll_buffer(
        &mut self,
        min_len: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<LentBuffer, SinkError>> {
        if min_len > SLOT_BYTES {
            return Poll::Ready(Err(SinkError::TooLarge));
        }
        let slot = ready!(self.slots.wait_for(&self.connection, cx, |state| state.free.pop()))?;
        Poll::Ready(Ok(LentBuffer::new(Loan { slots: self.slots.clone(), slot })))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        self.slots.wait_for(&self.connection, cx, |state| state.has_room().then_some(()))
    }

    fn send(&mut self, chunk: Bytes) -> Result<(), SinkError> {
        let mut state = self.slots.lock();
        if state.closed || self.finished {
            return Err(SinkError::Closed);
        }
        if chunk.is_empty() {
            return Ok(());
        }
        let slot = self.slots.memory.slot_at(chunk.as_ptr());
        let own = slot.filter(|slot| *slot < LENT_SLOTS && !state.is_sent(*slot));
        match own {
            Some(slot) => state.queue.push_back(Queued::Lent(slot, chunk)),
            None if state.has_room() => state.queue.push_back(Queued::Foreign(chunk)),
            None => return Err(SinkError::NotReady),
        }
        drop(state);
        self.slots.pump(&self.connection);
        Ok(())
    }

    fn finish(&mut self) -> BoxFuture<Result<Bytes, CallError>> {
        self.finished = true;
        let (call, asked) = self.connection.expect(self.slots.request);
        self.slots.lock().queue.push_back(Queued::Finish(call));
        self.slots.pump(&self.connection);
        Box::pin(async move { asked.answer().await.into_bytes() })
    }
}

impl State {
    fn wait(&mut self, cx: &mut Context<'_>) {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
    }

    /// Whether there is room for bytes that lie elsewhere.
    fn has_room(&self) -> bool {
        self.queue.is_empty() && !self.free_foreign.is_empty()
    }

    fn is_sent(&self, slot: u32) -> bool {
        let queued = |queued: &Queued| matches!(queued, Queued::Lent(sent, _) if *sent == slot);
        self.sent.iter().any(|(sent, _)| *sent == slot) || self.queue.iter().any(queued)
    }
}

impl Drop for ChildSink {
    fn drop(&mut self) {
        let Slots { request, sink, .. } = *self.slots;
        let mut sinks = self.connection.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        sinks.remove(&(request, sink));
        drop(sinks);
        let (sent, queue) = {
            let mut state = self.slots.lock();
            state.closed = true;
            (std::mem::take(&mut state.sent), std::mem::take(&mut state.queue))
        };
        drop((sent, queue));
        // The parent drops its end, unless it has finished it.
        let _ = self.connection.say(&ToHost::DropSink { request, sink }, Bytes::new(), None);
    }
}
