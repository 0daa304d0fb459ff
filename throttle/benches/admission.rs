//! What admission costs: alone, in a line, and when a long line is left or drained.
//!
//! The time is measured by criterion. The work behind it is counted once more in the end,
//! in looks (see `tests/work.rs`): those are the same on every machine.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use throttle::{Acquire, Admission, Class, Limits, ManualClock, Permit, Policy, Request, Resource};

const LINES: [u32; 3] = [100, 1_000, 10_000];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    uncontended(&mut criterion);
    line(&mut criterion);
    criterion.final_summary();
    count();
}

fn admission() -> Admission {
    let limits = Limits::new().node("streams", 1).workload("w", "streams", 1).resource(
        Resource::instance("w/i"),
        "streams",
        1,
    );
    let admission = Admission::new(limits, ManualClock::new());
    let policy = Policy::new().class(Class::new("data")).compile().expect("the policy is sound");
    admission.register("w", policy).expect("it is the only policy");
    admission
}

fn one_claim(owner: &str) -> Request {
    Request::new(owner).capacity(Resource::node(), "streams", 1)
}

fn four_claims(owner: &str) -> Request {
    one_claim(owner)
        .exclusion("w", Resource::item("w/i/sales"), "data")
        .capacity(Resource::instance("w/i"), "streams", 1)
        .capacity(Resource::workload("w"), "streams", 1)
}

fn uncontended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("uncontended");
    for (name, ask) in [("1 claim", one_claim as fn(&str) -> Request), ("4 claims", four_claims)] {
        let admission = admission();
        group.bench_function(name, |bencher| {
            bencher.iter(|| drop(black_box(admission.try_acquire(ask("op")))));
        });
    }
    group.finish();
}

/// A line of requests behind one that has what all of them want.
struct Line {
    admission: Admission,
    first: Permit,
    waiting: Vec<Pin<Box<Acquire>>>,
}

impl Line {
    fn new(length: u32) -> Self {
        let admission = admission();
        let first = admission.try_acquire(four_claims("first")).expect("nobody is there");
        let waiting = (0..length)
            .map(|number| {
                let mut future = Box::pin(admission.acquire(four_claims(&format!("op-{number}"))));
                assert!(poll(&mut future).is_pending());
                future
            })
            .collect();
        Self { admission, first, waiting }
    }

    /// Everybody has a turn, one after the other.
    fn drain(mut self) {
        drop(self.first);
        for future in &mut self.waiting {
            assert!(matches!(poll(future), Poll::Ready(Ok(_))), "it is the next one's turn");
        }
    }

    /// Everybody leaves, those in the middle first.
    fn leave(mut self) {
        while !self.waiting.is_empty() {
            drop(self.waiting.swap_remove(self.waiting.len() / 2));
        }
    }
}

fn poll(future: &mut Pin<Box<Acquire>>) -> Poll<Result<(), throttle::AcquireError>> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop())).map(|outcome| outcome.map(drop))
}

fn line(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("line");
    group.sample_size(10);
    for length in LINES {
        group.throughput(Throughput::Elements(u64::from(length)));
        group.bench_function(BenchmarkId::new("drain", length), |bencher| {
            bencher.iter_batched(|| Line::new(length), Line::drain, BatchSize::PerIteration);
        });
        group.bench_function(BenchmarkId::new("leave", length), |bencher| {
            bencher.iter_batched(|| Line::new(length), Line::leave, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// Prints the looks for each waiter.
fn count() {
    println!("\n| line | looks to join | looks to leave | looks to be granted |");
    println!("| ---: | ---: | ---: | ---: |");
    for length in LINES {
        let each =
            |looks: u64| f64::from(u32::try_from(looks).unwrap_or(u32::MAX)) / f64::from(length);
        let line = Line::new(length);
        let (admission, joined) = (line.admission.clone(), line.admission.metrics().evaluations);
        line.leave();
        let left = admission.metrics().evaluations - joined;
        let line = Line::new(length);
        let (admission, before) = (line.admission.clone(), line.admission.metrics().evaluations);
        line.drain();
        let granted = admission.metrics().evaluations - before;
        println!("| {length} | {:.2} | {:.2} | {:.2} |", each(joined), each(left), each(granted));
    }
}
