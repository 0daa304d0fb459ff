//! The end of an admission.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use support::{Task, admission, failed, granted, queue, streams};
use throttle::{AcquireErrorKind, Limits};

#[test]
fn an_admission_is_drained_once_nobody_holds_a_permit() {
    let admission = admission(Limits::new().node("streams", 2));
    assert!(Task::new(admission.drain()).poll().is_ready());
    let one = admission.try_acquire(streams("one", 1)).unwrap();
    let two = admission.try_acquire(streams("two", 1)).unwrap();
    let mut waits = queue(&admission, streams("waits", 1));
    let [mut drain, mut second] = [Task::new(admission.drain()), Task::new(admission.drain())];
    let dropped = {
        let mut dropped = Task::new(admission.drain());
        assert!(dropped.poll().is_pending());
        dropped
    };
    drop(dropped);
    assert!(drain.poll().is_pending() && second.poll().is_pending());
    admission.close();
    assert_eq!(failed(&mut waits).kind(), &AcquireErrorKind::Closed);
    drop(one);
    assert!(!drain.is_woken() && drain.poll().is_pending());
    drop(two);
    for drain in [&mut drain, &mut second] {
        assert!(drain.is_woken() && drain.poll().is_ready());
    }
}

#[test]
fn a_grant_that_nobody_came_for_is_held_until_its_future_goes() {
    let admission = admission(Limits::new().node("streams", 1));
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let unclaimed = queue(&admission, streams("unclaimed", 1));
    let mut drain = Task::new(admission.drain());
    drop(running);
    admission.close();
    assert!(drain.poll().is_pending());
    drop(unclaimed);
    assert!(drain.is_woken() && drain.poll().is_ready());
}

#[test]
fn who_was_granted_before_the_close_still_gets_the_permit() {
    let admission = admission(Limits::new().node("streams", 1));
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let mut next = queue(&admission, streams("next", 1));
    drop(running);
    admission.close();
    drop(granted(&mut next));
}

#[test]
fn an_admission_is_usable_after_a_panic_while_permits_return() {
    let admission = admission(Limits::new().node("streams", 1));
    for n in 0..3 {
        let permit = admission.try_acquire(streams(&format!("op-{n}"), 1)).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(move || {
            let _permit = permit;
            panic!("the work went wrong");
        }));
        assert!(outcome.is_err());
    }
    assert!(admission.snapshot().holders.is_empty());
}
