//! A stream of an isolated plugin.
//!
//! **How.** The stream has a memory of its own, cut into slots, that parent and child share. The
//! plugin's buffers are slots: it writes in place. When a slot is sent, the parent copies it once,
//! into a buffer of the host's own sink (or into memory of its own, for bytes that the plugin had
//! elsewhere), and gives the slot back. Counters in the memory say how far both have come, see
//! [`Taker`]; no message is needed as long as both are busy.
//!
//! **Why the copy.** The child can write into a slot at any time, also after it was sent. What is
//! cut, hashed, compressed and encrypted must be the same bytes each time that it is looked at,
//! and a library must not see its input change under its hands. So nothing but the copy looks at
//! shared memory, and what the child does to the slot meanwhile decides only which bytes are
//! backed up, once, as what it sends does anyway. The size of the memory is sealed, so that it
//! cannot be cut short under the copy.

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::work::Answered;
use crate::abi::{CallError, SinkError, SinkHandle};
use crate::message;
use crate::wire::{LENT_SLOTS, SLOTS, Sent, SharedMemory, Taker, WireError};

/// A stream: the host's sink, and what is on its way there.
pub(super) struct Stream {
    /// `None` once it is being finished.
    sink: Option<SinkHandle>,
    ring: Taker,
    /// The slot that is being taken, and how much of it has been.
    present: Option<(Sent, usize)>,
    /// The call that wants the receipt.
    finish: Option<u64>,
    closed: bool,
}

/// What comes of looking after a stream.
pub(super) enum Event {
    /// Slots can be used again, and the child waits for that.
    Taken,
    /// Nothing more will be taken.
    Closed,
    /// All slots are taken, and this call wants the receipt.
    Finish(u64, Answered),
    /// There is more to take, and others wait meanwhile.
    Enough,
}

/// So many slots are taken before it is another stream's turn, and the thread looks at its clock.
const TURN: u32 = SLOTS;

impl Stream {
    pub(super) fn new(sink: SinkHandle, memory: SharedMemory) -> Self {
        let (present, finish, closed) = Default::default();
        Self { sink: Some(sink), ring: Taker::new(memory), present, finish, closed }
    }

    /// The child has declared the stream complete.
    pub(super) fn finish(&mut self, call: u64) -> Result<(), WireError> {
        match self.finish.replace(call) {
            None => Ok(()),
            Some(_) => Err(WireError::Unexpected("the end of a stream twice")),
        }
    }

    /// Moves what can be moved, as far as the turn goes.
    pub(super) fn poll_event(
        &mut self,
        turn: &mut Turn,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Event, WireError>> {
        let Some(sink) = &mut self.sink else { return Poll::Pending };
        while !self.closed {
            let (slot, mut done) = match self.present.take() {
                Some(present) => present,
                None => match self.ring.next()? {
                    Some(_) if turn.is_over() => return Poll::Ready(Ok(Event::Enough)),
                    Some(slot) => (slot, 0),
                    None => break,
                },
            };
            match take(sink, self.ring.memory(), slot, &mut done, cx) {
                Poll::Pending => {
                    self.present = Some((slot, done));
                    return match self.ring.must_tell(false) {
                        true => Poll::Ready(Ok(Event::Taken)),
                        false => Poll::Pending,
                    };
                }
                Poll::Ready(Ok(())) if done < slot.len => self.present = Some((slot, done)),
                Poll::Ready(Ok(())) => {
                    self.ring.take();
                    turn.0 += 1;
                    if self.ring.must_tell(true) {
                        return Poll::Ready(Ok(Event::Taken));
                    }
                }
                Poll::Ready(Err(_)) => {
                    self.closed = true;
                    return Poll::Ready(Ok(Event::Closed));
                }
            }
        }
        if self.ring.must_tell(false) {
            return Poll::Ready(Ok(Event::Taken));
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
                Poll::Ready(Ok(Event::Finish(call, answer)))
            }
            _ => Poll::Pending,
        }
    }
}

/// How many slots were taken in this turn.
#[derive(Default)]
pub(super) struct Turn(u32);

impl Turn {
    fn is_over(&self) -> bool {
        self.0 >= TURN
    }
}

/// What takes the place of the receipt for a stream that was closed before its end.
fn cut_short() -> CallError {
    CallError::Refused(message::encode_fault(&message::cut_short()))
}

/// Copies what one of the host's buffers takes of a slot, from `done` on.
fn take(
    sink: &mut SinkHandle,
    memory: &SharedMemory,
    sent: Sent,
    done: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<Result<(), SinkError>> {
    let left = sent.len - *done;
    let (chunk, count) = if sent.slot < LENT_SLOTS {
        // One buffer for what was one over there, if the host has any that large.
        let mut buffer = match ready!(sink.poll_buffer(left, cx)) {
            Err(SinkError::TooLarge) => ready!(sink.poll_buffer(1, cx))?,
            lent => lent?,
        };
        let count = left.min(buffer.len());
        if count == 0 {
            return Poll::Ready(Err(SinkError::Closed));
        }
        memory.copy_out(sent.slot, *done, &mut buffer[..count]);
        (buffer.freeze(count), count)
    } else {
        ready!(sink.poll_ready(cx))?;
        let mut bytes = vec![0; left];
        memory.copy_out(sent.slot, *done, &mut bytes);
        (Bytes::from(bytes).into(), left)
    };
    *done += count;
    Poll::Ready(sink.send_now(chunk))
}
