//! How much work the admission does, in numbers that are the same on every machine.
//!
//! A *look* is one request held against one or all of its needs. The bounds are those that
//! keep ten thousand waiters as cheap, each, as a hundred.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;
use std::task::Poll;

use support::{Task, admission, sql, streams};
use throttle::{Acquire, Admission, Limits, Permit, Request, Resource};

/// A line of waiters, found again by whom they wait for.
struct Line {
    admission: Admission,
    waiting: BTreeMap<usize, Task<Acquire>>,
}

impl Line {
    fn new(admission: &Admission, count: usize, ask: impl Fn(usize) -> Request) -> Self {
        let waiting = (0..count)
            .map(|number| {
                let mut task = Task::new(admission.acquire(ask(number)));
                assert!(task.poll().is_pending(), "{number} should have to wait");
                (number, task)
            })
            .collect();
        Self { admission: admission.clone(), waiting }
    }

    /// Gives back one permit after the other, in the order in which they were granted, until
    /// everybody had a turn. Returns the looks for each waiter.
    fn drain(mut self, mut running: Vec<Permit>) -> f64 {
        let (count, before) = (self.waiting.len(), self.admission.metrics().evaluations);
        let mut next = 0;
        running.reverse();
        while let Some(permit) = running.pop() {
            drop(permit);
            // Equal requests are granted in the order in which they came.
            while let Some(task) = self.waiting.get_mut(&next)
                && task.is_woken()
            {
                match task.poll() {
                    Poll::Ready(permit) => running.insert(0, permit.unwrap()),
                    Poll::Pending => panic!("woken for nothing"),
                }
                self.waiting.remove(&next);
                next += 1;
            }
        }
        assert!(self.waiting.is_empty(), "{} are left", self.waiting.len());
        looks_each(self.admission.metrics().evaluations - before, count)
    }
}

#[allow(clippy::cast_precision_loss, reason = "the counts are small")]
fn looks_each(looks: u64, count: usize) -> f64 {
    looks as f64 / count as f64
}

/// What a whole set of waiters costs: 100, 10,000 and, where the compiler optimizes, 100,000.
fn sizes() -> impl Iterator<Item = usize> {
    let largest = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
    [100, 10_000, 100_000].into_iter().filter(move |&size| size <= largest)
}

/// A request of its own for one of the node's streams.
fn stream(number: usize) -> Request {
    streams(&format!("op-{number}"), 1)
}

/// A data backup of `database` that takes one of the node's streams.
fn backup(number: usize, database: &str) -> Request {
    sql(&format!("op-{number}"), "data", database).capacity(Resource::node(), "streams", 1)
}

/// A data backup of a database of its own.
fn own_backup(number: usize) -> Request {
    backup(number, &number.to_string())
}

fn sales_backup(number: usize) -> Request {
    backup(number, "sales")
}

#[track_caller]
fn check_drain(count: usize, running: usize, ask: impl Fn(usize) -> Request) {
    let admission = admission(Limits::new().node("streams", 20).node("buffers", 40));
    let running =
        (0..running).map(|number| admission.try_acquire(ask(count + number)).unwrap()).collect();
    let line = Line::new(&admission, count, &ask);
    let each = line.drain(running);
    assert!(each <= 3.0, "{each} looks for each of {count}");
}

#[test]
fn a_waiter_for_a_stream_is_looked_at_three_times() {
    for count in sizes() {
        check_drain(count, 20, stream);
    }
}

#[test]
fn backups_of_many_databases_are_looked_at_three_times_each() {
    for count in sizes() {
        check_drain(count, 20, own_backup);
    }
}

#[test]
fn a_convoy_on_one_database_is_looked_at_three_times_each() {
    for count in sizes() {
        check_drain(count, 1, sales_backup);
    }
}

#[test]
fn waiters_for_two_limits_are_looked_at_three_times_each() {
    for count in sizes() {
        check_drain(count, 20, |number| {
            own_backup(number).capacity(Resource::node(), "buffers", 2)
        });
    }
}

/// The looks at one more request that has to wait, behind `count` others.
fn looks_at_one_more(count: usize, ask: impl Fn(usize) -> Request) -> u64 {
    let admission = admission(Limits::new().node("streams", 1));
    let _running = admission.try_acquire(ask(count + 1)).unwrap();
    let _line = Line::new(&admission, count, &ask);
    let before = admission.metrics().evaluations;
    let mut last = Task::new(admission.acquire(ask(count)));
    assert!(last.poll().is_pending());
    admission.metrics().evaluations - before
}

#[test]
fn joining_a_long_line_is_no_more_work_than_joining_a_short_one() {
    for ask in [stream, own_backup, sales_backup] {
        let short = looks_at_one_more(100, ask);
        assert!(looks_at_one_more(10_000, ask) <= 2 * short);
    }
}

/// The most looks that one of a hundred takes to leave from the middle of `count`.
fn looks_to_leave(count: usize, ask: impl Fn(usize) -> Request) -> u64 {
    let admission = admission(Limits::new().node("streams", 1));
    let _running = admission.try_acquire(ask(count + 1)).unwrap();
    let mut line = Line::new(&admission, count, &ask);
    (0..100)
        .map(|step| {
            let before = admission.metrics().evaluations;
            drop(line.waiting.remove(&(count / 2 - 50 + step)).unwrap());
            admission.metrics().evaluations - before
        })
        .max()
        .unwrap()
}

#[test]
fn leaving_a_long_line_from_its_middle_disturbs_nobody() {
    for count in sizes() {
        assert!(looks_to_leave(count, stream) <= 1);
        assert!(looks_to_leave(count, sales_backup) <= 1);
        assert!(looks_to_leave(count, own_backup) <= 1);
    }
}

#[test]
fn a_release_does_not_look_at_those_who_wait_for_something_else() {
    let admission = admission(Limits::new());
    let busy = admission.try_acquire(sql("busy", "data", "busy")).unwrap();
    let _held = admission.try_acquire(sql("held", "data", "held")).unwrap();
    let _line = Line::new(&admission, 1_000, |n| sql(&format!("op-{n}"), "data", "held"));
    let before = admission.metrics().evaluations;
    drop(busy);
    assert_eq!(admission.metrics().evaluations, before);
}
