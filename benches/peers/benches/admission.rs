//! What waiting your turn costs: throttle beside semaphores.
//!
//! A semaphore counts one number and knows nobody by name. throttle is asked for one claim,
//! which is what a semaphore does, and for four at once: with a request that was prepared, as
//! a semaphore is made beforehand, and with one that is made of text each time. The tables have the best of many
//! short rounds in which everybody has a turn: whatever else the machine does only adds.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_intrusive::sync::SharedSemaphore;
use throttle::{Admission, Class, Clock, Limits, Policy, Request, Resource, SystemClock};

const ROUNDS: usize = 40;
const PAIRS: u32 = 500;
const WAITERS: u32 = 10_000;

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let rounds = if is_test { 1 } else { ROUNDS };
    let uncontended: [Contender; 10] = [
        ("tokio", Box::new(tokio_uncontended)),
        ("async-lock", Box::new(async_lock_uncontended)),
        ("futures-intrusive, fair", Box::new(intrusive_uncontended)),
        ("throttle, 1 claim", Box::new(|| throttle_prepared(1, 1, Still))),
        ("throttle, 4 claims", Box::new(|| throttle_prepared(4, 1, Still))),
        ("throttle, 4 claims, 20 others at work", Box::new(|| throttle_prepared(4, 21, Still))),
        (
            "throttle, 1 claim, the system's clock",
            Box::new(|| throttle_prepared(1, 1, SystemClock::new())),
        ),
        (
            "throttle, 4 claims, the system's clock",
            Box::new(|| throttle_prepared(4, 1, SystemClock::new())),
        ),
        ("throttle, 1 claim, from text", Box::new(|| throttle_from_text(1))),
        ("throttle, 4 claims, from text", Box::new(|| throttle_from_text(4))),
    ];
    print("taken and given back, nobody waits", &uncontended, rounds);
    let drained: [Contender; 7] = [
        ("tokio", Box::new(tokio_drained)),
        ("async-lock", Box::new(async_lock_drained)),
        ("futures-intrusive, fair", Box::new(intrusive_drained)),
        ("throttle, 1 claim", Box::new(|| throttle_drained(1, Asking::Prepared))),
        ("throttle, 4 claims", Box::new(|| throttle_drained(4, Asking::Prepared))),
        ("throttle, 1 claim, from text", Box::new(|| throttle_drained(1, Asking::FromText))),
        ("throttle, 4 claims, from text", Box::new(|| throttle_drained(4, Asking::FromText))),
    ];
    print("a line of 10,000, drained, each", &drained, rounds);
}

/// A name, and one round that returns nanoseconds for each permit.
type Contender = (&'static str, Box<dyn Fn() -> f64>);

fn print(title: &str, contenders: &[Contender], rounds: usize) {
    let mut times_ns: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds {
        for ((_, round), times_ns) in contenders.iter().zip(&mut times_ns) {
            times_ns.push(round());
        }
    }
    println!("\n| {title} | ns | ratio |\n| --- | --- | --- |");
    let mut first = None;
    for ((name, _), times_ns) in contenders.iter().zip(times_ns) {
        let best_ns = times_ns.into_iter().fold(f64::INFINITY, f64::min);
        let ratio = best_ns / *first.get_or_insert(best_ns);
        println!("| {name} | {best_ns:.1} | {ratio:.2} |");
    }
}

fn time(count: u32, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / f64::from(count)
}

/// Lets everybody behind `first` have a turn, in the order in which they came.
fn drain<P, F: Future<Output = P>>(first: P, make: impl Fn(u32) -> F) -> f64 {
    let mut waiting: Vec<Pin<Box<F>>> = (0..WAITERS).map(|number| Box::pin(make(number))).collect();
    let mut context = Context::from_waker(Waker::noop());
    for future in &mut waiting {
        assert!(future.as_mut().poll(&mut context).is_pending());
    }
    time(WAITERS, || {
        drop(first);
        for future in &mut waiting {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(permit) => drop(permit),
                Poll::Pending => panic!("it is this one's turn"),
            }
        }
    })
}

fn tokio_uncontended() -> f64 {
    let semaphore = Arc::new(tokio::sync::Semaphore::new(1));
    time(PAIRS, || {
        for _ in 0..PAIRS {
            drop(black_box(Arc::clone(&semaphore).try_acquire_owned().expect("nobody has it")));
        }
    })
}

fn tokio_drained() -> f64 {
    let semaphore = Arc::new(tokio::sync::Semaphore::new(1));
    let first = Arc::clone(&semaphore).try_acquire_owned();
    drain(first, |_| {
        let semaphore = Arc::clone(&semaphore);
        async move { Ok(semaphore.acquire_owned().await.expect("it is never closed")) }
    })
}

fn async_lock_uncontended() -> f64 {
    let semaphore = Arc::new(async_lock::Semaphore::new(1));
    time(PAIRS, || {
        for _ in 0..PAIRS {
            drop(black_box(semaphore.try_acquire_arc().expect("nobody has it")));
        }
    })
}

fn async_lock_drained() -> f64 {
    let semaphore = Arc::new(async_lock::Semaphore::new(1));
    let first = semaphore.try_acquire_arc().expect("nobody has it");
    drain(first, |_| semaphore.acquire_arc())
}

fn intrusive_uncontended() -> f64 {
    let semaphore = SharedSemaphore::new(true, 1);
    time(PAIRS, || {
        for _ in 0..PAIRS {
            drop(black_box(semaphore.try_acquire(1).expect("nobody has it")));
        }
    })
}

fn intrusive_drained() -> f64 {
    let semaphore = SharedSemaphore::new(true, 1);
    let first = semaphore.try_acquire(1).expect("nobody has it");
    drain(first, |_| semaphore.acquire(1))
}

/// A clock that costs nothing. A semaphore reads none, so this compares like with like.
struct Still;

impl Clock for Still {
    fn now(&self) -> throttle::Instant {
        throttle::Instant::ORIGIN
    }
}

fn admission(streams: u32, clock: impl Clock) -> Admission {
    let limits = Limits::new().node("streams", streams).workload("w", "streams", streams).resource(
        Resource::instance("w/i"),
        "streams",
        streams,
    );
    let admission = Admission::new(limits, clock);
    let policy = Policy::new().class(Class::new("data")).compile().expect("the policy is sound");
    admission.register("w", policy).expect("it is the only policy");
    admission
}

/// One stream, or a database with a stream of its instance, its workload and the node.
fn request(claims: u32, number: u32, database: &str) -> Request {
    let request = Request::new(format!("op-{number}")).capacity(Resource::node(), "streams", 1);
    match claims {
        1 => request,
        _ => request
            .exclusion("w", Resource::item(database), "data")
            .capacity(Resource::instance("w/i"), "streams", 1)
            .capacity(Resource::workload("w"), "streams", 1),
    }
}

/// What somebody does who asks for the same again and again: the names are looked up once,
/// as a semaphore is looked up once.
fn throttle_prepared(claims: u32, streams: u32, clock: impl Clock) -> f64 {
    let admission = admission(streams, clock);
    let others: Vec<_> = (1..streams)
        .map(|number| admission.try_acquire(request(claims, number, &format!("w/i/{number}"))))
        .collect();
    let ready = admission.prepare(request(claims, 0, "w/i/sales")).expect("every name is known");
    let each_ns = time_pairs(|| drop(black_box(ready.try_acquire().expect("nobody has it"))));
    drop(others);
    each_ns
}

/// What somebody does who asks once: the request is made of text each time.
fn throttle_from_text(claims: u32) -> f64 {
    let admission = admission(1, Still);
    time_pairs(|| {
        let request = request(claims, 0, "w/i/sales");
        drop(black_box(admission.try_acquire(request).expect("nobody has it")));
    })
}

fn time_pairs(pair: impl Fn()) -> f64 {
    time(PAIRS, || (0..PAIRS).for_each(|_| pair()))
}

/// Whether the names of those in line were looked up beforehand.
#[derive(Clone, Copy)]
enum Asking {
    Prepared,
    FromText,
}

fn throttle_drained(claims: u32, asking: Asking) -> f64 {
    let admission = admission(1, Still);
    let prepared = |number| {
        let request = request(claims, number, "w/i/sales");
        admission.prepare(request).expect("every name is known")
    };
    // Who holds a permit does not wait for another one, so everybody has a name of its own.
    let first = prepared(WAITERS).try_acquire();
    match asking {
        Asking::Prepared => {
            let ready: Vec<_> = (0..WAITERS).map(prepared).collect();
            drain(first, |number| ready[number as usize].acquire())
        }
        Asking::FromText => {
            drain(first, |number| admission.acquire(request(claims, number, "w/i/sales")))
        }
    }
}
