//! How much may run at once, and in which order.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use support::{admission, failed, granted, on_clock, queue, sql, still_waits, streams};
use throttle::{
    AcquireErrorKind, Admission, Class, Clock, Limits, ManualClock, Policy, Priority, Request,
    Resource, Scope,
};

fn node_streams(admission: &Admission, capacity: u32) {
    admission.set_capacity(&Resource::node(), "streams", capacity);
}

#[test]
fn two_thousand_log_backups_run_twenty_at_a_time_in_the_order_of_arrival() {
    let admission = admission(Limits::new().node("streams", 20));
    let ask = |number: usize| {
        sql(&format!("op-{number}"), "log", &format!("db-{number}")).capacity(
            Resource::node(),
            "streams",
            1,
        )
    };
    let mut running: std::collections::VecDeque<_> =
        (0..20).map(|number| admission.try_acquire(ask(number)).unwrap()).collect();
    let mut waiting: Vec<_> = (20..2000).map(|number| queue(&admission, ask(number))).collect();

    for (next, waiting) in waiting.iter_mut().enumerate() {
        running.pop_front();
        let permit = granted(waiting);
        assert_eq!(permit.owner(), format!("op-{}", next + 20));
        running.push_back(permit);
        assert_eq!(running.len(), 20);
    }
    drop(running);
    assert!(admission.snapshot().limits.is_empty());
}

#[track_caller]
fn check_overtakes(overtakes_max: u32) {
    let admission = admission(Limits::new().node("streams", 20).overtakes_max(overtakes_max));
    let mut running: Vec<_> =
        (0..20).map(|_| admission.try_acquire(streams("small", 1)).unwrap()).collect();
    let mut large = queue(&admission, streams("large", 20));
    let mut overtakes = 0;
    loop {
        let mut small = queue(&admission, streams(&format!("small-{overtakes}"), 1));
        running.pop();
        if !small.is_woken() {
            break;
        }
        overtakes += 1;
        assert!(overtakes <= overtakes_max, "more than {overtakes_max} overtakes");
        running.push(granted(&mut small));
    }
    assert_eq!(overtakes, overtakes_max);
    running.clear();
    drop(granted(&mut large));
}

#[test]
fn a_large_request_is_overtaken_exactly_as_often_as_allowed() {
    for overtakes_max in [0, 1, 8, 64] {
        check_overtakes(overtakes_max);
    }
}

#[test]
fn a_request_for_two_scarce_limits_counts_its_overtakes_together() {
    let limits = Limits::new().node("left", 5).node("right", 5).overtakes_max(8);
    let admission = admission(limits);
    let small = |limit: &str| Request::new("small").capacity(Resource::node(), limit, 1);
    let both = Request::new("both").capacity(Resource::node(), "left", 5).capacity(
        Resource::node(),
        "right",
        5,
    );
    let mut running = ["left", "right"]
        .map(|limit| (0..5).map(|_| admission.try_acquire(small(limit)).unwrap()).collect());
    let mut large = queue(&admission, both);
    let mut overtakes = 0;
    for turn in 0..200 {
        let side = turn % 2;
        let permits: &mut Vec<_> = &mut running[side];
        permits.pop();
        if let Ok(permit) = admission.try_acquire(small(["left", "right"][side])) {
            overtakes += 1;
            permits.push(permit);
        }
        if large.is_woken() {
            break;
        }
        assert!(admission.snapshot().waiters[0].overtakes <= 8);
    }
    drop(granted(&mut large));
    // Only those count that pass it where it waits; the other side may go on meanwhile.
    assert!(overtakes <= 2 * 8 + 1, "{overtakes}");
}

#[test]
fn an_unrelated_wait_for_a_database_pins_nothing() {
    let admission = admission(Limits::new().node("streams", 2).overtakes_max(0));
    let _restore = admission.try_acquire(sql("restore", "restore", "a")).unwrap();
    let log = sql("log", "log", "a").capacity(Resource::node(), "streams", 2);
    let mut log = queue(&admission, log);
    for _ in 0..10_000 {
        let _one = admission.try_acquire(streams("one", 1)).unwrap();
        drop(admission.try_acquire(streams("two", 1)).unwrap());
    }
    still_waits(&mut log);
}

/// Somebody more urgent takes the database first. What was set aside meanwhile is free again.
#[test]
fn who_has_to_wait_for_a_database_after_all_pins_nothing() {
    let admission = admission(Limits::new().node("streams", 2).overtakes_max(0));
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let large = sql("large", "data", "a").capacity(Resource::node(), "streams", 2);
    let mut large = queue(&admission, large);
    let mut small = queue(&admission, streams("small", 1));
    let restore = sql("restore", "restore", "a").priority(Priority::Urgent);
    let restore = admission.try_acquire(restore).unwrap();
    drop(granted(&mut small));
    assert!(!admission.snapshot().waiters[0].is_pinned);

    drop(restore);
    assert!(admission.snapshot().waiters[0].is_pinned);
    queue(&admission, streams("late", 1));
    drop(running);
    drop(granted(&mut large));
}

#[test]
fn shrinking_admits_nobody_until_the_excess_was_given_back() {
    let admission = admission(Limits::new().node("streams", 20));
    let mut running: Vec<_> =
        (0..20).map(|_| admission.try_acquire(streams("running", 1)).unwrap()).collect();
    let mut waiting: Vec<_> = (0..30).map(|_| queue(&admission, streams("next", 1))).collect();
    let woken = |waiting: &[support::Task<_>]| waiting.iter().filter(|t| t.is_woken()).count();

    node_streams(&admission, 5);
    running.drain(..15);
    assert_eq!(woken(&waiting), 0);
    running.pop();
    assert_eq!(woken(&waiting), 1);
    let _first = granted(&mut waiting[0]);

    node_streams(&admission, 9);
    assert_eq!(woken(&waiting), 4);
    assert!(waiting[1..5].iter().all(support::Task::is_woken));
}

#[test]
fn a_request_that_no_longer_fits_runs_alone() {
    let admission = admission(Limits::new().node("streams", 8));
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let mut large = queue(&admission, streams("large", 8));
    node_streams(&admission, 4);
    let passing = admission.try_acquire(streams("passing", 3)).unwrap();
    drop(running);
    still_waits(&mut large);
    drop(passing);
    let large = granted(&mut large);
    let mut next = queue(&admission, streams("next", 1));
    drop(large);
    drop(granted(&mut next));
}

#[test]
fn more_than_there_has_ever_been_is_refused_at_once() {
    let admission = admission(Limits::new().node("streams", 8));
    node_streams(&admission, 4);
    drop(admission.try_acquire(streams("op", 8)).unwrap());
    let error = admission.try_acquire(streams("op", 9)).unwrap_err();
    assert!(matches!(error.kind(), AcquireErrorKind::Unsatisfiable { units: 9, ceiling: 8, .. }));
}

#[test]
fn a_pause_holds_back_who_needs_the_limit_and_frees_what_was_set_aside() {
    let limits = Limits::new().node("streams", 2).node("streams.log", 1).overtakes_max(0);
    let admission = admission(limits);
    let lane = |owner| Request::new(owner).capacity(Resource::node(), "streams.log", 1);
    let set_lane = |n| admission.set_capacity(&Resource::node(), "streams.log", n);
    let running = admission.try_acquire(lane("running")).unwrap();
    let mut log = queue(&admission, lane("log").capacity(Resource::node(), "streams", 2));
    let mut data = queue(&admission, streams("data", 1));

    set_lane(0);
    let data = granted(&mut data);
    drop(running);
    still_waits(&mut log);
    set_lane(1);
    still_waits(&mut log);
    queue(&admission, streams("late", 1));
    drop(data);
    drop(granted(&mut log));
}

#[test]
fn closing_a_lane_leaves_the_others_open() {
    let limits = Limits::new().node("streams", 1).node("streams.log", 1);
    let admission = admission(limits);
    node_streams(&admission, 0);
    queue(&admission, streams("data", 1));
    drop(
        admission
            .try_acquire(Request::new("log").capacity(Resource::node(), "streams.log", 1))
            .unwrap(),
    );
}

#[test]
fn an_urgent_request_starts_first_but_only_within_its_head_start() {
    let clock = ManualClock::new();
    let limits = Limits::new().node("streams", 1).priority_step(Duration::from_secs(60));
    let admission = on_clock(limits, &clock);
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let mut low = queue(&admission, streams("low", 1).priority(Priority::Low));
    clock.advance(Duration::from_secs(179));
    let mut urgent = queue(&admission, streams("urgent", 1).priority(Priority::Urgent));
    clock.advance(Duration::from_secs(2));
    let mut late = queue(&admission, streams("late", 1).priority(Priority::Urgent));

    drop(running);
    drop(granted(&mut urgent));
    drop(granted(&mut low));
    drop(granted(&mut late));
}

#[test]
fn a_class_lends_its_priority_to_requests_that_name_none() {
    let admission = Admission::new(Limits::new().node("streams", 1), ManualClock::new());
    let policy =
        Policy::new().class(Class::new("data")).class(Class::new("log").priority(Priority::High));
    admission.register("w", policy.compile().unwrap()).unwrap();
    let ask = |class: &str| {
        Request::new(class).exclusion("w", Resource::item(class), class).capacity(
            Resource::node(),
            "streams",
            1,
        )
    };
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let mut data = queue(&admission, ask("data"));
    let mut log = queue(&admission, ask("log"));
    drop(running);
    drop(granted(&mut log));
    drop(granted(&mut data));
}

#[test]
fn a_request_that_waited_before_a_restart_takes_its_old_place() {
    let admission = admission(Limits::new().node("streams", 1));
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let mut new = queue(&admission, streams("new", 1));
    let waited = Duration::from_secs(3600);
    let mut old = queue(&admission, streams("old", 1).already_waited(waited));
    drop(running);
    drop(granted(&mut old));
    drop(granted(&mut new));
}

#[test]
fn a_policy_tightens_the_limits_of_the_host_and_never_loosens_them() {
    let limits = Limits::new()
        .node("streams", 8)
        .workload("tight", "streams", 4)
        .workload("loose", "streams", 4);
    let admission = Admission::new(limits, ManualClock::new());
    for (workload, bound) in [("tight", 2), ("loose", 100)] {
        let policy = Policy::new()
            .class(Class::new("data"))
            .limit(Scope::Workload, "streams", bound)
            .limit(Scope::Instance, "channels", 1);
        admission.register(workload, policy.compile().unwrap()).unwrap();
    }
    let streams_of = |workload: &str, units| {
        Request::new("op").capacity(Resource::workload(workload), "streams", units)
    };
    assert!(admission.try_acquire(streams_of("tight", 3)).is_err());
    assert!(admission.try_acquire(streams_of("loose", 5)).is_err());
    let _two = admission.try_acquire(streams_of("tight", 2)).unwrap();
    let _four = admission.try_acquire(streams_of("loose", 4)).unwrap();

    admission.set_capacity(&Resource::workload("tight"), "streams", 50);
    assert!(admission.try_acquire(streams_of("tight", 1)).is_err());

    let channel =
        |instance: &str| Request::new("op").capacity(Resource::instance(instance), "channels", 1);
    let _channel = admission.try_acquire(channel("tight/main")).unwrap();
    assert!(admission.try_acquire(channel("tight/main")).is_err());
    drop(admission.try_acquire(channel("loose/main")).unwrap());
    // A name that only begins with the same letters is somebody else's.
    assert!(matches!(
        admission.try_acquire(channel("tighter/main")).unwrap_err().kind(),
        AcquireErrorKind::UnknownLimit { .. }
    ));
}

#[test]
fn claims_to_one_limit_are_added_up() {
    let admission = admission(Limits::new().node("streams", 3));
    let error = admission
        .try_acquire(streams("op", 2).capacity(Resource::node(), "streams", 2))
        .unwrap_err();
    assert!(matches!(error.kind(), AcquireErrorKind::Unsatisfiable { units: 4, .. }));
}

#[test]
fn capacity_can_be_given_back_while_the_exclusion_stays() {
    let admission = admission(Limits::new().node("streams", 1));
    let paused = admission
        .try_acquire(sql("paused", "data", "sales").capacity(Resource::node(), "streams", 1))
        .unwrap();
    let mut next = queue(&admission, streams("next", 1));
    let mut same = queue(&admission, sql("same", "data", "sales"));
    paused.release_capacity();
    let _next = granted(&mut next);
    still_waits(&mut same);
    paused.release_capacity();
    drop(paused);
    drop(granted(&mut same));
}

#[test]
fn a_request_expires_at_its_deadline_and_says_what_it_waited_for() {
    let clock = ManualClock::new();
    let admission = on_clock(Limits::new().node("streams", 1), &clock);
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let deadline = clock.now() + Duration::from_secs(30);
    let mut waits = queue(&admission, streams("waits", 1).deadline(deadline));
    assert_eq!(admission.tick(), Some(deadline));
    clock.advance(Duration::from_secs(30));
    assert_eq!(admission.tick(), None);
    assert_eq!(
        failed(&mut waits).kind(),
        &AcquireErrorKind::Expired {
            waited: Duration::from_secs(30),
            blocked_by: Some("running".into())
        }
    );
    drop(running);
    assert!(admission.snapshot().holders.is_empty());
}

#[test]
fn ten_thousand_databases_leave_nothing_behind() {
    let admission = admission(Limits::new().each(Scope::Item, "streams", 1));
    for number in 0..10_000 {
        let item = Resource::item(format!("sqlserver/main/{number}"));
        let request = Request::new("op")
            .exclusion("sqlserver", item.clone(), "data")
            .capacity(item, "streams", 1);
        drop(admission.try_acquire(request).unwrap());
    }
    let snapshot = admission.snapshot();
    assert!(snapshot.limits.is_empty() && snapshot.holders.is_empty());
}
