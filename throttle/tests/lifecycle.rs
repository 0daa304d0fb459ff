//! What becomes of a permit: claimed in time or not, given back in part, lent, lost.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use support::{Task, admission, failed, granted, on_clock, queue, sql, still_waits, streams};
use throttle::{
    AcquireErrorKind, Admission, Claim, Clock, Limits, ManualClock, Permit, Request, Resource,
    Standing,
};

const SECOND: Duration = Duration::from_secs(1);

fn used(admission: &Admission) -> u64 {
    admission.snapshot().limits.iter().map(|limit| limit.used).sum()
}

#[track_caller]
fn reacquired(permit: &Permit) {
    assert!(Task::new(permit.reacquire()).poll().is_ready(), "should be granted at once");
}

#[test]
fn a_grant_that_nobody_comes_for_goes_to_the_next() {
    let clock = ManualClock::new();
    let admission = on_clock(Limits::new().node("streams", 1), &clock);
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let mut lazy = queue(&admission, streams("lazy", 1));
    let mut next = queue(&admission, streams("next", 1));
    let mut last = queue(&admission, streams("last", 1));
    drop(running);
    assert!(lazy.is_woken() && !admission.snapshot().holders[0].is_claimed);
    let due = clock.now() + 30 * SECOND;
    assert_eq!(admission.next_tick(), Some(due));
    clock.advance(29 * SECOND);
    assert_eq!(admission.tick(), Some(due));
    still_waits(&mut next);

    clock.advance(2 * SECOND);
    admission.tick();
    let next = granted(&mut next);
    assert_eq!(admission.snapshot().waiters[0].standing, Standing::Unclaimed);
    // It is back at its old place, before the last one, once it is polled.
    still_waits(&mut lazy);
    assert_eq!(admission.snapshot().waiters[0].standing, Standing::InLine);
    drop(next);
    drop(granted(&mut lazy));
    drop(granted(&mut last));
    assert_eq!(admission.next_tick(), None);
}

#[test]
fn a_revoked_request_that_is_polled_while_there_is_room_is_granted_again() {
    let clock = ManualClock::new();
    let limits = Limits::new().node("streams", 1).claim_within(5 * SECOND);
    let admission = on_clock(limits, &clock);
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let mut lazy = queue(&admission, streams("lazy", 1));
    drop(running);
    clock.advance(5 * SECOND);
    admission.tick();
    assert!(admission.snapshot().holders.is_empty());
    assert!(lazy.poll().is_pending());
    drop(granted(&mut lazy));
    assert!(admission.snapshot().limits.is_empty());
}

#[test]
fn a_revoked_request_leaves_nothing_behind_however_it_ends() {
    for end in ["drop", "expire", "close"] {
        let clock = ManualClock::new();
        let admission = on_clock(Limits::new().node("streams", 1), &clock);
        let running = admission.try_acquire(streams("running", 1)).unwrap();
        let deadline = clock.now() + 60 * SECOND;
        let mut lazy = queue(&admission, streams("lazy", 1).deadline(deadline));
        drop(running);
        clock.advance(31 * SECOND);
        admission.tick();
        match end {
            "drop" => drop(lazy),
            "expire" => {
                clock.advance(30 * SECOND);
                admission.tick();
                let error = lazy.poll();
                assert!(format!("{error:?}").contains("Expired"), "{error:?}");
            }
            _ => {
                admission.close();
                let error = lazy.poll();
                assert!(format!("{error:?}").contains("Closed"), "{error:?}");
            }
        }
        let snapshot = admission.snapshot();
        assert!(snapshot.waiters.is_empty() && snapshot.limits.is_empty(), "{end}: {snapshot:?}");
        assert_eq!(admission.next_tick(), None, "{end}");
    }
}

#[test]
fn whoever_holds_a_permit_cannot_wait_for_another_one() {
    let admission = admission(Limits::new().node("streams", 2));
    let held = admission.try_acquire(streams("op", 1)).unwrap();
    // As long as there is room nobody waits.
    let more = admission.try_acquire(streams("op", 1)).unwrap();
    let mut nested = Task::new(admission.acquire(streams("op", 1)));
    let std::task::Poll::Ready(Err(error)) = nested.poll() else { panic!("should not wait") };
    assert_eq!(error.kind(), &AcquireErrorKind::WouldNest { blocked_by: Some("op".into()) });
    let mut part = queue(&admission, streams("op", 1).lent_by(&held));
    drop(more);
    drop(granted(&mut part));
    drop(held);
    assert!(admission.snapshot().limits.is_empty());
}

#[test]
fn a_leaked_permit_is_visible_and_can_be_released_by_force() {
    let admission = admission(Limits::new().node("streams", 1));
    let leaked = admission.try_acquire(streams("leaked", 1)).unwrap();
    let mut next = queue(&admission, streams("next", 1));
    let id = admission.snapshot().holders[0].id;
    assert_eq!(id, leaked.id());
    assert!(admission.force_release(id));
    assert!(!admission.force_release(id));
    let next = granted(&mut next);
    // The permit comes back after all; it is not given back twice.
    drop(leaked);
    assert_eq!(used(&admission), 1);
    drop(next);
}

#[test]
fn a_grant_that_was_released_by_force_before_anybody_came_is_an_error() {
    let admission = admission(Limits::new().node("streams", 1));
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let mut lost = queue(&admission, streams("lost", 1));
    drop(running);
    assert!(admission.force_release(admission.snapshot().holders[0].id));
    assert_eq!(failed(&mut lost).kind(), &AcquireErrorKind::Released);
}

#[test]
fn part_of_a_permit_can_be_given_back() {
    let admission = admission(Limits::new().node("streams", 4));
    let request = sql("op", "data", "sales").capacity(Resource::node(), "streams", 4);
    let permit = admission.try_acquire(request).unwrap();
    permit.downgrade(&[Claim::capacity(Resource::node(), "streams", 3)]);
    assert_eq!(used(&admission), 1);
    // By an alias, and something that it never had.
    let sales = Resource::item("sqlserver/main/sales");
    permit.downgrade(&[
        Claim::exclusion("sqlserver", sales.clone(), "full"),
        Claim::exclusion("sqlserver", sales, "log"),
        Claim::capacity(Resource::node(), "buffers", 1),
    ]);
    drop(admission.try_acquire(sql("next", "restore", "sales")).unwrap());
    permit.downgrade(&[Claim::capacity(Resource::node(), "streams", 9)]);
    assert_eq!(used(&admission), 0);
    reacquired(&permit);
    assert_eq!(used(&admission), 4);
    drop(permit);
    assert!(admission.snapshot().limits.is_empty());
}

#[test]
fn capacity_is_acquired_again_at_the_old_place() {
    let clock = ManualClock::new();
    let admission = on_clock(Limits::new().node("streams", 2), &clock);
    let request = sql("op", "data", "sales").capacity(Resource::node(), "streams", 2);
    let permit = admission.try_acquire(request).unwrap();
    clock.advance(SECOND);
    permit.release_capacity();
    let running = admission.try_acquire(streams("running", 2)).unwrap();
    let mut waits = queue(&admission, streams("waits", 2));
    let mut again = Task::new(permit.reacquire());
    assert!(again.poll().is_pending());
    drop(running);
    assert!(again.is_woken() && !waits.is_woken());
    assert_eq!(again.poll(), std::task::Poll::Ready(Ok(())));
    drop(again);
    assert_eq!(admission.snapshot().holders.len(), 1);
    assert_eq!(admission.snapshot().holders[0].claims.len(), 2);
    reacquired(&permit);
    drop(permit);
    drop(granted(&mut waits));
    assert!(admission.snapshot().limits.is_empty());
}

#[test]
fn a_wait_for_capacity_that_is_dropped_or_refused_takes_nothing() {
    let admission = admission(Limits::new().node("streams", 1));
    let permit = admission.try_acquire(streams("op", 1)).unwrap();
    permit.release_capacity();
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let mut again = Task::new(permit.reacquire());
    assert!(again.poll().is_pending());
    drop(running);
    assert!(again.is_woken());
    drop(again);
    assert_eq!(used(&admission), 0);
    admission.force_release(permit.id());
    let mut again = Task::new(permit.reacquire());
    let std::task::Poll::Ready(Err(error)) = again.poll() else { panic!("nothing to get") };
    assert_eq!(error.kind(), &AcquireErrorKind::Released);
}

#[test]
fn what_is_given_back_during_a_wait_for_capacity_is_not_taken_with_it() {
    let admission = admission(Limits::new().node("streams", 2).node("buffers", 1));
    let request = streams("op", 2).capacity(Resource::node(), "buffers", 1);
    let permit = admission.try_acquire(request).unwrap();
    permit.downgrade(&[Claim::capacity(Resource::node(), "streams", 1)]);
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let mut again = Task::new(permit.reacquire());
    assert!(again.poll().is_pending());
    permit.release_capacity();
    drop(running);
    assert_eq!(again.poll(), std::task::Poll::Ready(Ok(())));
    drop(again);
    assert_eq!(admission.snapshot().holders[0].claims, streams("op", 1).claims());
    assert_eq!(used(&admission), 1);
    reacquired(&permit);
    assert_eq!(used(&admission), 3);
    drop(permit);
    assert!(admission.snapshot().limits.is_empty());
}

#[test]
fn two_who_wait_for_the_same_capacity_take_it_once() {
    let admission = admission(Limits::new().node("streams", 2));
    let permit = admission.try_acquire(streams("op", 1)).unwrap();
    permit.release_capacity();
    let running = admission.try_acquire(streams("running", 2)).unwrap();
    let mut both = [Task::new(permit.reacquire()), Task::new(permit.reacquire())];
    assert!(both.iter_mut().all(|again| again.poll().is_pending()));
    drop(running);
    for again in &mut both {
        assert_eq!(again.poll(), std::task::Poll::Ready(Ok(())));
    }
    assert_eq!(used(&admission), 1);
    drop(both);
    drop(permit);
    assert!(admission.snapshot().limits.is_empty());
}

#[test]
fn a_part_uses_the_capacity_of_its_operation_first() {
    let admission = admission(Limits::new().node("streams", 4));
    let request = sql("restore", "restore", "sales").capacity(Resource::node(), "streams", 3);
    let restore = admission.try_acquire(request).unwrap();
    let part = |owner: &str, units| streams(owner, units).borrowing_from(&restore);
    let two = admission.try_acquire(part("two", 2)).unwrap();
    assert_eq!(used(&admission), 3);
    // One unit is left to lend, and one is free.
    let other = admission.try_acquire(part("other", 2)).unwrap();
    assert_eq!(used(&admission), 4);
    let mut waits = queue(&admission, part("waits", 2));
    drop(two);
    let waits = granted(&mut waits);
    assert_eq!(used(&admission), 4);
    drop((other, waits));
    assert_eq!(used(&admission), 3);
    // A pause stops nobody who works with what the operation has.
    admission.set_capacity(&Resource::node(), "streams", 0);
    let three = admission.try_acquire(part("three", 3)).unwrap();
    drop(restore);
    assert_eq!(used(&admission), 3);
    drop(three);
    assert!(admission.snapshot().limits.is_empty());
}

#[test]
fn lent_capacity_that_the_operation_gave_up_meanwhile_returns_to_the_limit() {
    let admission = admission(Limits::new().node("streams", 3));
    let restore = admission.try_acquire(streams("restore", 3)).unwrap();
    let part = admission.try_acquire(streams("part", 2).borrowing_from(&restore)).unwrap();
    restore.release_capacity();
    assert_eq!(used(&admission), 2);
    drop(part);
    assert_eq!(used(&admission), 0);
    reacquired(&restore);
    assert_eq!(used(&admission), 3);
}

#[test]
fn before_the_opening_requests_queue_and_what_was_adopted_counts() {
    let clock = ManualClock::new();
    let admission = Admission::recovering(Limits::new().node("streams", 2), clock.clone());
    for (workload, policy) in [("sqlserver", support::sqlserver()), ("hana", support::hana())] {
        admission.register(workload, policy.compile().unwrap()).unwrap();
    }
    let mut early = queue(&admission, streams("early", 1));
    let tenant = Resource::item("hana/HDB/T1");
    let data = |owner| Request::new(owner).exclusion("hana", tenant.clone(), "data");
    let mut second = queue(&admission, data("second"));
    let mut other = queue(&admission, sql("other", "data", "sales"));
    assert!(matches!(
        admission.try_acquire(streams("now", 1)).unwrap_err().kind(),
        AcquireErrorKind::WouldWait { blocked_by: None }
    ));
    assert_eq!(admission.snapshot().waiters[0].standing, Standing::NotOpen);

    let adopted: Vec<_> =
        (0..3).map(|n| admission.adopt(streams(&format!("old-{n}"), 1)).unwrap()).collect();
    let _full = admission.adopt(data("full")).unwrap();
    let left = admission
        .adopt_exclusions(
            sql("left", "data", "stock")
                .capacity(Resource::node(), "streams", 1)
                .already_waited(60 * SECOND),
        )
        .unwrap();
    assert!(!admission.is_open());
    admission.open();
    assert!(admission.is_open());
    assert_eq!(admission.snapshot().limits[0].debt(), 1);
    drop(granted(&mut other));
    assert!(matches!(failed(&mut second).kind(), AcquireErrorKind::Rejected { .. }));
    let mut again = Task::new(left.reacquire());
    assert!(again.poll().is_pending());

    let mut adopted = adopted.into_iter();
    drop(adopted.next());
    still_waits(&mut early);
    // Its old place is before everybody who came after the restart.
    drop(adopted.next());
    assert!(again.poll().is_ready());
    still_waits(&mut early);
    drop(adopted.next());
    drop(granted(&mut early));
}

/// The places decide who has the capacity, not the order in which it was asked for.
#[test]
fn capacity_that_is_wanted_again_before_the_opening_is_granted_then() {
    let admission = Admission::recovering(Limits::new().node("streams", 1), ManualClock::new());
    let late = admission.adopt_exclusions(streams("late", 1)).unwrap();
    let old = streams("old", 1).already_waited(60 * SECOND);
    let old = admission.adopt_exclusions(old).unwrap();
    let [mut late, mut old] = [&late, &old].map(|permit| Task::new(permit.reacquire()));
    assert!(late.poll().is_pending() && old.poll().is_pending());
    assert_eq!(used(&admission), 0);
    admission.open();
    assert!(old.is_woken() && !late.is_woken());
    assert_eq!(old.poll(), std::task::Poll::Ready(Ok(())));
    assert!(late.poll().is_pending());
}

#[test]
fn who_came_before_the_opening_starts_in_order_or_expires() {
    let clock = ManualClock::new();
    let admission = Admission::recovering(Limits::new().node("streams", 1), clock.clone());
    let mut first = queue(&admission, streams("first", 1));
    let mut second = queue(&admission, streams("second", 1));
    let deadline = clock.now() + SECOND;
    let mut late = queue(&admission, streams("late", 1).deadline(deadline));
    clock.advance(SECOND);
    admission.tick();
    assert!(matches!(failed(&mut late).kind(), AcquireErrorKind::Expired { .. }));
    admission.open();
    still_waits(&mut second);
    drop(granted(&mut first));
    drop(granted(&mut second));
}
