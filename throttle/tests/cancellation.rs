//! What is left behind: nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;

use futures::executor::block_on;
use support::{admission, granted, queue, sql, still_waits, streams};
use throttle::{AcquireErrorKind, Admission, Limits, Permit, Request, Resource};

#[test]
fn a_future_that_was_never_polled_has_no_place_in_line() {
    let admission = admission(Limits::new().node("streams", 1));
    let unpolled = admission.acquire(streams("unpolled", 1));
    drop(admission.try_acquire(streams("other", 1)).unwrap());
    drop(unpolled);
    drop(admission.try_acquire(streams("other", 1)).unwrap());
}

#[test]
fn a_future_dropped_in_line_lets_the_next_one_start() {
    let admission = admission(Limits::new());
    let _full = admission.try_acquire(sql("full", "data", "sales")).unwrap();
    let restore = queue(&admission, sql("restore", "restore", "sales"));
    let mut log = queue(&admission, sql("log", "log", "sales"));
    drop(restore);
    drop(granted(&mut log));
}

#[test]
fn a_pinned_future_that_is_dropped_frees_what_was_set_aside() {
    let admission = admission(Limits::new().node("streams", 4).overtakes_max(0));
    let _running = admission.try_acquire(streams("running", 2)).unwrap();
    let large = queue(&admission, streams("large", 4));
    let mut small = queue(&admission, streams("small", 1));
    assert!(admission.snapshot().waiters[0].is_pinned);
    drop(large);
    drop(granted(&mut small));
}

#[test]
fn a_future_dropped_after_its_grant_gives_the_grant_to_the_next() {
    let admission = admission(Limits::new().node("streams", 1));
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let unclaimed = queue(&admission, streams("unclaimed", 1));
    let mut next = queue(&admission, streams("next", 1));
    drop(running);
    assert!(unclaimed.is_woken());
    still_waits(&mut next);
    drop(unclaimed);
    drop(granted(&mut next));
}

#[test]
fn closing_refuses_everybody_for_good_and_permits_still_return() {
    let admission = admission(Limits::new().node("streams", 2));
    let running = admission.try_acquire(streams("running", 2)).unwrap();
    let mut waits = queue(&admission, streams("waits", 1));
    let granted_unclaimed = {
        let mut task = queue(&admission, streams("unclaimed", 1));
        drop(running);
        assert!(task.is_woken());
        drop(granted(&mut waits));
        granted(&mut task)
    };
    let mut late = queue(&admission, streams("late", 2));
    admission.close();
    assert!(admission.is_closed());
    assert_eq!(support::failed(&mut late).kind(), &AcquireErrorKind::Closed);
    drop(granted_unclaimed);
    admission.set_capacity(&Resource::node(), "streams", 1);
    admission.set_capacity(&Resource::node(), "streams", 9);
    for error in [
        admission.try_acquire(streams("op", 1)).unwrap_err(),
        admission.adopt(streams("op", 1)).unwrap_err(),
        block_on(admission.acquire(streams("op", 1))).unwrap_err(),
    ] {
        assert_eq!(error.kind(), &AcquireErrorKind::Closed);
    }
    assert!(admission.snapshot().holders.is_empty());
}

#[test]
fn closing_while_others_come_and_go_admits_nobody_afterwards() {
    for _ in 0..50 {
        let admission = admission(Limits::new().node("streams", 1));
        thread::scope(|scope| {
            for owner in ["one", "other"] {
                let admission = &admission;
                scope.spawn(
                    move || {
                        while block_on(admission.acquire(streams(owner, 1))).is_ok() {}
                    },
                );
            }
            scope.spawn(|| admission.close());
        });
        let snapshot = admission.snapshot();
        assert!(snapshot.holders.is_empty() && snapshot.waiters.is_empty());
    }
}

#[test]
fn a_permit_returns_once_when_its_holder_panics() {
    let admission = admission(Limits::new().node("streams", 1));
    let permit = admission.try_acquire(streams("doomed", 1)).unwrap();
    let mut next = queue(&admission, streams("next", 1));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let _permit = permit;
        panic!("the work went wrong");
    }));
    assert!(outcome.is_err());
    let _next = granted(&mut next);
    queue(&admission, streams("third", 1));
}

struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("a waker must not panic");
    }
}

/// A waker that uses the admission that calls it.
struct ReentrantWaker {
    admission: Admission,
    seen: Mutex<Vec<String>>,
}

impl Wake for ReentrantWaker {
    fn wake(self: Arc<Self>) {
        let holders = self.admission.snapshot().holders;
        self.seen.lock().unwrap().extend(holders.into_iter().map(|holder| holder.owner));
    }
}

#[test]
fn a_waker_that_panics_or_calls_back_keeps_nobody_from_waking() {
    let admission = admission(Limits::new().node("streams", 3));
    let running = admission.try_acquire(streams("running", 3)).unwrap();
    let poll = |waker: Waker, owner: &str| {
        let mut future = Box::pin(admission.acquire(streams(owner, 1)));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        future
    };
    let reentrant =
        Arc::new(ReentrantWaker { admission: admission.clone(), seen: Mutex::default() });
    let _panics = poll(Waker::from(Arc::new(PanickingWaker)), "panics");
    let _calls = poll(Waker::from(Arc::clone(&reentrant)), "calls");
    let mut last = queue(&admission, streams("last", 1));
    drop(running);
    drop(granted(&mut last));
    assert_eq!(*reentrant.seen.lock().unwrap(), ["panics", "calls", "last"]);
}

#[test]
fn requests_for_the_same_items_in_opposite_order_do_not_deadlock() {
    let admission = admission(Limits::new());
    let group = |owner: &str, databases: [&str; 3]| {
        databases.into_iter().fold(Request::new(owner), |request, database| {
            request.exclusion("sqlserver", Resource::item(database), "data")
        })
    };
    thread::scope(|scope| {
        for (owner, databases) in [("one", ["a", "b", "c"]), ("other", ["c", "b", "a"])] {
            let admission = &admission;
            scope.spawn(move || {
                for _ in 0..50_000 {
                    let request = group(owner, databases);
                    drop(block_on(admission.acquire(request)).unwrap());
                }
            });
        }
    });
    assert!(admission.snapshot().holders.is_empty());
}

#[test]
fn a_permit_and_its_future_can_be_sent_to_another_thread() {
    fn is_sent<T: Send + 'static>(_: &T) {}
    let admission = admission(Limits::new().node("streams", 1));
    let future = admission.acquire(streams("op", 1));
    is_sent(&future);
    let permit: Permit = block_on(future).unwrap();
    is_sent(&permit);
    thread::spawn(move || drop(permit)).join().unwrap();
    drop(admission.try_acquire(streams("op", 1)).unwrap());
}
