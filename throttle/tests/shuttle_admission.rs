//! Many tasks in random orders: more than can be tried in full, so each order is a seed.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test -p throttle --release --test shuttle_admission -- --nocapture
//! ```
//!
//! `SHUTTLE_SEED` chooses the seed and `SHUTTLE_ORDERS` how many orders follow from it. Both
//! are printed; the same two lead to the same orders.
#![cfg(shuttle)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::env;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use shuttle::future::block_on;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, thread};
use throttle::{Admission, Class, Clock, Instant, Limits, Policy, Request, Resource, Rule, Scope};

fn from_environment(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Tries random orders of `scene`, first uniformly, then with few changes of priority.
fn explore(name: &str, scene: impl Fn() + Copy + Send + Sync + 'static) {
    let seed = from_environment("SHUTTLE_SEED", 0x6d65_7263_7572_7900);
    let orders = usize::try_from(from_environment("SHUTTLE_ORDERS", 10_000)).expect("a number");
    println!("{name}: SHUTTLE_SEED={seed} SHUTTLE_ORDERS={orders}");
    Runner::new(RandomScheduler::new_from_seed(seed, orders), Config::new()).run(scene);
    Runner::new(PctScheduler::new_from_seed(seed, 3, orders), Config::new()).run(scene);
}

struct NoTime;

impl Clock for NoTime {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }
}

const STREAMS: u32 = 3;

fn admission() -> Admission {
    let limits = Limits::new().node("streams", STREAMS).node("buffers", 4).overtakes_max(2);
    let admission = Admission::new(limits, NoTime);
    let policy = Policy::new().class(Class::new("data")).class(Class::new("log")).rule(
        Scope::Item,
        "data/log",
        Rule::Allow,
    );
    admission.register("w", policy.compile().unwrap()).unwrap();
    admission
}

/// What task `number` asks for: an item of three, in turn with others, and some units.
fn request(number: u32) -> Request {
    let class = if number.is_multiple_of(2) { "data" } else { "log" };
    let request = Request::new(format!("task-{number}"))
        .exclusion("w", Resource::item(format!("w/{}", number % 3)), class)
        .capacity(Resource::node(), "streams", 1 + number % STREAMS);
    match number % 4 {
        0 => request.capacity(Resource::node(), "buffers", 2),
        _ => request,
    }
}

/// Works twice, and counts the streams that are in use meanwhile.
fn work(admission: &Admission, number: u32, in_use: &AtomicU32) {
    for _ in 0..2 {
        let units = 1 + number % STREAMS;
        let permit = block_on(admission.acquire(request(number))).unwrap();
        let before = in_use.fetch_add(units, Ordering::SeqCst);
        assert!(before + units <= STREAMS, "{before} + {units} streams in use");
        thread::yield_now();
        in_use.fetch_sub(units, Ordering::SeqCst);
        drop(permit);
    }
}

/// Polls once and gives up, twice.
fn lose_interest(admission: &Admission, number: u32) {
    for _ in 0..2 {
        let mut future = pin!(admission.acquire(request(number)));
        if let Poll::Ready(permit) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            drop(permit.unwrap());
        }
        thread::yield_now();
    }
}

#[track_caller]
fn check_empty(admission: &Admission) {
    let snapshot = admission.snapshot();
    assert!(snapshot.holders.is_empty() && snapshot.waiters.is_empty(), "{snapshot:?}");
    assert!(snapshot.limits.is_empty(), "{snapshot:?}");
}

#[test]
fn eight_tasks_and_four_that_lose_interest_all_finish() {
    explore("8 at work, 4 that lose interest", || {
        let (admission, in_use) = (admission(), Arc::new(AtomicU32::new(0)));
        let tasks: Vec<_> = (0..12)
            .map(|number| {
                let (admission, in_use) = (admission.clone(), Arc::clone(&in_use));
                thread::spawn(move || match number {
                    0..8 => work(&admission, number, &in_use),
                    _ => lose_interest(&admission, number),
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        check_empty(&admission);
    });
}

#[test]
fn fourteen_tasks_finish_while_the_limits_change() {
    explore("14 at work, limits change", || {
        let (admission, in_use) = (admission(), Arc::new(AtomicU32::new(0)));
        let tasks: Vec<_> = (0..14)
            .map(|number| {
                let (admission, in_use) = (admission.clone(), Arc::clone(&in_use));
                thread::spawn(move || work(&admission, number, &in_use))
            })
            .collect();
        for streams in [1, 0, 2, STREAMS] {
            admission.set_capacity(&Resource::node(), "streams", streams);
            thread::yield_now();
        }
        for task in tasks {
            task.join().unwrap();
        }
        check_empty(&admission);
    });
}

#[test]
fn sixteen_tasks_are_all_refused_or_done_when_the_admission_closes() {
    explore("16 at work, one closes", || {
        let admission = admission();
        let tasks: Vec<_> = (0..16)
            .map(|number| {
                let admission = admission.clone();
                thread::spawn(move || {
                    while let Ok(permit) = block_on(admission.acquire(request(number))) {
                        thread::yield_now();
                        drop(permit);
                        if admission.is_closed() {
                            break;
                        }
                    }
                })
            })
            .collect();
        thread::yield_now();
        admission.close();
        for task in tasks {
            task.join().unwrap();
        }
        check_empty(&admission);
    });
}
