//! A stream of an isolated plugin.
//!
//! **How.** The stream has a memory of its own, cut into slots, that parent and child share. The
//! plugin's buffers are slots: it writes in place. When a slot is sent, the parent copies it once,
//! into a buffer of the host's own sink (or into memory of its own, for bytes that the plugin had
//! elsewhere), and gives the slot back.
//!
//! **Why the copy.** The child can write into a slot at any time, also after it was sent. What is
//! cut, hashed, compressed and encrypted must be the same bytes each time that it is looked at,
//! and a library must not see its input change under its hands. So nothing but the copy looks at
//! shared memory: it is read with `pread`, never mapped in this process, and what the child does
//! to the slot meanwhile decides only which bytes are backed up, once, as what it sends does
//! anyway. The size of the memory is sealed, so that it cannot be cut short under the read.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::work::Answered;
use crate::abi::{CallError, SinkError, SinkHandle};
use crate::message;
use crate::wire::{LENT_SLOTS, SLOT_BYTES, SLOTS, WireError};

/// The memory that parent and child share for one stream.
pub(super) struct Memory(OwnedFd);

impl Memory {
    /// A new memory, and a descriptor of it for the child.
    pub(super) fn new() -> std::io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = memfd_create(c"mercury-stream", flags)?;
        ftruncate(&memory, (SLOTS as usize * SLOT_BYTES) as u64)?;
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let other = memory.try_clone()?;
        Ok((Self(memory), other))
    }

    fn read(&self, into: &mut [u8], offset: usize) -> std::io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            match rustix::io::pread(&self.0, &mut into[done..], (offset + done) as u64) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A stream: the host's sink, and what is on its way there.
pub(super) struct Stream {
    /// `None` once it is being finished.
    sink: Option<SinkHandle>,
    memory: Memory,
    /// Slots that were sent and not yet taken, in order.
    sent: VecDeque<Slot>,
    /// The call that wants the receipt.
    finish: Option<u64>,
    closed: bool,
}

/// A slot that was sent.
struct Slot {
    number: u32,
    len: usize,
    /// How much of it has been taken.
    taken: usize,
}

/// What comes of looking after a stream.
pub(super) enum Event {
    /// A slot can be used again.
    Taken(u32),
    /// Nothing more will be taken.
    Closed,
    /// All slots are taken, and this call wants the receipt.
    Finish(u64, Answered),
}

impl Stream {
    pub(super) fn new(sink: SinkHandle, memory: Memory) -> Self {
        let (sent, finish, closed) = Default::default();
        Self { sink: Some(sink), memory, sent, finish, closed }
    }

    /// The child has filled a slot.
    pub(super) fn chunk(&mut self, slot: u32, len: u32) -> Result<(), WireError> {
        let len = len as usize;
        if slot >= SLOTS || len == 0 || len > SLOT_BYTES {
            return Err(WireError::Unexpected("a slot that no stream has"));
        }
        if self.finish.is_some() || self.sent.iter().any(|sent| sent.number == slot) {
            return Err(WireError::Unexpected("a slot that it had sent already"));
        }
        self.sent.push_back(Slot { number: slot, len, taken: 0 });
        Ok(())
    }

    /// The child has declared the stream complete.
    pub(super) fn finish(&mut self, call: u64) -> Result<(), WireError> {
        match self.finish.replace(call) {
            None => Ok(()),
            Some(_) => Err(WireError::Unexpected("the end of a stream twice")),
        }
    }

    /// Moves what can be moved.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let Some(sink) = &mut self.sink else { return Poll::Pending };
        while let Some(slot) = self.sent.front_mut().filter(|_| !self.closed) {
            match ready!(take(sink, &self.memory, slot, cx)) {
                Ok(()) if slot.taken < slot.len => {}
                Ok(()) => {
                    let number = slot.number;
                    self.sent.pop_front();
                    return Poll::Ready(Event::Taken(number));
                }
                Err(_) => {
                    self.closed = true;
                    self.sent.clear();
                    return Poll::Ready(Event::Closed);
                }
            }
        }
        match (self.finish, self.sink.take_if(|_| self.finish.is_some())) {
            (Some(call), Some(sink)) => {
                let (receipt, is_cut_short) = (sink.finish(), self.closed);
                let answer = Box::pin(async move {
                    let receipt = match receipt.await {
                        // Of less than was sent.
                        Ok(_) if is_cut_short => Err(cut_short()),
                        receipt => receipt,
                    };
                    crate::abi::answer(receipt)
                });
                Poll::Ready(Event::Finish(call, answer))
            }
            _ => Poll::Pending,
        }
    }
}

/// What takes the place of the receipt for a stream that was closed before its end.
fn cut_short() -> CallError {
    CallError::Refused(message::encode_fault(&message::cut_short()))
}

/// Copies what one of the host's buffers takes of a slot.
fn take(
    sink: &mut SinkHandle,
    memory: &Memory,
    slot: &mut Slot,
    cx: &mut Context<'_>,
) -> Poll<Result<(), SinkError>> {
    let left = slot.len - slot.taken;
    let offset = slot.number as usize * SLOT_BYTES + slot.taken;
    let gone = |error: std::io::Error| {
        tracing::error!(%error, "a stream's memory cannot be read");
        SinkError::Closed
    };
    let (chunk, count) = if slot.number < LENT_SLOTS {
        // One buffer for what was one over there, if the host has any that large.
        let mut buffer = match ready!(sink.poll_buffer(left, cx)) {
            Err(SinkError::TooLarge) => ready!(sink.poll_buffer(1, cx))?,
            lent => lent?,
        };
        let count = left.min(buffer.len());
        if count == 0 {
            return Poll::Ready(Err(SinkError::Closed));
        }
        memory.read(&mut buffer[..count], offset).map_err(gone)?;
        (buffer.freeze(count), count)
    } else {
        ready!(sink.poll_ready(cx))?;
        let mut bytes = vec![0; left];
        memory.read(&mut bytes, offset).map_err(gone)?;
        (Bytes::from(bytes).into(), left)
    };
    slot.taken += count;
    Poll::Ready(sink.send_now(chunk))
}
