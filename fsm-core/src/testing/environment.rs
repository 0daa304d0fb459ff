//! A clock that a test drives, and an executor that it can see.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};

use super::{draw::Draw, executor::Executor};
use crate::{Environment, Timestamp};

/// When a test begins, unless it says otherwise: 2023-11-14T22:13:20Z.
const START: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

/// A clock that stands still until [`advance`](ManualEnvironment::advance) moves it, and a
/// single-threaded executor. Clones share both.
///
/// Tasks run while somebody drives them: [`block_on`](ManualEnvironment::block_on) until a future
/// completes, [`run_until_stalled`](ManualEnvironment::run_until_stalled) as far as they get. When
/// all of them wait, time does not move by itself: a test that forgets to advance hangs visibly
/// instead of passing by luck.
///
/// Tasks that are ready are polled first come, first served, or in an order that is
/// [drawn from a seed](ManualEnvironment::seeded).
///
/// ```
/// use fsm_core::{Environment, testing::ManualEnvironment};
/// use std::time::Duration;
///
/// let environment = ManualEnvironment::default();
/// let bell = environment.sleep_until(environment.now() + Duration::from_secs(3600));
/// environment.spawn(bell);
/// environment.run_until_stalled();
/// assert!(environment.advance_to_next(), "an hour later");
/// environment.run_until_stalled();
/// assert!(!environment.advance_to_next(), "nobody sleeps any more");
/// ```
#[derive(Clone)]
pub struct ManualEnvironment {
    clock: Arc<Mutex<Clock>>,
    random: Arc<Mutex<Draw>>,
    executor: Arc<Executor>,
    seed: Option<u64>,
}

struct Clock {
    now: Timestamp,
    sleeping: BTreeMap<(Timestamp, u64), Waker>,
    next: u64,
    /// How often the clock was set back.
    set_back: u64,
}

impl Default for ManualEnvironment {
    fn default() -> Self {
        ManualEnvironment::new(START)
    }
}

impl ManualEnvironment {
    /// A clock that shows `now`. Tasks are polled first come, first served.
    pub fn new(now: Timestamp) -> Self {
        ManualEnvironment::with(now, None)
    }

    /// An environment in which everything that is left to chance is drawn from `seed`: which of
    /// the tasks that are ready is polled next, and [`random`](Environment::random). The same seed
    /// gives the same run, as long as no other thread takes part.
    pub fn seeded(seed: u64) -> Self {
        ManualEnvironment::with(START, Some(seed))
    }

    fn with(now: Timestamp, seed: Option<u64>) -> Self {
        let random = Draw::of(seed.unwrap_or_default(), 1);
        let order = seed.map(|seed| Draw::of(seed, 2));
        let (sleeping, next, set_back) = Default::default();
        ManualEnvironment {
            clock: Arc::new(Mutex::new(Clock { now, sleeping, next, set_back })),
            random: Arc::new(Mutex::new(random)),
            executor: Arc::new(Executor::new(order)),
            seed,
        }
    }

    /// Moves the clock on and wakes whoever slept until then.
    pub fn advance(&self, by: Duration) {
        let due = {
            let mut clock = self.clock();
            let now = clock.now + by;
            clock.now = now;
            let later = clock.sleeping.split_off(&(now, u64::MAX));
            std::mem::replace(&mut clock.sleeping, later)
        };
        for waker in due.into_values() {
            waker.wake();
        }
    }

    /// Moves the clock on to the time that the first of those who sleep waits for, and wakes
    /// whoever slept until then. False if nobody sleeps.
    pub fn advance_to_next(&self) -> bool {
        let Some(at) = self.next_wake() else { return false };
        self.advance(at.since(self.now()));
        true
    }

    /// Sets the clock back. Whoever sleeps wakes early, as [`Environment::sleep_until`] allows.
    pub fn set_back(&self, by: Duration) {
        let sleeping = {
            let mut clock = self.clock();
            let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            clock.now = Timestamp::from_unix_ms(clock.now.as_unix_ms().saturating_sub(by_ms));
            clock.set_back += 1;
            std::mem::take(&mut clock.sleeping)
        };
        for waker in sleeping.into_values() {
            waker.wake();
        }
    }

    /// The time that the first of those who sleep waits for.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.clock().sleeping.keys().next().map(|(at, _)| *at)
    }

    /// Drives `future`, and the tasks that were spawned, until `future` completes. While nothing
    /// is ready it waits for other threads.
    ///
    /// # Panics
    ///
    /// If the tasks are driven already: by a caller further up, or on another thread.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.executor.block_on(future)
    }

    /// Runs the tasks until all of them wait: for a time, for another thread, or for nothing that
    /// ever comes.
    ///
    /// # Panics
    ///
    /// As [`block_on`](ManualEnvironment::block_on).
    pub fn run_until_stalled(&self) {
        self.run_while(|| true);
    }

    /// As [`run_until_stalled`](ManualEnvironment::run_until_stalled), as long as `go_on`.
    pub(super) fn run_while(&self, go_on: impl FnMut() -> bool) {
        self.executor.run_while(go_on);
    }

    /// Waits until another thread has woken a task, or spawned one, but no longer than `longest`;
    /// false if none has. For tests of steps whose work is done elsewhere, behind a boundary say.
    pub fn wait_for_others(&self, longest: Duration) -> bool {
        self.executor.wait(longest)
    }

    /// Drops every task that was spawned: the process dies here.
    pub fn drop_tasks(&self) {
        self.executor.drop_tasks();
    }

    fn clock(&self) -> MutexGuard<'_, Clock> {
        lock(&self.clock)
    }
}

impl Environment for ManualEnvironment {
    fn now(&self) -> Timestamp {
        self.clock().now
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let set_back = self.clock().set_back;
        Sleep { clock: Arc::clone(&self.clock), at, number: None, set_back }.boxed()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.executor.spawn(task);
    }

    fn random(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

impl fmt::Debug for ManualEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seed {
            Some(seed) => write!(f, "ManualEnvironment({}, seed {seed})", self.clock().now),
            None => write!(f, "ManualEnvironment({})", self.clock().now),
        }
    }
}

struct Sleep {
    clock: Arc<Mutex<Clock>>,
    at: Timestamp,
    number: Option<u64>,
    set_back: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut clock = lock(&this.clock);
        if clock.now >= this.at || clock.set_back != this.set_back {
            return Poll::Ready(());
        }
        let number = *this.number.get_or_insert_with(|| {
            clock.next += 1;
            clock.next
        });
        let replaced = clock.sleeping.insert((this.at, number), cx.waker().clone());
        // A foreign waker's own drop may drop a task, and with it a sleep like this one.
        drop(clock);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = lock(&self.clock).sleeping.remove(&(self.at, number));
            drop(waker);
        }
    }
}

fn lock(clock: &Mutex<Clock>) -> MutexGuard<'_, Clock> {
    clock.lock().unwrap_or_else(PoisonError::into_inner)
}
