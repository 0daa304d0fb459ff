//! A sink of the parent's, as the plugin fills it.
//!
//! **How.** The plugin's buffers are slots of the stream's memory: what is written there is where
//! the parent reads it. A slot comes back when the parent has taken it and the plugin holds no
//! slice of it any more. Bytes that the plugin has elsewhere are copied into slots of their own,
//! so that a plugin that holds all its buffers does not wait for itself.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

use super::connection::Connection;
use super::mapping::Mapping;
use crate::abi::{BoxFuture, CallError, HostSink, LentBuffer, SinkError};
use crate::wire::{LENT_SLOTS, SLOT_BYTES, SLOTS, ToHost};

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
    mapping: Mapping,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    free: Vec<u32>,
    free_foreign: Vec<u32>,
    /// Chunks that the parent has not taken yet, by their slots.
    sent: BTreeMap<u32, Bytes>,
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
        let mapping = Mapping::new(&memory)?;
        let state = State {
            free: (0..LENT_SLOTS).rev().collect(),
            free_foreign: (LENT_SLOTS..SLOTS).rev().collect(),
            ..State::default()
        };
        let slots = Arc::new(Slots { request, sink, mapping, state: Mutex::new(state) });
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

    /// The parent has taken a slot.
    pub(super) fn taken(&self, connection: &Connection, slot: u32) {
        let chunk = {
            let mut state = self.lock();
            if slot >= LENT_SLOTS {
                state.free_foreign.push(slot);
            }
            state.sent.remove(&slot)
        };
        // Its last slice gives the slot back, so not under the lock.
        drop(chunk);
        self.pump(connection);
        self.wake();
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
            // Dropped after the lock: it may be the last slice of a slot.
            let mut spent = Bytes::new();
            // One message at a time under the lock, so that they leave in order.
            let mut state = self.lock();
            let Some(queued) = state.queue.pop_front() else { return };
            let (request, sink) = (self.request, self.sink);
            let message = match queued {
                Queued::Lent(slot, chunk) => {
                    let len = chunk.len() as u32;
                    state.sent.insert(slot, chunk);
                    ToHost::Chunk { request, sink, slot, len }
                }
                Queued::Foreign(mut bytes) => {
                    let Some(slot) = state.free_foreign.pop() else {
                        state.queue.push_front(Queued::Foreign(bytes));
                        return;
                    };
                    let len = bytes.len().min(SLOT_BYTES);
                    // SAFETY: the slot was free, and is nobody's until the parent has taken it.
                    let memory = unsafe { self.mapping.slot(slot) };
                    memory[..len].copy_from_slice(&bytes[..len]);
                    bytes.advance(len);
                    match bytes.is_empty() {
                        true => spent = bytes,
                        false => state.queue.push_front(Queued::Foreign(bytes)),
                    }
                    ToHost::Chunk { request, sink, slot, len: len as u32 }
                }
                Queued::Finish(call) => ToHost::Finish { request, call, sink },
            };
            // Without a parent nothing matters any more.
            let _ = connection.say(&message, Bytes::new(), None);
            drop(state);
            drop(spent);
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
        unsafe { self.slots.mapping.slot(self.slot) }
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
        let mut state = self.slots.lock();
        if state.closed {
            return Poll::Ready(Err(SinkError::Closed));
        }
        match state.free.pop() {
            Some(slot) => {
                drop(state);
                Poll::Ready(Ok(LentBuffer::new(Loan { slots: self.slots.clone(), slot })))
            }
            None => state.wait(cx),
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        let mut state = self.slots.lock();
        match (state.closed, state.has_room()) {
            (true, _) => Poll::Ready(Err(SinkError::Closed)),
            (false, true) => Poll::Ready(Ok(())),
            (false, false) => state.wait(cx),
        }
    }

    fn send(&mut self, chunk: Bytes) -> Result<(), SinkError> {
        let mut state = self.slots.lock();
        if state.closed || self.finished {
            return Err(SinkError::Closed);
        }
        if chunk.is_empty() {
            return Ok(());
        }
        let slot = self.slots.mapping.slot_at(chunk.as_ptr());
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
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether there is room for bytes that lie elsewhere.
    fn has_room(&self) -> bool {
        self.queue.is_empty() && !self.free_foreign.is_empty()
    }

    fn is_sent(&self, slot: u32) -> bool {
        let queued = |queued: &Queued| matches!(queued, Queued::Lent(sent, _) if *sent == slot);
        self.sent.contains_key(&slot) || self.queue.iter().any(queued)
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
