//! What a test of a machine needs: a clock that it drives, and an executor that it can see.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    channel::mpsc,
    future::{BoxFuture, poll_fn, select},
    pin_mut,
    stream::FuturesUnordered,
};

use crate::{Environment, Timestamp};

/// A clock that stands still until [`advance`](ManualEnvironment::advance) moves it, and a
/// single-threaded executor inside [`block_on`](ManualEnvironment::block_on). Clones share both.
///
/// When the future that `block_on` drives waits, and every task waits too, time does not move by
/// itself: a test that forgets to advance hangs visibly instead of passing by luck.
#[derive(Clone)]
pub struct ManualEnvironment {
    clock: Arc<Mutex<Clock>>,
    random: Arc<AtomicU64>,
    spawn: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
    spawned: Arc<Mutex<Tasks>>,
}

struct Clock {
    now: Timestamp,
    sleeping: BTreeMap<(Timestamp, u64), Waker>,
    next: u64,
    /// How often the clock was set back.
    set_back: u64,
}

struct Tasks {
    incoming: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Default for ManualEnvironment {
    fn default() -> Self {
        ManualEnvironment::new(Timestamp::from_unix_ms(1_700_000_000_000))
    }
}

impl ManualEnvironment {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> Self {
        let (spawn, incoming) = mpsc::unbounded();
        ManualEnvironment {
            clock: Arc::new(Mutex::new(Clock {
                now,
                sleeping: BTreeMap::new(),
                next: 0,
                set_back: 0,
            })),
            random: Arc::new(AtomicU64::new(0x9e37_79b9_7f4a_7c15)),
            spawn,
            spawned: Arc::new(Mutex::new(Tasks { incoming, running: FuturesUnordered::new() })),
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

    /// Drives `future`, and the tasks that were spawned, until `future` completes.
    ///
    /// # Panics
    ///
    /// If it is called inside itself.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let tasks = Arc::clone(&self.spawned);
        let mut tasks = tasks.try_lock().expect("block_on is not called inside itself");
        let background = poll_fn(|cx| tasks.poll(cx));
        pin_mut!(future, background);
        match futures::executor::block_on(select(future, background)) {
            futures::future::Either::Left((output, _)) => output,
            futures::future::Either::Right(((), _)) => unreachable!("tasks are polled for ever"),
        }
    }

    /// Drops every task that was spawned: the process dies here.
    pub fn drop_tasks(&self) {
        let mut tasks = self.spawned.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.running.clear();
        while let Ok(task) = tasks.incoming.try_recv() {
            drop(task);
        }
    }

    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tasks {
    /// Polls what was spawned; never ready, as more may come.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            while let Poll::Ready(Some(task)) = self.incoming.poll_next_unpin(cx) {
                self.running.push(task);
            }
            match self.running.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Environment for ManualEnvironment {
    fn now(&self) -> Timestamp {
        self.clock().now
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let set_back = self.clock().set_back;
        Sleep { environment: self.clone(), at, number: None, set_back }.boxed()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        // The receiver lives as long as the sender does.
        let _ = self.spawn.unbounded_send(task);
    }

    fn random(&self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood, 2014).
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl fmt::Debug for ManualEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManualEnvironment({})", self.clock().now)
    }
}

struct Sleep {
    environment: ManualEnvironment,
    at: Timestamp,
    number: Option<u64>,
    set_back: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut clock = this.environment.clock();
        if clock.now >= this.at || clock.set_back != this.set_back {
            return Poll::Ready(());
        }
        let number = *this.number.get_or_insert_with(|| {
            clock.next += 1;
            clock.next
        });
        clock.sleeping.insert((this.at, number), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.environment.clock().sleeping.remove(&(self.at, number));
        }
    }
}
