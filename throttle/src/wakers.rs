//! Wakers that are dealt with once the lock is free.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use smallvec::SmallVec;

/// Wakers that come out of something locked. They are foreign code, which may use what is locked:
/// a waker that is woken may, and so may a task that goes with its last waker.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    called: SmallVec<[Waker; 2]>,
    let_go: Vec<Waker>,
}

impl Wakers {
    /// Whoever `waker` belongs to is to be woken.
    pub(crate) fn call(&mut self, waker: Waker) {
        self.called.push(waker);
    }

    /// Nobody needs `waker` any more.
    pub(crate) fn let_go(&mut self, waker: Waker) {
        self.let_go.push(waker);
    }

    /// Wakes everybody who was called, also if one of the wakers panics. The lock is free.
    pub(crate) fn wake(mut self) {
        for waker in self.called.drain(..) {
            if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
                tracing::error!("a waker panicked; the others are woken nevertheless");
            }
        }
    }
}
