//! How fast bytes move.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::future::Future;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::executor::LocalPool;
use futures::future::{Either, select};
use futures::task::LocalSpawnExt;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use support::Task;
use throttle::{ByteRate, Clock, ManualClock, Rate, Sleep, Sleeping};

fn rate(bytes_per_second: u64, burst_bytes: u64) -> Option<Rate> {
    let rate = Rate::bytes_per_second(NonZeroU64::new(bytes_per_second)?);
    Some(rate.burst_bytes(NonZeroU64::new(burst_bytes)?))
}

fn limiter(bytes_per_second: u64, burst_bytes: u64) -> (ManualClock, ByteRate) {
    let clock = ManualClock::new();
    let limiter = ByteRate::new(clock.clone(), clock.clone());
    limiter.set_rate(rate(bytes_per_second, burst_bytes));
    (clock, limiter)
}

#[track_caller]
fn now<F: Future<Output = u64>>(future: F) -> u64 {
    match Task::new(future).poll() {
        Poll::Ready(bytes) => bytes,
        Poll::Pending => panic!("should be granted at once"),
    }
}

#[track_caller]
fn waiting<F: Future<Output = u64>>(future: F) -> Task<F> {
    let mut task = Task::new(future);
    assert!(task.poll().is_pending(), "should have to wait");
    task
}

#[track_caller]
fn check_granted<F: Future<Output = u64>>(task: &mut Task<F>, bytes: u64) {
    assert!(task.is_woken(), "a task whose turn has come must be woken");
    assert_eq!(task.poll(), Poll::Ready(bytes));
}

fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn nothing_is_limited_until_a_rate_is_set() {
    let clock = ManualClock::new();
    let limiter = ByteRate::new(clock.clone(), clock).child();
    assert_eq!(now(limiter.acquire(u64::MAX)), u64::MAX);
}

#[test]
fn a_turn_grants_at_most_the_smallest_burst_on_the_way_up() {
    let (_clock, node) = limiter(1_000_000, 100);
    let operation = node.child();
    assert_eq!(now(operation.acquire(70)), 70);
    node.refund(70);
    assert_eq!(now(operation.acquire(1000)), 100);
    operation.refund(100);
    operation.set_rate(rate(1000, 10));
    assert_eq!(now(operation.acquire(1000)), 10);
    assert_eq!(now(operation.acquire(0)), 0);
}

#[test]
fn a_turn_comes_exactly_when_its_bytes_have_flowed_back() {
    let (clock, limiter) = limiter(1000, 100);
    now(limiter.acquire(100));
    let mut task = waiting(limiter.acquire(100));
    clock.advance(Duration::from_nanos(99_999_999));
    assert!(task.poll().is_pending());
    clock.advance(Duration::from_nanos(1));
    check_granted(&mut task, 100);
}

#[test]
fn a_dropped_future_takes_nothing_and_calls_the_next() {
    let (clock, limiter) = limiter(1000, 100);
    now(limiter.acquire(100));
    let first = waiting(limiter.acquire(100));
    let mut second = waiting(limiter.acquire(100));
    drop(first);
    assert!(second.is_woken());
    assert!(second.poll().is_pending());
    clock.advance(milliseconds(100));
    check_granted(&mut second, 100);
}

#[test]
fn bytes_that_were_not_moved_can_be_put_back() {
    let (_clock, node) = limiter(1000, 100);
    let operation = node.child();
    now(operation.acquire(100));
    let mut other = waiting(node.acquire(60));
    operation.refund(60);
    check_granted(&mut other, 60);
}

#[test]
fn bytes_that_moved_already_are_paid_for_later() {
    let (clock, limiter) = limiter(1000, 100);
    limiter.charge(300);
    let mut task = waiting(limiter.acquire(1));
    clock.advance(milliseconds(200));
    assert!(task.poll().is_pending());
    clock.advance(milliseconds(1));
    check_granted(&mut task, 1);
}

#[test]
fn a_higher_rate_counts_at_once_for_those_who_wait() {
    let (clock, limiter) = limiter(1000, 1000);
    now(limiter.acquire(1000));
    let mut task = waiting(limiter.acquire(1000));
    clock.advance(milliseconds(500));
    limiter.set_rate(rate(10_000, 1000));
    assert!(task.is_woken());
    assert!(task.poll().is_pending());
    clock.advance(milliseconds(50));
    check_granted(&mut task, 1000);
}

#[test]
fn a_slow_operation_does_not_slow_its_neighbour() {
    let (clock, node) = limiter(1_000_000, 1000);
    let (slow, fast) = (node.child(), node.child());
    slow.set_rate(rate(1, 1));
    now(slow.acquire(1));
    let _waits = waiting(slow.acquire(1));
    for _ in 0..100 {
        clock.advance(milliseconds(1));
        now(fast.acquire(1000));
    }
}

#[test]
fn turns_are_taken_in_the_order_of_arrival() {
    let (clock, limiter) = limiter(1000, 100);
    now(limiter.acquire(100));
    let mut large = waiting(limiter.acquire(100));
    let mut small = waiting(limiter.acquire(1));
    clock.advance(milliseconds(50));
    assert!(small.poll().is_pending());
    clock.advance(milliseconds(50));
    check_granted(&mut large, 100);
    assert!(small.is_woken());
    assert!(small.poll().is_pending());
    clock.advance(milliseconds(1));
    check_granted(&mut small, 1);
}

/// Whoever comes later may pass one that does not come forward, but not one whose bytes have
/// not flowed back yet.
#[test]
fn a_large_turn_is_not_passed_by_an_endless_stream_of_smaller_ones() {
    let (clock, limiter) = limiter(1000, 1000);
    now(limiter.acquire(1000));
    let mut large = waiting(limiter.acquire(1000));
    let mut small = waiting(limiter.acquire(500));
    for _ in 0..10 {
        clock.advance(milliseconds(100));
        if small.is_woken() {
            assert!(small.poll().is_pending(), "it is not its turn");
        }
    }
    check_granted(&mut large, 1000);
    clock.advance(milliseconds(500));
    assert!(small.is_woken());
    assert_eq!(small.poll(), Poll::Ready(500));
}

#[test]
fn one_who_never_takes_its_turn_is_passed() {
    let (clock, limiter) = limiter(1000, 100);
    now(limiter.acquire(100));
    let _forgotten = waiting(limiter.acquire(1));
    let mut next = waiting(limiter.acquire(100));
    clock.advance(milliseconds(100));
    assert!(next.poll().is_pending());
    clock.advance(milliseconds(100));
    check_granted(&mut next, 100);
}

#[test]
fn a_level_outlives_its_handle_while_somebody_below_needs_it() {
    let (_clock, node) = limiter(1000, 100);
    let operation = node.child().child();
    drop(node);
    assert_eq!(now(operation.acquire(1000)), 100);
    let _waits = waiting(operation.acquire(1));
}

#[test]
fn an_executor_of_the_host_drives_the_wait() {
    let (clock, limiter) = limiter(1000, 100);
    let mut pool = LocalPool::new();
    let stream = {
        let limiter = limiter.clone();
        async move {
            let mut moved = 0;
            while moved < 1000 {
                moved += limiter.acquire(1000 - moved).await;
            }
        }
    };
    let handle = pool.spawner().spawn_local_with_handle(stream).unwrap();
    // Time passes one step for each round of the executor.
    let ticker = {
        let clock = clock.clone();
        async move {
            loop {
                clock.advance(milliseconds(10));
                yield_once().await;
            }
        }
    };
    let outcome = pool.run_until(select(handle, Box::pin(ticker)));
    assert!(matches!(outcome, Either::Left(_)));
    assert!(clock.now().since_origin() >= milliseconds(900));
}

async fn yield_once() {
    let mut is_first = true;
    std::future::poll_fn(|context| {
        if std::mem::take(&mut is_first) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

/// One grant: when, by which operation, how much.
type Grant = (u128, usize, u64);

/// No window from one grant to another holds more than rate * length + burst.
#[track_caller]
fn check_windows(grants: &[Grant], bytes_per_second: u64, burst_bytes: u64) {
    for (first, &(start, ..)) in grants.iter().enumerate() {
        let mut bytes = 0;
        for &(end, _, granted) in &grants[first..] {
            bytes += u128::from(granted);
            let allowed = u128::from(bytes_per_second) * (end - start)
                + u128::from(burst_bytes) * 1_000_000_000;
            assert!(
                bytes * 1_000_000_000 <= allowed,
                "{bytes} bytes from {start} to {end} of {grants:?}"
            );
        }
    }
}

fn config() -> ProptestConfig {
    let found = FileFailurePersistence::Direct("tests/byte_rate.regressions");
    ProptestConfig { failure_persistence: Some(Box::new(found)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_window_of_any_level_holds_more_than_rate_and_burst_allow(
        node_rate in (1u64..2000, 1u64..300),
        operation_rates in prop::collection::vec((1u64..2000, 1u64..300), 3),
        steps in prop::collection::vec((0usize..3, 1u64..500, 0u64..400_000_000, 0u8..8), 1..80),
    ) {
        let (clock, node) = limiter(node_rate.0, node_rate.1);
        let operations: Vec<_> = operation_rates
            .iter()
            .map(|&(speed, burst)| {
                let operation = node.child();
                operation.set_rate(rate(speed, burst));
                operation
            })
            .collect();
        let mut waiting = Vec::new();
        let mut grants: Vec<Grant> = Vec::new();
        for (number, bytes, pause, fate) in steps {
            waiting.push((number, Task::new(operations[number].acquire(bytes))));
            if fate == 0 {
                waiting.remove(usize::try_from(bytes).unwrap() % waiting.len());
            }
            clock.advance(Duration::from_nanos(pause));
            let at = clock.now().since_origin().as_nanos();
            waiting.retain_mut(|(number, task)| match task.poll() {
                Poll::Ready(granted) => {
                    grants.push((at, *number, granted));
                    false
                }
                Poll::Pending => true,
            });
        }
        check_windows(&grants, node_rate.0, node_rate.1);
        for (number, (speed, burst)) in operation_rates.into_iter().enumerate() {
            let of_operation: Vec<_> =
                grants.iter().copied().filter(|grant| grant.1 == number).collect();
            check_windows(&of_operation, speed, burst);
        }
    }
}

struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("a waker must not panic");
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_from_waking() {
    let (_, limiter) = limiter(1, 100);
    assert_eq!(now(limiter.acquire(100)), 100);
    let mut first = Box::pin(limiter.acquire(100));
    let waker = Waker::from(Arc::new(PanickingWaker));
    assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut second = waiting(limiter.acquire(100));
    limiter.set_rate(None);
    check_granted(&mut second, 100);
}

/// A waker that is all that keeps a task alive, and the task has a level of its own.
struct OwningWaker {
    _level: ByteRate,
}

impl Wake for OwningWaker {
    fn wake(self: Arc<Self>) {}
}

/// Keeps no waker, so that the limiter's is the last one.
struct Forgetful;

impl Sleep for Forgetful {
    fn sleep(&self, _: Duration) -> Sleeping {
        Box::pin(std::future::pending())
    }
}

#[test]
fn a_waker_may_own_a_level_of_the_limiter_that_lets_go_of_it() {
    let limiter = ByteRate::new(ManualClock::new(), Forgetful);
    limiter.set_rate(rate(1, 100));
    assert_eq!(now(limiter.acquire(100)), 100);
    let mut waits = Box::pin(limiter.acquire(100));
    let mut poll = || {
        let waker = Waker::from(Arc::new(OwningWaker { _level: limiter.child() }));
        assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    };
    poll();
    poll();
    drop(waits);
}
