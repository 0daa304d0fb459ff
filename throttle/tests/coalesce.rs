//! Requests that are one, and share a permit.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use support::{Task, failed, granted, queue, still_waits};
use throttle::{
    Acquire, AcquireErrorKind, Admission, Class, Clock, Limits, ManualClock, Permit, Policy,
    Request, Resource, Scope,
};

fn log(owner: &str) -> Request {
    Request::new(owner)
        .exclusion("w", Resource::item("w/i/x"), "log")
        .capacity(Resource::node(), "streams", 1)
        .coalesce_key("scheduled")
}

struct World {
    clock: ManualClock,
    admission: Admission,
    running: Permit,
}

fn world() -> World {
    let clock = ManualClock::new();
    let policy = Policy::new().class(Class::new("log").coalesce(Scope::Item));
    let admission = Admission::new(Limits::new().node("streams", 4), clock.clone());
    admission.register("w", policy.compile().unwrap()).unwrap();
    let running = admission.try_acquire(log("running")).unwrap();
    World { clock, admission, running }
}

fn three(admission: &Admission) -> [Task<Acquire>; 3] {
    ["a", "b", "c"].map(|owner| queue(admission, log(owner)))
}

fn is_empty(admission: &Admission) -> bool {
    let snapshot = admission.snapshot();
    snapshot.holders.is_empty() && snapshot.waiters.is_empty() && snapshot.limits.is_empty()
}

#[test]
fn equal_requests_wait_as_one_and_share_the_permit() {
    let World { admission, running, .. } = world();
    let [mut a, mut b, mut c] = three(&admission);
    let snapshot = admission.snapshot();
    assert_eq!(snapshot.waiters.len(), 1);
    assert_eq!(snapshot.waiters[0].coalesced, ["b", "c"]);
    drop(running);
    let b = granted(&mut b);
    let a = granted(&mut a);
    // Whoever comes first does the work.
    assert_eq!((b.coalesced_into(), a.coalesced_into()), (None, Some("b")));
    assert_eq!((a.id(), a.root()), (b.id(), b.root()));
    let snapshot = admission.snapshot();
    assert_eq!((&*snapshot.holders[0].owner, snapshot.limits[0].used), ("b", 1));
    assert_eq!(snapshot.holders[0].shared_with, ["a", "c"]);
    let mut next = queue(&admission, log("next"));
    drop(b);
    still_waits(&mut next);
    drop(a);
    drop(granted(&mut next));
    // This one came when the work was done.
    assert_eq!(failed(&mut c).kind(), &AcquireErrorKind::Coalesced { into: "b".into() });
    assert!(is_empty(&admission));
}

#[test]
fn one_that_gives_up_leaves_the_others_in_their_place() {
    let World { admission, running, .. } = world();
    let [a, mut b, c] = three(&admission);
    drop((a, c));
    assert_eq!(admission.snapshot().waiters[0].owner, "b");
    drop(running);
    let b = granted(&mut b);
    assert_eq!(b.coalesced_into(), None);
    drop(b);
    assert!(is_empty(&admission));
}

#[test]
fn one_that_gives_up_after_the_grant_leaves_it_to_the_others() {
    let World { admission, running, .. } = world();
    let [a, mut b, c] = three(&admission);
    drop(running);
    drop((a, c));
    let b = granted(&mut b);
    assert_eq!((b.owner(), b.coalesced_into()), ("b", None));
    drop(b);
    assert!(is_empty(&admission));
}

/// The work of whoever has left is no part of what the others do.
#[track_caller]
fn check_excludes(admission: &Admission, left: &str, at_work: &str) {
    assert_eq!(admission.snapshot().holders[0].owner, at_work);
    let error = admission.try_acquire(log(left)).unwrap_err();
    let blocked_by = Some(at_work.to_owned());
    assert_eq!(error.kind(), &AcquireErrorKind::WouldWait { blocked_by });
}

#[test]
fn who_gave_up_in_line_is_kept_out_by_the_others() {
    let World { admission, running, .. } = world();
    let [a, mut b, c] = three(&admission);
    drop(a);
    drop(running);
    let b = granted(&mut b);
    assert_eq!(b.root(), "b");
    drop(c);
    check_excludes(&admission, "a", "b");
}

#[test]
fn who_gave_up_after_the_grant_is_kept_out_before_anybody_came_for_it() {
    let World { admission, running, .. } = world();
    let [a, mut b, _c] = three(&admission);
    drop(running);
    drop(a);
    check_excludes(&admission, "a", "b");
    drop(granted(&mut b));
}

#[test]
fn who_followed_and_left_is_kept_out_by_the_one_that_works() {
    let World { admission, running, .. } = world();
    let [mut a, mut b, _c] = three(&admission);
    drop(running);
    let _b = granted(&mut b);
    drop(granted(&mut a));
    check_excludes(&admission, "a", "b");
}

#[test]
fn a_permit_is_named_after_one_who_has_it() {
    let World { admission, running, .. } = world();
    let [mut a, mut b, mut c] = three(&admission);
    drop(running);
    let (a, _b) = (granted(&mut a), granted(&mut b));
    drop(a);
    assert_eq!(admission.snapshot().holders[0].owner, "b");
    // But it was the other one that worked.
    assert_eq!(granted(&mut c).coalesced_into(), Some("a"));
}

/// What belongs to the operation of the one that is left does not queue behind it.
#[test]
fn parts_of_the_one_that_comes_first_start_when_it_comes() {
    let World { admission, running, .. } = world();
    let [_a, mut b, _c] = three(&admission);
    let mut part = queue(&admission, log("b").coalesce_key("another"));
    drop(running);
    still_waits(&mut part);
    let _b = granted(&mut b);
    drop(granted(&mut part));
}

#[test]
fn each_has_its_own_deadline() {
    let World { clock, admission, running } = world();
    let at = |seconds| clock.now() + Duration::from_secs(seconds);
    let mut a = queue(&admission, log("a").deadline(at(10)));
    let mut b = queue(&admission, log("b").deadline(at(5)));
    let mut c = queue(&admission, log("c"));
    clock.advance(Duration::from_secs(5));
    assert_eq!(admission.tick(), Some(Clock::now(&clock) + Duration::from_secs(5)));
    assert!(matches!(failed(&mut b).kind(), AcquireErrorKind::Expired { .. }));
    clock.advance(Duration::from_secs(5));
    assert_eq!(admission.tick(), None);
    assert!(matches!(failed(&mut a).kind(), AcquireErrorKind::Expired { .. }));
    drop(running);
    drop(granted(&mut c));
    assert!(is_empty(&admission));
}

#[test]
fn a_revoked_permit_is_there_for_whoever_comes_first() {
    let World { clock, admission, running } = world();
    let [mut a, mut b, c] = three(&admission);
    drop(running);
    clock.advance(Duration::from_secs(31));
    admission.tick();
    assert_eq!(admission.snapshot().holders.len(), 0);
    // Somebody who joins them brings them back in line.
    let mut d = Task::new(admission.acquire(log("d")));
    assert!(d.poll().is_pending());
    let d = granted(&mut d);
    assert!(a.poll().is_ready());
    assert!(b.poll().is_ready());
    drop((c, d));
    assert!(is_empty(&admission));
}

#[test]
fn who_asks_for_something_else_is_not_one_with_them() {
    let World { admission, running, .. } = world();
    let mut a = queue(&admission, log("a"));
    let mut more = queue(&admission, log("more").capacity(Resource::node(), "streams", 1));
    let part = log("part").lent_by(&running);
    drop(admission.try_acquire(part).unwrap());
    assert_eq!(admission.snapshot().waiters.len(), 2);
    drop(running);
    still_waits(&mut more);
    drop(granted(&mut a));
    drop(granted(&mut more));
}

#[test]
fn closing_and_force_tell_everybody() {
    let World { admission, running, .. } = world();
    let [mut a, mut b, _c] = three(&admission);
    drop(running);
    assert!(admission.force_release(admission.snapshot().holders[0].id));
    assert_eq!(failed(&mut a).kind(), &AcquireErrorKind::Released);
    assert_eq!(failed(&mut b).kind(), &AcquireErrorKind::Released);
    let _running = admission.try_acquire(log("running")).unwrap();
    let mut waiting = three(&admission);
    admission.close();
    for waiting in &mut waiting {
        assert_eq!(failed(waiting).kind(), &AcquireErrorKind::Closed);
    }
}

#[test]
fn what_waits_for_the_opening_can_be_one_too() {
    let policy = Policy::new().class(Class::new("log").coalesce(Scope::Item));
    let admission = Admission::recovering(Limits::new().node("streams", 1), ManualClock::new());
    admission.register("w", policy.compile().unwrap()).unwrap();
    let [mut a, mut b, mut c] = three(&admission);
    admission.open();
    let permits = [granted(&mut a), granted(&mut b), granted(&mut c)];
    assert_eq!(admission.snapshot().limits[0].used, 1);
    drop(permits);
    assert!(is_empty(&admission));
}
