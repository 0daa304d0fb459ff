//! The core under its lock, and the wakers of those who wait.
//!
//! **Promise.** The lock is held only while the core decides. The clock is read before it
//! is taken, and wakers are cloned, called and dropped outside of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::PoisonError;
use std::task::{Poll, Waker};

use crate::acquire_error::AcquireError;
use crate::clock::{Clock, Instant};
use crate::core::{Action, Core, Patience, RequestId, Submitted};
use crate::limits::Limits;
use crate::request::Request;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::wakers::Wakers;

pub(crate) struct Shared {
    clock: Box<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    core: Core,
    waiting: BTreeMap<RequestId, Waiting>,
}

/// What a future that waits will find when it is polled.
enum Waiting {
    Parked(Waker),
    Settled(Result<(), AcquireError>),
}

impl Shared {
    pub(crate) fn new(limits: Limits, clock: impl Clock) -> Arc<Self> {
        let state = State { core: Core::new(limits), waiting: BTreeMap::new() };
        Arc::new(Self { clock: Box::new(clock), state: Mutex::new(state) })
    }

    /// Gives one event to the core and does what follows from it.
    pub(crate) fn apply<T>(&self, event: impl FnOnce(&mut Core, Instant) -> T) -> T {
        let now = self.clock.now();
        let mut state = self.lock();
        let outcome = event(&mut state.core, now);
        let woken = state.carry_out();
        if cfg!(mutant = "wakers_are_called_under_the_lock") {
            woken.wake();
            return outcome;
        }
        drop(state);
        woken.wake();
        outcome
    }

    /// Hands a request in. If it has to wait, `waker` is called once that is over.
    pub(crate) fn enqueue(
        &self,
        request: &Request,
        waker: Waker,
    ) -> Result<Submitted, AcquireError> {
        let now = self.clock.now();
        let mut state = self.lock();
        let outcome = state.core.submit(request, Patience::Wait, now);
        if cfg!(mutant = "the_waker_comes_too_late") {
            drop(state);
            state = self.lock();
        }
        if let Ok(Submitted::Queued(id)) = outcome {
            state.waiting.insert(id, Waiting::Parked(waker));
        }
        let woken = state.carry_out();
        drop(state);
        woken.wake();
        outcome
    }

    /// What became of a request that waits. If it still does, `waker` replaces the last one.
    pub(crate) fn poll(&self, id: RequestId, waker: Waker) -> Poll<Result<(), AcquireError>> {
        let mut state = self.lock();
        let replaced = state.waiting.insert(id, Waiting::Parked(waker));
        match replaced {
            Some(Waiting::Settled(outcome)) => {
                let unused = state.waiting.remove(&id);
                drop(state);
                drop(unused);
                Poll::Ready(outcome)
            }
            replaced => {
                if cfg!(mutant = "the_first_waker_is_kept")
                    && let Some(first) = replaced
                {
                    state.waiting.insert(id, first);
                    return Poll::Pending;
                }
                drop(state);
                drop(replaced);
                Poll::Pending
            }
        }
    }

    /// Gives a request up, whether it waits, was granted unnoticed, or failed.
    pub(crate) fn abandon(&self, id: RequestId) {
        let mut state = self.lock();
        let unused = state.waiting.remove(&id);
        state.core.cancel(id);
        if !cfg!(mutant = "a_dropped_grant_leaks") {
            state.core.release(id);
        }
        let woken = state.carry_out();
        drop(state);
        drop(unused);
        woken.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The core runs no foreign code, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Notes the outcome for every future whose wait is over and returns whom to wake.
    fn carry_out(&mut self) -> Wakers {
        let mut woken = Wakers::default();
        for action in self.core.take_actions() {
            let (id, outcome) = match action {
                Action::Grant(id) => (id, Ok(())),
                Action::Fail(id, error) => (id, Err(error)),
            };
            let before = self.waiting.insert(id, Waiting::Settled(outcome));
            if let Some(Waiting::Parked(waker)) = before {
                woken.call(waker);
            }
        }
        woken
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
