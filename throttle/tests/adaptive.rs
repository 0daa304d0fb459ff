//! Limits that follow the pressure on the node.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use proptest::prelude::*;
use support::{admission, granted, queue, still_waits, streams};
use throttle::{
    Bearable, ByteRate, Controller, Governor, Limits, ManualClock, ManualPressure, Pressure,
    Resource, StallFile,
};

const MIB: u64 = 1 << 20;

#[test]
fn above_soft_nobody_is_admitted_and_nobody_is_stopped() {
    let admission = admission(Limits::new().node("streams", 4));
    let pressure = ManualPressure::new();
    let mut governor = Governor::new(Bearable::new(20, 30), pressure.clone()).limit(
        &admission,
        Resource::node(),
        "streams",
    );
    governor.configure(4, None);
    let running = [0, 1].map(|n| admission.try_acquire(streams(&format!("op-{n}"), 1)).unwrap());
    pressure.set(Some(21));
    governor.window();
    let mut waits = queue(&admission, streams("waits", 1));
    assert_eq!(admission.snapshot().holders.len(), 2);

    pressure.set(Some(20));
    for _ in 0..3 {
        governor.window();
        still_waits(&mut waits);
    }
    // Used by two, one less is one; after three calm windows one unit more a window.
    governor.window();
    governor.window();
    drop(granted(&mut waits));
    drop(running);
    governor.window();
    assert_eq!(admission.used(&Resource::node(), "streams"), 0);
}

#[test]
fn the_rate_falls_above_hard_only_and_rises_when_it_is_calm() {
    let mut controller = Controller::new(Bearable::new(20, 30));
    controller.configure(8, Some(100 * MIB));
    assert_eq!(controller.window(Some(30), 8).1, Some(100 * MIB));
    assert_eq!(controller.window(Some(31), 8).1, Some(70 * MIB));
    assert_eq!(controller.window(Some(31), 8).1, Some(49 * MIB));
    for _ in 0..3 {
        assert_eq!(controller.window(Some(0), 8).1, Some(49 * MIB));
    }
    assert_eq!(controller.window(Some(0), 8).1, Some(54 * MIB));
    // Between the thresholds it neither falls nor rises, and calm starts over.
    assert_eq!(controller.window(Some(25), 8).1, Some(54 * MIB));
    assert_eq!(controller.window(Some(0), 8).1, Some(54 * MIB));
    let windows = (1..).find(|_| controller.window(Some(0), 8) == (8, Some(100 * MIB)));
    assert!(windows.unwrap() <= 13);
}

#[test]
fn without_a_reading_the_limits_are_fixed() {
    let admission = admission(Limits::new().node("streams", 4));
    let clock = ManualClock::new();
    let rate = ByteRate::new(clock.clone(), clock);
    let mut missing = StallFile::new("/nowhere/pressure/io");
    assert_eq!(missing.sample(), None);
    let mut governor = Governor::new(Bearable::new(1_000, 5_000), missing)
        .limit(&admission, Resource::node(), "streams")
        .rate(&rate);
    governor.configure(4, None);
    for _ in 0..3 {
        governor.window();
        drop(admission.try_acquire(streams("op", 4)).unwrap());
    }
}

#[test]
fn only_a_change_of_what_is_configured_gives_back_what_pressure_took() {
    let admission = admission(Limits::new().node("streams", 4));
    let pressure = ManualPressure::new();
    let mut governor = Governor::new(Bearable::new(20, 30), pressure.clone()).limit(
        &admission,
        Resource::node(),
        "streams",
    );
    // Before it knows what there is it sets nothing.
    pressure.set(Some(25));
    governor.window();
    let running = admission.try_acquire(streams("running", 4)).unwrap();
    governor.configure(4, None);
    governor.window();
    let capacity = || admission.snapshot().limits[0].capacity;
    assert_eq!(capacity(), 3);
    governor.configure(4, None);
    assert_eq!(capacity(), 3);
    governor.configure(5, None);
    assert_eq!(capacity(), 5);
    drop(running);
}

#[test]
fn a_paused_limit_stays_paused() {
    let mut controller = Controller::new(Bearable::new(20, 30));
    controller.configure(0, None);
    for pressure in [None, Some(0), Some(100), Some(0), Some(0), Some(0), Some(0)] {
        assert_eq!(controller.window(pressure, 0), (0, None));
    }
}

proptest! {
    #[test]
    fn the_limits_stay_between_minimum_and_configured(
        windows in prop::collection::vec((prop::option::of(0u64..100), 0u64..40), 1..60),
        capacity in 1u32..32,
        rate in 1u64..1_000 * MIB,
    ) {
        let mut controller = Controller::new(Bearable::new(20, 50));
        controller.configure(capacity, Some(rate));
        for (pressure, used) in windows {
            let (now, bytes) = controller.window(pressure, used);
            prop_assert!((1..=capacity).contains(&now));
            prop_assert!((MIB.min(rate)..=rate).contains(&bytes.unwrap()));
        }
    }
}
