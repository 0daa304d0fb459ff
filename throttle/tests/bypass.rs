//! How often a large request is passed by smaller ones.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use support::{admission, granted, queue, still_waits};
use throttle::{Admission, Limits, Permit, Request, Resource};

fn units(owner: &str, limit: &str, units: u32) -> Request {
    Request::new(owner).capacity(Resource::node(), limit, units)
}

fn fill(admission: &Admission, limit: &str) -> Vec<Permit> {
    (0..5)
        .map(|n| admission.try_acquire(units(&format!("{limit}-{n}"), limit, 1)).unwrap())
        .collect()
}

/// Two limits take turns in being full. Whichever the large request waits for, the other one
/// is where it is passed.
#[test]
fn two_limits_that_take_turns_do_not_pass_a_request_to_and_fro() {
    for overtakes_max in [0, 1, 8, 64] {
        let limits = Limits::new().node("left", 5).node("right", 5).overtakes_max(overtakes_max);
        let admission = admission(limits);
        let mut sides = ["left", "right"].map(|limit| fill(&admission, limit));
        let large = units("large", "left", 5).capacity(Resource::node(), "right", 5);
        let mut large = queue(&admission, large);
        let mut overtakes = 0;
        'turns: for turn in 0.. {
            let side = turn % 2;
            sides[side].clear();
            for n in 0..5 {
                let small = units(&format!("small-{turn}-{n}"), ["left", "right"][side], 1);
                let Ok(small) = admission.try_acquire(small) else { break 'turns };
                overtakes += 1;
                assert!(overtakes <= overtakes_max, "more than {overtakes_max} overtakes");
                sides[side].push(small);
            }
        }
        assert_eq!(overtakes, overtakes_max);
        drop(sides);
        drop(granted(&mut large));
    }
}

#[test]
fn passing_where_enough_is_left_is_no_overtaking() {
    let admission = admission(Limits::new().node("left", 1).node("right", 3).overtakes_max(1));
    let _long = admission.try_acquire(units("long", "left", 1)).unwrap();
    let both = units("both", "left", 1).capacity(Resource::node(), "right", 1);
    let mut both = queue(&admission, both);
    for n in 0..100 {
        drop(admission.try_acquire(units(&format!("small-{n}"), "right", 2)).unwrap());
    }
    let waiter = &admission.snapshot().waiters[0];
    assert_eq!((waiter.overtakes, waiter.is_pinned), (0, false));
    still_waits(&mut both);
}

#[test]
fn a_pinned_request_stays_pinned_when_it_has_to_wait_elsewhere() {
    let limits = Limits::new().node("left", 2).node("right", 2).overtakes_max(1);
    let admission = admission(limits);
    let left = admission.try_acquire(units("left", "left", 1)).unwrap();
    let right = admission.try_acquire(units("right", "right", 1)).unwrap();
    let both = units("both", "left", 2).capacity(Resource::node(), "right", 2);
    let mut both = queue(&admission, both);
    let passing = admission.try_acquire(units("passing", "left", 1)).unwrap();
    assert!(admission.snapshot().waiters[0].is_pinned);

    drop((left, passing));
    let waiter = &admission.snapshot().waiters[0];
    assert_eq!(waiter.waits_for, throttle::Claim::capacity(Resource::node(), "right", 2));
    assert!(waiter.is_pinned);
    queue(&admission, units("late", "left", 1));
    drop(right);
    drop(granted(&mut both));
}

/// Both large requests need `right`. The first one is content with what is left there, so
/// it is the second one that small requests pass.
#[test]
fn a_request_is_passed_no_more_often_behind_one_that_waits_for_something_else() {
    for overtakes_max in [0, 1, 8] {
        let limits = Limits::new().node("left", 1).node("right", 5).overtakes_max(overtakes_max);
        let admission = admission(limits);
        let _left = admission.try_acquire(units("left", "left", 1)).unwrap();
        let mut right = fill(&admission, "right");
        let ahead = units("ahead", "left", 1).capacity(Resource::node(), "right", 1);
        let _ahead = queue(&admission, ahead);
        let _large = queue(&admission, units("large", "right", 4));
        drop(right.split_off(2));
        let mut overtakes = 0;
        while let Ok(small) = admission.try_acquire(units("small", "right", 2)) {
            overtakes += 1;
            assert!(overtakes <= overtakes_max, "more than {overtakes_max} overtakes");
            drop(small);
        }
        assert_eq!(overtakes, overtakes_max);
    }
}

/// Nothing is set aside for whoever needs a paused limit, so passing it is not counted
/// against it but against the next in line.
#[test]
fn a_request_is_passed_no_more_often_behind_one_that_needs_a_paused_limit() {
    let limits = Limits::new().node("left", 1).node("right", 5).overtakes_max(2);
    let admission = admission(limits);
    let mut right = fill(&admission, "right");
    let paused = units("paused", "left", 1).capacity(Resource::node(), "right", 4);
    let mut paused = queue(&admission, paused);
    admission.set_capacity(&Resource::node(), "left", 0);
    let mut large = queue(&admission, units("large", "right", 4));
    drop(right.split_off(2));
    for n in 0..2 {
        drop(admission.try_acquire(units(&format!("small-{n}"), "right", 2)).unwrap());
    }
    assert!(admission.try_acquire(units("late", "right", 2)).is_err());
    let overtakes: Vec<_> =
        admission.snapshot().waiters.iter().map(|waiter| waiter.overtakes).collect();
    assert_eq!(overtakes, [0, 2]);

    drop(right);
    drop(granted(&mut large));
    admission.set_capacity(&Resource::node(), "left", 1);
    drop(granted(&mut paused));
}
