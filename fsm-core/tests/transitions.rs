//! What a transition allocates.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.
#![allow(dead_code)] // The benchmark uses the rest of the light.

#[path = "../benches/light/mod.rs"]
mod light;

use std::hint::black_box;

use allocation_counter::measure;
use fsm_core::{Context, State};
use futures::FutureExt;

use self::light::{Erased, Green, Light, Matched, Red, TICKS_PER_CYCLE, Ticks, Typed, go_around};

/// Allocations per transition, of a light that has warmed up.
fn allocations_per_tick(mut light: impl Ticks) -> u64 {
    light.tick();
    let allocations = measure(|| {
        for _ in 0..TICKS_PER_CYCLE {
            black_box(&mut light).tick();
        }
    });
    assert_eq!(allocations.count_current, 0, "a tick keeps no more than it frees");
    allocations.count_total.div_ceil(TICKS_PER_CYCLE)
}

#[test]
fn every_light_counts_its_cycles() {
    go_around(Matched::default(), 100);
    go_around(Typed::default(), 100);
    go_around(Erased::default(), 100);
}

#[test]
fn a_typed_transition_allocates_once_for_the_successor() {
    assert_eq!(allocations_per_tick(Matched::default()), 0);
    assert_eq!(allocations_per_tick(Typed::default()), 1);
}

#[test]
fn a_successor_without_data_allocates_nothing() {
    let mut cx = Context::<Light>::alone("light".parse().unwrap(), &(), &());
    let mut off = None;
    let allocations = measure(|| {
        let red = black_box(Red { cycles: u64::MAX });
        off = Some(red.run(&Light, &mut cx).now_or_never().unwrap().unwrap());
    });
    assert_eq!(allocations.count_total, 0);
    let moved = off.unwrap();
    assert_eq!(moved.state(), "off");
    assert!(moved.take::<Green>().is_err());
}

#[test]
fn an_erased_transition_allocates_ten_times_at_most() {
    let count = allocations_per_tick(Erased::default());
    println!("an erased transition allocates {count} times");
    assert!(count <= 10, "{count}");
}
