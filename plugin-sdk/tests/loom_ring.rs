//! Every order in which the two sides of a stream's memory can take turns, and every older word that
//! one may still see of the other's.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p plugin-sdk --release --test loom_ring -- --nocapture
//! ```
//!
//! The file under test is the real one, compiled here a second time, with counters of loom's in the
//! place of the shared memory and with fewer slots. A side that waits in vain is a deadlock, which
//! loom reports. Each scene prints how many orders were tried.
#![cfg(loom)]
#![allow(dead_code, reason = "the ring is used here in part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicU64 as StdAtomicU64, Ordering};

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use memory::SharedMemory;
use ring::{Sent, Taker};

#[path = "../src/wire/ring.rs"]
mod ring;

/// The memory: the same words, in the same roles.
mod memory {
    pub(crate) use loom::sync::atomic::fence;
    use loom::sync::atomic::{AtomicU32, AtomicU64};

    use super::{Arc, SLOTS};

    #[derive(Clone, Copy, Debug)]
    #[repr(usize)]
    pub(crate) enum Counter {
        Sent,
        Taken,
        ParentWaits,
        ChildWaits,
    }

    #[derive(Clone, Debug)]
    pub(crate) struct SharedMemory(Arc<([AtomicU32; 4], Vec<AtomicU64>)>);

    impl SharedMemory {
        pub(crate) fn new() -> Self {
            let counters = std::array::from_fn(|_| AtomicU32::new(0));
            let entries = (0..SLOTS.next_power_of_two()).map(|_| AtomicU64::new(0));
            Self(Arc::new((counters, entries.collect())))
        }

        pub(crate) fn counter(&self, which: Counter) -> &AtomicU32 {
            &self.0.0[which as usize]
        }

        pub(crate) fn entry(&self, number: u32) -> &AtomicU64 {
            let entries = &self.0.1;
            &entries[number as usize % entries.len()]
        }
    }
}

/// Fewer than there are, so that the child waits soon.
const SLOTS: u32 = 2;
const SLOT_BYTES: usize = 1 << 20;

/// What the parent says of a child that is not honest. These are.
#[derive(Debug)]
enum WireError {
    Unexpected(&'static str),
}

/// Messages to one side, which has to be told of nothing else.
#[derive(Default)]
struct Messages {
    count: Mutex<u32>,
    came: Condvar,
}

impl Messages {
    fn tell(&self) {
        *self.count.lock().unwrap() += 1;
        self.came.notify_one();
    }

    fn await_one(&self) {
        let mut count = self.count.lock().unwrap();
        while *count == 0 {
            count = self.came.wait(count).unwrap();
        }
        *count -= 1;
    }
}

/// What both sides have.
struct Between {
    to_parent: Messages,
    to_child: Messages,
    /// What is in the slots. Loom sees whether one is read before it was written, or written while
    /// it is read.
    slots: [UnsafeCell<u32>; SLOTS as usize],
}

/// The child: sends `count` slots, and waits where none is free.
fn send(memory: &SharedMemory, between: &Between, count: u32) {
    for number in 0..count {
        loop {
            let taken = memory.taken();
            if number - taken < SLOTS {
                break;
            }
            if !memory.await_taken(taken) {
                between.to_child.await_one();
            }
        }
        let slot = number % SLOTS;
        // SAFETY: the parent has taken what was there; loom checks it.
        between.slots[slot as usize].with_mut(|content| unsafe { *content = number });
        if memory.send(number, Sent { slot, len: 1 + number as usize }) {
            between.to_parent.tell();
        }
    }
}

/// The parent: takes them. `busy` tells the child as rarely as it is told at all.
fn take(parent: &mut Taker, between: &Between, count: u32) {
    let mut number = 0;
    while number < count {
        match parent.next().expect("an honest child") {
            Some(sent) => {
                assert_eq!(sent, Sent { slot: number % SLOTS, len: 1 + number as usize });
                // SAFETY: the child writes there only once it is taken; loom checks it.
                let content = between.slots[sent.slot as usize].with(|content| unsafe { *content });
                assert_eq!(content, number);
                parent.take();
                number += 1;
                if parent.must_tell(true) {
                    between.to_child.tell();
                }
            }
            None => {
                if parent.must_tell(false) {
                    between.to_child.tell();
                }
                between.to_parent.await_one();
            }
        }
    }
}

/// The two sides with `count` slots to send, in every order.
#[track_caller]
fn explore(name: &str, count: u32, preemptions: Option<usize>) {
    let orders = StdArc::new(StdAtomicU64::new(0));
    let counted = StdArc::clone(&orders);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.into_iter().chain(preemptions).min();
    builder.max_branches = 20_000;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let memory = SharedMemory::new();
        let mut parent = Taker::new(memory.clone());
        let between = Arc::new(Between {
            to_parent: Messages::default(),
            to_child: Messages::default(),
            slots: std::array::from_fn(|_| UnsafeCell::new(u32::MAX)),
        });
        let theirs = Arc::clone(&between);
        let child = thread::spawn(move || send(&memory, &theirs, count));
        take(&mut parent, &between, count);
        child.join().unwrap();
    });
    println!("{name}: {} orders", orders.load(Ordering::Relaxed));
}

#[test]
fn the_parent_is_told_of_a_slot_that_is_sent_while_it_decides_to_wait() {
    explore("two slots, both free", 2, None);
}

#[test]
fn the_child_is_told_of_a_slot_that_is_taken_while_it_decides_to_wait() {
    explore("three slots, two at a time", 3, Some(3));
}
