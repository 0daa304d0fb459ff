//! The core under its lock, and the wakers of those who wait.
//!
//! **Promise.** The lock is held only while the core decides. The clock is read before it
//! is taken, and wakers are cloned, called and dropped outside of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::PoisonError;
use std::task::{Poll, Waker};

use crate::acquire_error::{AcquireError, AcquireErrorKind};
use crate::clock::{Clock, Instant};
use crate::core::{Action, Claimed, Core, Opening, Patience, Submitted};
use crate::limits::Limits;
use crate::request_id::RequestId;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::ticket::Ticket;
use crate::waiting::{Waiting, Waits};
use crate::wakers::Wakers;

pub(crate) struct Shared {
    clock: Box<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    core: Core,
    waiting: Waits,
    /// Who waits until nobody holds a permit.
    draining: BTreeMap<DrainId, Waker>,
    next_drain: u64,
}

/// The identity of somebody who waits until nobody holds a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DrainId(u64);

impl Shared {
    pub(crate) fn new(limits: Limits, clock: impl Clock, opening: Opening) -> Arc<Self> {
        let state = State {
            core: Core::new(limits, opening),
            waiting: Waits::default(),
            draining: BTreeMap::new(),
            next_drain: 0,
        };
        Arc::new(Self { clock: Box::new(clock), state: Mutex::new(state) })
    }

    /// Gives one event that happens now to the core and does what follows from it.
    pub(crate) fn apply_now<T>(&self, event: impl FnOnce(&mut Core, Instant) -> T) -> T {
        let now = self.clock.now();
        self.apply(|core| event(core, now))
    }

    /// Gives one event to the core and does what follows from it.
    pub(crate) fn apply<T>(&self, event: impl FnOnce(&mut Core) -> T) -> T {
        let mut state = self.lock();
        let outcome = event(&mut state.core);
        if state.is_quiet() {
            return outcome;
        }
        let after = state.carry_out();
        if cfg!(mutant = "wakers_are_called_under_the_lock") {
            after.carry_on();
            return outcome;
        }
        drop(state);
        after.carry_on();
        outcome
    }

    /// Hands a request in. If it has to wait, `waker` is called once that is over.
    pub(crate) fn enqueue(&self, ticket: &Ticket, waker: Waker) -> Result<Submitted, AcquireError> {
        let submit = |core: &mut Core, now| {
            let submitted = core.submit(&ticket.request, ticket.prepared, Patience::Wait, now)?;
            Ok(Some(submitted))
        };
        Ok(self.wait_for(waker, submit)?.expect("a request is granted or queued"))
    }

    /// Asks for the capacity that a permit gave up; `None` if there is none.
    pub(crate) fn reenqueue(
        &self,
        id: RequestId,
        owner: &str,
        waker: Waker,
    ) -> Result<Option<Submitted>, AcquireError> {
        self.wait_for(waker, |core, now| core.reacquire(id, owner, now))
    }

    fn wait_for(
        &self,
        waker: Waker,
        submit: impl FnOnce(&mut Core, Instant) -> Result<Option<Submitted>, AcquireError>,
    ) -> Result<Option<Submitted>, AcquireError> {
        let now = self.clock.now();
        let mut state = self.lock();
        let outcome = submit(&mut state.core, now);
        if cfg!(mutant = "the_waker_comes_too_late") {
            drop(state);
            state = self.lock();
        }
        if let Ok(Some(Submitted::Queued(id))) = outcome {
            state.waiting.insert(id, Waiting::Parked(waker));
        }
        if state.is_quiet() {
            // The waker, if it was not kept, is dropped after the lock.
            drop(state);
            return outcome;
        }
        let after = state.carry_out();
        drop(state);
        after.carry_on();
        outcome
    }

    /// What became of a request that waits. If it still does, `waker` replaces the last one.
    pub(crate) fn poll(
        &self,
        id: RequestId,
        owner: &str,
        waker: &Waker,
    ) -> Poll<Result<Claimed, AcquireError>> {
        let mut state = self.lock();
        let waker = match state.waiting.get_mut(id) {
            Some(Waiting::Parked(known)) if known.will_wake(waker) => return Poll::Pending,
            Some(Waiting::Settled(_)) => {
                let outcome = state.collect(id, owner);
                if !state.is_quiet() {
                    let after = state.carry_out();
                    drop(state);
                    after.carry_on();
                }
                return outcome;
            }
            _ => {
                // It is cloned outside of the lock, so what there is has to be read again.
                drop(state);
                let waker = waker.clone();
                state = self.lock();
                waker
            }
        };
        let Some(waiting) = state.waiting.get_mut(id) else {
            unreachable!("a future is remembered until it was ready");
        };
        match std::mem::replace(waiting, Waiting::Parked(waker)) {
            Waiting::Settled(outcome) => {
                let unused = std::mem::replace(waiting, Waiting::Settled(outcome));
                let outcome = state.collect(id, owner);
                let after = state.carry_out();
                drop(state);
                drop(unused);
                after.carry_on();
                outcome
            }
            Waiting::Revoked => {
                // If it is granted at once the new waker is called.
                state.core.rejoin(id);
                let after = state.carry_out();
                drop(state);
                after.carry_on();
                Poll::Pending
            }
            Waiting::Parked(replaced) => {
                let mut replaced = replaced;
                if cfg!(mutant = "the_first_waker_is_kept")
                    && let Some(Waiting::Parked(waker)) = state.waiting.get_mut(id)
                {
                    std::mem::swap(&mut replaced, waker);
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
        let unused = state.waiting.remove(id);
        state.core.cancel(id);
        if !cfg!(mutant = "a_dropped_grant_leaks") {
            state.core.release(id);
        }
        let after = state.carry_out();
        drop(state);
        drop(unused);
        after.carry_on();
    }

    /// Whether nobody holds a permit. If somebody does, `waker` is called once nobody does.
    pub(crate) fn poll_drained(&self, id: &mut Option<DrainId>, waker: Waker) -> Poll<()> {
        let mut state = self.lock();
        if state.core.is_drained() {
            drop(state);
            drop(waker);
            return Poll::Ready(());
        }
        let id = *id.get_or_insert_with(|| {
            state.next_drain += 1;
            DrainId(state.next_drain)
        });
        let replaced = state.draining.insert(id, waker);
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    /// Somebody does not wait any more until nobody holds a permit.
    pub(crate) fn stop_draining(&self, id: DrainId) {
        let unused = self.lock().draining.remove(&id);
        drop(unused);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The core runs no foreign code, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is done once the lock is free.
#[must_use]
struct Aftermath {
    woken: Wakers,
    revoked: Vec<RequestId>,
}

impl Aftermath {
    fn carry_on(self) {
        for id in self.revoked {
            tracing::warn!(%id, "permit revoked: nobody came for it in time");
        }
        self.woken.wake();
    }
}

impl State {
    /// Whether nobody has to be told anything, as after most events.
    fn is_quiet(&self) -> bool {
        !self.core.has_actions() && self.draining.is_empty()
    }

    /// Hands out what a request that does not wait any more came to.
    fn collect(&mut self, id: RequestId, owner: &str) -> Poll<Result<Claimed, AcquireError>> {
        let claimed = self.core.claim(id);
        let Some(Waiting::Settled(outcome)) = self.waiting.remove(id) else {
            unreachable!("only what is settled is collected");
        };
        let released = || AcquireError::new(owner, AcquireErrorKind::Released);
        Poll::Ready(outcome.and_then(|()| claimed.ok_or_else(released)))
    }

    /// Notes the outcome for every future whose wait is over and returns whom to wake.
    fn carry_out(&mut self) -> Aftermath {
        let (mut woken, mut revoked) = (Wakers::default(), Vec::new());
        let Self { core, waiting, .. } = self;
        for action in core.take_actions() {
            let (id, now) = match action {
                Action::Grant(id) => (id, Waiting::Settled(Ok(()))),
                Action::Fail(id, error) => (id, Waiting::Settled(Err(error))),
                Action::Revoke(id) => {
                    revoked.push(id);
                    (id, Waiting::Revoked)
                }
            };
            if let Some(Waiting::Parked(waker)) = waiting.insert(id, now) {
                woken.call(waker);
            }
        }
        if self.core.is_drained() && !self.draining.is_empty() {
            for waker in std::mem::take(&mut self.draining).into_values() {
                woken.call(waker);
            }
        }
        Aftermath { woken, revoked }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
