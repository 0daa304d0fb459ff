//! What can be seen and counted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::thread;
use std::time::Duration;

use futures::executor::block_on;
use support::{admission, granted, on_clock, queue, sql, streams};
use throttle::{
    Admission, Clock, Counts, Limits, ManualClock, Relation, Request, Resource, Scope, Subject,
};

fn of_streams(admission: &Admission) -> Counts {
    let subject = Subject::Limit { scope: Scope::Node, limit: "streams".into() };
    admission.metrics().counts[&subject].clone()
}

#[test]
fn a_snapshot_says_in_words_why_everybody_waits() {
    let clock = ManualClock::new();
    let limits = Limits::new().node("streams", 4).node("lane", 0).overtakes_max(0);
    let admission = on_clock(limits, &clock);
    let restore = sql("restore-17", "restore", "sales").capacity(Resource::node(), "streams", 4);
    let _restore = admission.try_acquire(restore).unwrap();
    clock.advance(Duration::from_secs(2 * 3600 + 10 * 60));
    let _log = queue(&admission, sql("log-1", "log", "sales"));
    let _full = queue(&admission, sql("full-1", "data", "sales"));
    let _two = queue(&admission, streams("two", 2));
    let _lane = queue(&admission, Request::new("lane-1").capacity(Resource::node(), "lane", 1));
    admission.set_capacity(&Resource::node(), "streams", 3);
    let held = "restore-17 has held it for 2 h 10 min";
    assert_eq!(
        admission.snapshot().to_string(),
        format!(
            "lane of node: 0 of 0 used, paused\n\
             streams of node: 4 of 3 used, 1 too many\n\
             restore-17 has held item sqlserver/main/sales (restore), 4 streams of node \
             for 2 h 10 min\n\
             log-1 waits for item sqlserver/main/sales (log): {held}, position 1, overtaken 0\n\
             full-1 waits for item sqlserver/main/sales (data): {held}, position 2, overtaken 0\n\
             two waits for 2 streams of node: {held}, position 1, overtaken 0, pinned\n\
             lane-1 waits for 1 lane of node: the limit is paused, position 1, overtaken 0\n"
        )
    );
}

#[test]
fn each_has_its_position_among_those_who_wait_for_the_same() {
    let admission = admission(Limits::new().node("streams", 1).node("lane", 1));
    let ask = |owner: usize, limit: &str| {
        Request::new(owner.to_string()).capacity(Resource::node(), limit, 1)
    };
    let limit = |number: usize| if number.is_multiple_of(3) { "lane" } else { "streams" };
    let _running = ["streams", "lane"].map(|limit| admission.try_acquire(ask(0, limit)).unwrap());
    let _waiting: Vec<_> =
        (1..=9_000).map(|number| queue(&admission, ask(number, limit(number)))).collect();
    let positions: Vec<_> =
        admission.snapshot().waiters.iter().map(|waiter| waiter.position).collect();
    let expected = (1..=9_000).map(|number| match limit(number) {
        "lane" => number / 3,
        _ => number - number / 3,
    });
    assert_eq!(positions, expected.collect::<Vec<_>>());
}

#[test]
fn what_becomes_of_requests_is_counted() {
    let clock = ManualClock::new();
    let admission = on_clock(Limits::new().node("streams", 2), &clock);
    let running = admission.try_acquire(streams("running", 2)).unwrap();
    drop(queue(&admission, streams("cancelled", 1)));
    assert!(admission.try_acquire(streams("refused", 1)).is_err());
    let deadline = clock.now() + Duration::from_secs(5);
    let _expires = queue(&admission, streams("expires", 1).deadline(deadline));
    let mut waits = queue(&admission, streams("waits", 1));
    clock.advance(Duration::from_secs(5));
    admission.tick();
    admission.set_capacity(&Resource::node(), "streams", 1);
    let subject = Subject::Limit { scope: Scope::Node, limit: "streams".into() };
    assert_eq!(admission.metrics().debt, [(subject, 1)].into());
    drop(running);
    drop(granted(&mut waits));
    assert!(admission.metrics().debt.is_empty());

    let counts = of_streams(&admission);
    assert_eq!((counts.submitted, counts.granted), (5, 2));
    assert_eq!((counts.cancelled, counts.refused, counts.expired), (1, 1, 1));
    let waits: Vec<_> = counts.waits_ms.buckets().filter(|(_, count)| *count > 0).collect();
    assert_eq!(waits, [(Some(100), 1), (Some(10_000), 1)]);
    assert_eq!(counts.overtakes.total(), 2);
}

#[test]
fn classes_are_counted_by_their_proper_names() {
    let admission = admission(Limits::new());
    let tenant = |owner| Request::new(owner).exclusion("hana", Resource::item("hana/H/T"), "full");
    let _running = admission.try_acquire(tenant("running")).unwrap();
    assert!(admission.try_acquire(tenant("rejected")).is_err());
    let subject =
        Subject::Class { scope: Scope::Item, workload: "hana".into(), class: "data".into() };
    let metrics = admission.metrics();
    let counts = &metrics.counts[&subject];
    assert_eq!((counts.submitted, counts.granted, counts.rejected), (2, 1, 1));
}

/// Evaluations of each waiter, from its arrival to its start.
fn evaluations(waiters: usize, ask: impl Fn(usize) -> Request) -> f64 {
    let admission = admission(Limits::new().node("streams", 20));
    let mut running: std::collections::VecDeque<_> =
        (0..).map_while(|n| admission.try_acquire(ask(n)).ok()).take(20).collect();
    let mut waiting: Vec<_> = (0..waiters).map(|n| queue(&admission, ask(1_000_000 + n))).collect();
    let before = admission.metrics().evaluations;
    for task in &mut waiting {
        running.pop_front();
        running.push_back(granted(task));
    }
    (admission.metrics().evaluations - before) as f64 / waiters as f64
}

#[test]
fn the_work_for_each_waiter_does_not_grow_with_their_number() {
    let own = |n: usize| {
        sql(&format!("op-{n}"), "data", &format!("db-{n}")).capacity(Resource::node(), "streams", 1)
    };
    let convoy = |n: usize| {
        sql(&format!("op-{n}"), "data", "sales").capacity(Resource::node(), "streams", 1)
    };
    for waiters in [100, 10_000] {
        for (name, each) in
            [("own", evaluations(waiters, own)), ("one", evaluations(waiters, convoy))]
        {
            assert!(each <= 3.0, "{name}: {each} evaluations for each of {waiters}");
        }
    }
}

#[test]
fn every_waiter_has_a_true_blocker_while_others_come_and_go() {
    let admission = admission(Limits::new().node("streams", 1));
    thread::scope(|scope| {
        for name in ["one", "other"] {
            let admission = &admission;
            scope.spawn(move || {
                for n in 0..2_000 {
                    let request = sql(&format!("{name}-{n}"), "data", "sales");
                    let request = request.capacity(Resource::node(), "streams", 1);
                    drop(block_on(admission.acquire(request)).unwrap());
                }
            });
        }
        for _ in 0..2_000 {
            let snapshot = admission.snapshot();
            for waiter in &snapshot.waiters {
                let blocker = &waiter.blockers[0];
                let holds = snapshot.holders.iter().any(|holder| holder.owner == blocker.owner);
                assert!(holds && blocker.relation == Relation::Holds, "{snapshot}");
            }
        }
    });
}
