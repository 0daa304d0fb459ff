//! A clock that stands still until a test moves it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::{Clock, Instant};
use crate::rate::{Sleep, Sleeping};

/// A [`Clock`] and a [`Sleep`] that move only when [`ManualClock::advance`] is called.
///
/// Clones show the same time. A test keeps one and hands the other to the code under
/// test, so it never has to wait for real time to pass.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use throttle::{Clock, ManualClock};
///
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().since(before), Duration::from_secs(60));
/// ```
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    now: Instant,
    sleepers: Vec<Waker>,
}

impl ManualClock {
    /// A clock that stands at its origin.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock forward and wakes whoever sleeps on it.
    ///
    /// Everybody is woken; who has not slept long enough goes back to sleep.
    pub fn advance(&self, step: Duration) {
        let sleepers = {
            let mut state = self.lock();
            state.now = state.now + step;
            std::mem::take(&mut state.sleepers)
        };
        for sleeper in sleepers {
            sleeper.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.lock().now
    }
}

impl Sleep for ManualClock {
    fn sleep(&self, duration: Duration) -> Sleeping {
        Box::pin(Nap { clock: self.clone(), until: self.now() + duration })
    }
}

struct Nap {
    clock: ManualClock,
    until: Instant,
}

impl Future for Nap {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.lock();
        if state.now >= self.until {
            return Poll::Ready(());
        }
        state.sleepers.push(context.waker().clone());
        Poll::Pending
    }
}
