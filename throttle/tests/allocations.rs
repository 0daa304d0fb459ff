//! How often memory is asked for: never for a prepared request that is granted at once.
//!
//! Each count is taken after a first turn, which makes the tables as large as they need to be.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use support::{admission, sql};
use throttle::{Admission, Limits, Request, Resource};

const TURNS: u64 = 100;

fn streams_everywhere() -> Admission {
    let limits = Limits::new().node("streams", 4).workload("sqlserver", "streams", 4).resource(
        Resource::instance("sqlserver/main"),
        "streams",
        4,
    );
    admission(limits)
}

fn one_claim() -> Request {
    Request::new("op").capacity(Resource::node(), "streams", 1)
}

/// A database, and a stream of its instance, its workload and the node.
fn four_claims() -> Request {
    sql("op", "data", "sales")
        .capacity(Resource::node(), "streams", 1)
        .capacity(Resource::workload("sqlserver"), "streams", 1)
        .capacity(Resource::instance("sqlserver/main"), "streams", 1)
}

/// Allocations of each of many equal turns.
fn each(mut turn: impl FnMut()) -> u64 {
    turn();
    let allocations = measure(|| (0..TURNS).for_each(|_| turn()));
    assert_eq!(allocations.count_current, 0, "a turn keeps no more than it frees");
    assert_eq!(allocations.count_total % TURNS, 0, "every turn is like the others");
    allocations.count_total / TURNS
}

#[test]
fn a_prepared_request_that_is_granted_at_once_allocates_nothing() {
    let admission = streams_everywhere();
    for request in [one_claim(), four_claims()] {
        let prepared = admission.prepare(request).unwrap();
        assert_eq!(each(|| drop(prepared.try_acquire().unwrap())), 0);
        let poll = || {
            let future = pin!(prepared.acquire());
            match future.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(permit) => drop(permit.unwrap()),
                Poll::Pending => panic!("nobody is there"),
            }
        };
        assert_eq!(each(poll), 0);
    }
}

#[test]
fn others_at_work_make_no_difference() {
    let admission = streams_everywhere();
    let _other = admission.try_acquire(one_claim()).unwrap();
    let request = sql("another", "data", "sales").capacity(Resource::node(), "streams", 1);
    let prepared = admission.prepare(request).unwrap();
    assert_eq!(each(|| drop(prepared.try_acquire().unwrap())), 0);
}

#[test]
fn a_request_from_text_allocates_what_keeps_its_names() {
    let admission = streams_everywhere();
    let text = each(|| drop(one_claim()));
    // The owner's name, and the request itself on its way to the permit.
    assert_eq!(each(|| drop(admission.try_acquire(one_claim()).unwrap())) - text, 2);
    // The database's name as well; the limits are the host's and known by name.
    let text = each(|| drop(four_claims()));
    assert_eq!(each(|| drop(admission.try_acquire(four_claims()).unwrap())) - text, 3);
}
