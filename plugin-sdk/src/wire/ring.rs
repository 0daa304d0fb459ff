//! Which slots of a stream were sent and which were taken, without a message for each.
//!
//! **Promise.** Slots are taken in the order in which they were sent. A side that waits is told by a
//! message, once, and only if it has said in the memory that it waits; a side that is busy is not
//! disturbed. The parent keeps its own account, and doubts each word that it reads.
//!
//! **How.** Two counters, as in any ring, and a word a side that says "tell me". Whoever waits
//! raises its word and then looks at the counter again; whoever counts looks at the other's word
//! afterwards. With a full fence between the two steps on both sides, at least one of them sees
//! the other. `tests/loom_ring.rs` compiles this file with counters that try the orders in which
//! the two can take turns and see each other's words.

use std::sync::atomic::Ordering;

use super::memory::{Counter, SharedMemory, fence};
use super::{SLOT_BYTES, SLOTS, WireError};

/// The child is told of so many at a time, if the parent has more to take: then it fills some
/// while others are taken.
const TOLD_AT_ONCE: u32 = 2;

/// A slot that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) slot: u32,
    pub(crate) len: usize,
}

/// The child's end.
#[cfg(any(test, feature = "runner"))]
impl SharedMemory {
    /// Notes that `sent`, the child's number `number`, is sent; whether the parent waits to be told.
    pub(crate) fn send(&self, number: u32, sent: Sent) -> bool {
        // A slot's length is far below 4 GiB.
        let word = u64::from(sent.slot) | (sent.len as u64) << 32;
        self.entry(number).store(word, Ordering::Relaxed);
        self.counter(Counter::Sent).store(number.wrapping_add(1), Ordering::Release);
        fence(Ordering::SeqCst);
        self.lower(Counter::ParentWaits)
    }

    /// How many slots the parent has taken.
    pub(crate) fn taken(&self) -> u32 {
        self.counter(Counter::Taken).load(Ordering::Acquire)
    }

    /// Wants to be told once more than `known` are taken; whether that is so already.
    pub(crate) fn await_taken(&self, known: u32) -> bool {
        self.counter(Counter::ChildWaits).store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.taken() != known
    }
}

impl SharedMemory {
    /// Whether the word was raised; it is not any more.
    fn lower(&self, word: Counter) -> bool {
        let word = self.counter(word);
        word.load(Ordering::Relaxed) != 0 && word.swap(0, Ordering::Relaxed) != 0
    }
}

/// The parent's end.
#[derive(Debug)]
pub(crate) struct Taker {
    memory: SharedMemory,
    /// As far as the parent has come; what the memory says of it is for the child.
    taken: u32,
    /// How many were taken since it was last looked whether the child waits.
    untold: u32,
}

impl Taker {
    /// The child tells of the first slot that it sends: nobody may have looked for one by then.
    pub(crate) fn new(memory: SharedMemory) -> Self {
        memory.counter(Counter::ParentWaits).store(1, Ordering::Relaxed);
        Self { memory, taken: 0, untold: 0 }
    }

    pub(crate) fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// The next slot that was sent, to be taken. If there is none, the child tells of the next.
    ///
    /// # Errors
    ///
    /// If what the child has written there cannot be.
    pub(crate) fn next(&mut self) -> Result<Option<Sent>, WireError> {
        let sent = self.memory.counter(Counter::Sent);
        let mut ahead = sent.load(Ordering::Acquire).wrapping_sub(self.taken);
        if ahead == 0 {
            self.memory.counter(Counter::ParentWaits).store(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            ahead = sent.load(Ordering::Acquire).wrapping_sub(self.taken);
        }
        if ahead > SLOTS {
            return Err(WireError::Unexpected("more slots than a stream has"));
        }
        if ahead == 0 {
            return Ok(None);
        }
        // Once: it may be another one at the next look.
        let word = self.memory.entry(self.taken).load(Ordering::Relaxed);
        let (slot, len) = (word as u32, (word >> 32) as usize);
        if slot >= SLOTS || len == 0 || len > SLOT_BYTES {
            return Err(WireError::Unexpected("a slot that no stream has"));
        }
        Ok(Some(Sent { slot, len }))
    }

    /// The slot that `next` has shown is the child's again.
    pub(crate) fn take(&mut self) {
        self.taken = self.taken.wrapping_add(1);
        self.untold = self.untold.saturating_add(1);
        self.memory.counter(Counter::Taken).store(self.taken, Ordering::Release);
    }

    /// Whether the child has to be told what was taken. `busy`: more can be taken now.
    pub(crate) fn must_tell(&mut self, busy: bool) -> bool {
        if self.untold == 0 || busy && self.untold < TOLD_AT_ONCE {
            return false;
        }
        self.untold = 0;
        fence(Ordering::SeqCst);
        self.memory.lower(Counter::ChildWaits)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::time::Duration;

    use super::*;

    /// Not a wait: how long a message that does come may take.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn ends() -> (SharedMemory, Taker) {
        let (memory, descriptor) = SharedMemory::new().expect("memory");
        (SharedMemory::of(&descriptor).expect("the same memory"), Taker::new(memory))
    }

    fn told(by: &Receiver<()>, what: &str) {
        by.recv_timeout(PATIENCE).expect(what);
    }

    #[test]
    fn however_the_two_take_turns_nobody_waits_in_vain_and_the_order_is_kept() {
        const COUNT: u32 = 200_000;
        // It begins just before the counters overflow.
        let begin = u32::MAX - 1000;
        let (child, mut parent) = ends();
        parent.taken = begin;
        for counter in [Counter::Sent, Counter::Taken] {
            child.counter(counter).store(begin, Ordering::Relaxed);
        }
        let (tell_parent, parent_hears) = sync_channel(64);
        let (tell_child, child_hears) = sync_channel(64);
        let sends = std::thread::spawn(move || {
            for number in (0..COUNT).map(|n| begin.wrapping_add(n)) {
                loop {
                    // Waits for more than it has seen to be too few, and for no more than that.
                    let known = child.taken();
                    if number.wrapping_sub(known) < SLOTS {
                        break;
                    }
                    if !child.await_taken(known) {
                        told(&child_hears, "the child is told of slots that were taken");
                    }
                }
                let sent = Sent { slot: number % SLOTS, len: 1 + number as usize % SLOT_BYTES };
                if child.send(number, sent) {
                    tell_parent.send(()).expect("the parent listens");
                }
            }
            (child, child_hears)
        });
        let mut taken = 0;
        while taken < COUNT {
            match parent.next().expect("an honest child") {
                Some(sent) => {
                    let number = begin.wrapping_add(taken);
                    let slot = Sent { slot: number % SLOTS, len: 1 + number as usize % SLOT_BYTES };
                    assert_eq!(sent, slot);
                    parent.take();
                    taken += 1;
                    if parent.must_tell(true) {
                        tell_child.send(()).expect("the child listens");
                    }
                }
                None => {
                    if parent.must_tell(false) {
                        tell_child.send(()).expect("the child listens");
                    }
                    told(&parent_hears, "the parent is told of slots that were sent");
                }
            }
        }
        sends.join().expect("the child ends");
    }

    #[test]
    fn what_the_child_cannot_mean_is_an_error() {
        for (slots, slot, len) in [
            (SLOTS + 1, 0, 1),
            (u32::MAX, 0, 1),
            (1, SLOTS, 1),
            (1, u32::MAX, 1),
            (1, 0, 0),
            (1, 0, SLOT_BYTES as u32 + 1),
            (1, 0, u32::MAX),
        ] {
            let (child, mut parent) = ends();
            child.entry(0).store(u64::from(slot) | u64::from(len) << 32, Ordering::Relaxed);
            child.counter(Counter::Sent).store(slots, Ordering::Relaxed);
            let next = parent.next();
            assert!(next.is_err(), "{slots} slots, {slot} of {len} bytes: {next:?}");
        }
    }

    #[test]
    fn what_was_in_a_slot_is_in_the_copy() {
        let (child, parent) = ends();
        child.copy_in(SLOTS - 1, &[1, 2, 3, 4]);
        let mut copy = [0; 2];
        parent.memory().copy_out(SLOTS - 1, 1, &mut copy);
        assert_eq!(copy, [2, 3]);
        let mut whole = vec![9; SLOT_BYTES];
        parent.memory().copy_out(SLOTS - 1, 0, &mut whole);
        assert_eq!((&whole[..4], whole[SLOT_BYTES - 1]), (&[1, 2, 3, 4][..], 0));
    }

    #[test]
    #[should_panic(expected = "are not in a slot")]
    fn a_copy_past_the_end_of_a_slot_is_refused() {
        ends().1.memory().copy_out(0, SLOT_BYTES - 1, &mut [0; 2]);
    }
}
