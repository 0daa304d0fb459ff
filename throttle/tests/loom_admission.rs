//! Every order in which threads can take turns at the lock, for a few small scenes.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p throttle --release --test loom_admission -- --nocapture
//! ```
//!
//! Each scene prints how many orders were tried. One with three tasks that all work is
//! tried with four preemptions at most, the others in every order there is: more than a
//! million in two minutes. `LOOM_MAX_PREEMPTIONS=3` bounds them all, for a second of it.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicU64, AtomicUsize as StdAtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use loom::future::block_on;
use loom::sync::atomic::AtomicUsize;
use loom::sync::{Arc, Mutex};
use loom::thread;
use throttle::{
    AcquireErrorKind, Admission, Class, Clock, Instant, Limits, Policy, Request, Resource,
};

/// Runs `scene` in every order, with at most `preemptions` where that is given.
#[track_caller]
fn explore(name: &str, preemptions: Option<usize>, scene: impl Fn() + Sync + Send + 'static) {
    let orders = StdArc::new(AtomicU64::new(0));
    let counted = StdArc::clone(&orders);
    let mut builder = loom::model::Builder::new();
    // The environment may bound it further.
    builder.preemption_bound = builder.preemption_bound.into_iter().chain(preemptions).min();
    builder.max_branches = 20_000;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        scene();
    });
    println!("{name}: {} orders", orders.load(Ordering::Relaxed));
}

struct NoTime;

impl Clock for NoTime {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }
}

fn admission(streams: u32) -> Admission {
    let admission = Admission::new(Limits::new().node("streams", streams), NoTime);
    let policy = Policy::new().class(Class::new("data")).compile().unwrap();
    admission.register("w", policy).unwrap();
    admission
}

fn streams(owner: &str, units: u32) -> Request {
    Request::new(owner).capacity(Resource::node(), "streams", units)
}

fn data(owner: &str, item: &str) -> Request {
    Request::new(owner).exclusion("w", Resource::item(item), "data")
}

/// Nothing is held and nobody waits.
#[track_caller]
fn check_empty(admission: &Admission) {
    let snapshot = admission.snapshot();
    assert!(snapshot.holders.is_empty() && snapshot.waiters.is_empty(), "{snapshot:?}");
    assert!(snapshot.limits.is_empty(), "{snapshot:?}");
}

/// Takes a permit, is the only one to work, and gives it back.
fn work_alone(admission: &Admission, request: Request, at_work: &AtomicUsize) {
    let permit = block_on(admission.acquire(request)).unwrap();
    assert_eq!(at_work.fetch_add(1, Ordering::SeqCst), 0, "two at work");
    at_work.fetch_sub(1, Ordering::SeqCst);
    drop(permit);
}

#[test]
fn two_tasks_never_work_at_the_same_time_and_both_finish() {
    explore("two tasks, one stream", None, || {
        let (admission, at_work) = (admission(1), Arc::new(AtomicUsize::new(0)));
        let other = thread::spawn({
            let (admission, at_work) = (admission.clone(), Arc::clone(&at_work));
            move || work_alone(&admission, streams("other", 1), &at_work)
        });
        work_alone(&admission, streams("main", 1), &at_work);
        other.join().unwrap();
        check_empty(&admission);
    });
}

#[test]
fn three_tasks_take_turns_at_an_item_and_a_stream() {
    explore("three tasks, one item and one stream", Some(4), || {
        let (admission, at_work) = (admission(1), Arc::new(AtomicUsize::new(0)));
        let ask = |owner: &str| data(owner, "x").capacity(Resource::node(), "streams", 1);
        let others = ["one", "two"].map(|owner| {
            let (admission, at_work) = (admission.clone(), Arc::clone(&at_work));
            let request = ask(owner);
            thread::spawn(move || work_alone(&admission, request, &at_work))
        });
        work_alone(&admission, ask("main"), &at_work);
        for other in others {
            other.join().unwrap();
        }
        check_empty(&admission);
    });
}

/// Polls once, and gives up whatever came of it.
fn ask_once(admission: &Admission, request: Request) {
    let mut future = pin!(admission.acquire(request));
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(permit) => drop(permit.unwrap()),
        Poll::Pending => {}
    }
}

#[test]
fn whoever_gives_up_while_it_is_granted_passes_it_on() {
    explore("release, cancel and wait", None, || {
        let admission = admission(1);
        let held = admission.try_acquire(streams("held", 1)).unwrap();
        let gives_up = thread::spawn({
            let admission = admission.clone();
            move || ask_once(&admission, streams("gives up", 1))
        });
        let waits = thread::spawn({
            let admission = admission.clone();
            move || drop(block_on(admission.acquire(streams("waits", 1))).unwrap())
        });
        drop(held);
        gives_up.join().unwrap();
        waits.join().unwrap();
        check_empty(&admission);
    });
}

#[test]
fn a_large_request_that_gives_up_lets_the_small_one_behind_it_start() {
    explore("a pinned request is cancelled", None, || {
        let admission = Admission::new(Limits::new().node("streams", 2).overtakes_max(0), NoTime);
        let _held = admission.try_acquire(streams("held", 1)).unwrap();
        let large = thread::spawn({
            let admission = admission.clone();
            move || ask_once(&admission, streams("large", 2))
        });
        drop(block_on(admission.acquire(streams("small", 1))).unwrap());
        large.join().unwrap();
        assert!(admission.snapshot().waiters.is_empty());
    });
}

#[test]
fn closing_wakes_everybody_and_admits_nobody_afterwards() {
    explore("close, wait and release", None, || {
        let admission = admission(1);
        let held = admission.try_acquire(streams("held", 1)).unwrap();
        let waits = thread::spawn({
            let admission = admission.clone();
            move || match block_on(admission.acquire(streams("waits", 1))) {
                Ok(permit) => drop(permit),
                Err(error) => assert_eq!(error.kind(), &AcquireErrorKind::Closed),
            }
        });
        let closes = thread::spawn({
            let admission = admission.clone();
            move || {
                admission.close();
                let error = admission.try_acquire(streams("late", 1)).unwrap_err();
                assert_eq!(error.kind(), &AcquireErrorKind::Closed);
            }
        });
        drop(held);
        waits.join().unwrap();
        closes.join().unwrap();
        check_empty(&admission);
    });
}

#[test]
fn a_grown_limit_wakes_who_waits_for_it() {
    explore("grow and wait", None, || {
        let admission = admission(0);
        let waits = thread::spawn({
            let admission = admission.clone();
            move || drop(block_on(admission.acquire(streams("waits", 1))).unwrap())
        });
        admission.set_capacity(&Resource::node(), "streams", 1);
        waits.join().unwrap();
        check_empty(&admission);
    });
}

/// Counts how often it is woken.
struct Count(StdAtomicUsize);

impl Wake for Count {
    fn wake(self: StdArc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn of_two_wakers_the_last_one_is_called() {
    explore("poll with another waker while it is granted", None, || {
        let admission = admission(1);
        let held = admission.try_acquire(streams("held", 1)).unwrap();
        let [first, last] = [(); 2].map(|()| StdArc::new(Count(StdAtomicUsize::new(0))));
        let wakers = [&first, &last].map(|count| Waker::from(StdArc::clone(count)));
        let polls = thread::spawn({
            let admission = admission.clone();
            move || {
                let mut future = Box::pin(admission.acquire(streams("waits", 1)));
                for waker in &wakers {
                    if future.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
                        return None;
                    }
                }
                Some(future)
            }
        });
        drop(held);
        // Who was told to wait twice hears of it by the second waker.
        if let Some(future) = polls.join().unwrap() {
            assert_eq!(last.0.load(Ordering::SeqCst), 1);
            drop(future);
        }
        check_empty(&admission);
    });
}

/// A waker that uses the admission that calls it.
struct Reenters {
    admission: Mutex<Option<Admission>>,
}

impl Wake for Reenters {
    fn wake(self: StdArc<Self>) {
        let admission = self.admission.lock().unwrap().take();
        assert!(admission.is_some_and(|admission| !admission.is_closed()));
    }
}

#[test]
fn a_waker_may_use_the_admission_that_calls_it() {
    explore("a waker calls back", None, || {
        let admission = admission(1);
        let held = admission.try_acquire(streams("held", 1)).unwrap();
        let waker = StdArc::new(Reenters { admission: Mutex::new(Some(admission.clone())) });
        let polls = thread::spawn({
            let admission = admission.clone();
            move || {
                let waker = Waker::from(waker);
                let mut future = Box::pin(admission.acquire(streams("waits", 1)));
                future.as_mut().poll(&mut Context::from_waker(&waker)).map(drop).is_pending()
                    && future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
            }
        });
        drop(held);
        polls.join().unwrap();
        check_empty(&admission);
    });
}
