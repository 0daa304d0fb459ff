//! Neither permits nor byte rates presuppose a runtime: the same work under tokio, under smol
//! and under an executor made by hand.
//!
//! Time is real here, and nothing asserts that it is short: a rate is a promise that bytes do
//! not come too soon.
#![cfg(not(any(loom, shuttle)))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::future::Future;
use std::num::NonZeroU64;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use support::{admission, streams};
use throttle::{Admission, ByteRate, Clock, Instant, Limits, Rate, Sleep, Sleeping, SystemClock};

const BYTES_PER_SECOND: u64 = 200_000;
const BURST_BYTES: u64 = 1_000;
const BYTES_EACH: u64 = 4_000;

/// When a turn came, and how many bytes it was.
type Turn = (Instant, u64);

struct Operation {
    admission: Admission,
    owner: &'static str,
    limiter: ByteRate,
    clock: SystemClock,
}

impl Operation {
    /// Moves its bytes while it holds the only permit.
    async fn run(self) -> Vec<Turn> {
        let _permit = self.admission.acquire(streams(self.owner, 1)).await.unwrap();
        let (mut turns, mut moved) = (Vec::new(), 0);
        while moved < BYTES_EACH {
            let bytes = self.limiter.acquire(BYTES_EACH - moved).await;
            // Half of what was granted is not moved after all.
            let unused = if moved == 0 { bytes / 2 } else { 0 };
            self.limiter.refund(unused);
            turns.push((self.clock.now(), bytes - unused));
            moved += bytes - unused;
        }
        turns
    }
}

/// Two operations that take turns at one stream and share one rate.
async fn work(sleep: impl Sleep) -> Vec<Turn> {
    let clock = SystemClock::new();
    let admission = admission(Limits::new().node("streams", 1));
    let node = ByteRate::new(clock, sleep);
    let rate = Rate::bytes_per_second(NonZeroU64::new(BYTES_PER_SECOND).unwrap());
    node.set_rate(Some(rate.burst_bytes(NonZeroU64::new(BURST_BYTES).unwrap())));
    let operation = |owner| {
        let (admission, limiter) = (admission.clone(), node.child());
        Operation { admission, owner, limiter, clock }.run()
    };
    let (one, other) = futures::future::join(operation("one"), operation("other")).await;
    assert!(admission.snapshot().holders.is_empty());
    [one, other].concat()
}

/// No window from one turn to another has more than the rate and the burst allow.
#[track_caller]
fn check(turns: &[Turn]) {
    assert_eq!(turns.iter().map(|&(_, bytes)| bytes).sum::<u64>(), 2 * BYTES_EACH);
    for (index, &(from, _)) in turns.iter().enumerate() {
        let mut bytes = 0;
        for &(until, more) in &turns[index..] {
            bytes += more;
            let nanoseconds = until.since(from).as_nanos();
            let flowed = nanoseconds * u128::from(BYTES_PER_SECOND) / 1_000_000_000;
            // A turn is noted a moment after it was granted: the first one may have waited for
            // that, the last one only makes the window longer.
            let allowed = flowed + u128::from(2 * BURST_BYTES) + 1;
            assert!(u128::from(bytes) <= allowed, "{bytes} bytes in {nanoseconds} ns");
        }
    }
}

struct TokioSleep;

impl Sleep for TokioSleep {
    fn sleep(&self, duration: Duration) -> Sleeping {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[test]
fn under_tokio() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    check(&runtime.block_on(work(TokioSleep)));
}

struct SmolSleep;

impl Sleep for SmolSleep {
    fn sleep(&self, duration: Duration) -> Sleeping {
        Box::pin(async move {
            smol::Timer::after(duration).await;
        })
    }
}

#[test]
fn under_smol() {
    let executor = smol::Executor::new();
    check(&smol::block_on(executor.run(executor.spawn(work(SmolSleep)))));
}

/// Time passes on a thread of its own.
struct ThreadSleep;

impl Sleep for ThreadSleep {
    fn sleep(&self, duration: Duration) -> Sleeping {
        let (done, is_done) = futures::channel::oneshot::channel();
        thread::spawn(move || {
            thread::sleep(duration);
            // Whoever slept may be gone.
            let _ = done.send(());
        });
        Box::pin(async move {
            is_done.await.unwrap();
        })
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor there is: one future, polled whenever its thread is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

#[test]
fn under_an_executor_made_by_hand() {
    check(&block_on(work(ThreadSleep)));
}
