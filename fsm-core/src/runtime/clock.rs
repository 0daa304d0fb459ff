//! The one task that waits for time, on behalf of every run that does.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use futures::future::select;

use super::inner::Inner;
use crate::Timestamp;

/// Whether somebody waits for time, and what was seen of it.
#[derive(Default)]
pub(super) struct Clock {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: bool,
    /// The latest time that was seen.
    seen: Timestamp,
    /// The task, when it waits.
    waker: Option<Waker>,
    /// The first timer may be another one.
    changed: bool,
}

impl Clock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clock's task. Should the executor drop it, the next timer starts another one.
struct Running {
    inner: Arc<Inner>,
    held: bool,
}

impl Running {
    async fn keep_time(mut self) {
        self.inner.keep_time().await;
        self.held = false;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.held {
            self.inner.clock.state().running = false;
        }
    }
}

impl Inner {
    /// To be called after a run with a timer was put aside at the time `now`; `first` says that its
    /// timer comes before all others.
    pub(super) fn put_aside(self: &Arc<Self>, now: Timestamp, first: bool) {
        let running = {
            let mut clock = self.clock.state();
            // A clock that is set back behind this is noticed although it slept meanwhile.
            clock.seen = clock.seen.max(now);
            clock.running
        };
        if first || !running {
            self.timers_changed();
        }
    }

    /// To be called after another timer came to be the first one, or all were let go.
    pub(super) fn timers_changed(self: &Arc<Self>) {
        let (waker, start) = {
            let mut clock = self.clock.state();
            clock.changed = true;
            let start = !std::mem::replace(&mut clock.running, true);
            (clock.waker.take(), start)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        if start {
            // Held from now on: the executor may drop the task before it begins.
            let running = Running { inner: Arc::clone(self), held: true };
            self.environment.spawn(Box::pin(running.keep_time()));
        }
    }

    /// Wakes each run when its time comes, until no run waits for time.
    async fn keep_time(self: &Arc<Self>) {
        loop {
            let now = self.environment.now();
            let set_back = {
                let mut clock = self.clock.state();
                clock.changed = false;
                let seen = std::mem::replace(&mut clock.seen, now);
                now < seen
            };
            let (lanes, next) = {
                let mut table = self.table();
                let lanes = table.wake_due(now, set_back);
                (lanes, table.timers.first_key_value().map(|((at, _), _)| *at))
            };
            for lane in lanes {
                self.dispatch(lane);
            }
            match next {
                Some(at) => {
                    select(pin!(self.environment.sleep_until(at)), pin!(self.change())).await;
                }
                None => {
                    let mut clock = self.clock.state();
                    // A timer that was set since the table was looked at keeps the clock going.
                    if !clock.changed {
                        clock.running = false;
                        return;
                    }
                }
            }
        }
    }

    async fn change(&self) {
        poll_fn(|cx| {
            let mut clock = self.clock.state();
            if clock.changed {
                return Poll::Ready(());
            }
            clock.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
