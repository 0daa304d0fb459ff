//! Requests whose names were looked up beforehand: no difference but the time it takes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::task::Poll;

use proptest::prelude::*;
use support::{Task, admission, granted, sql, sqlserver, streams};
use throttle::{
    Acquire, AcquireError, AcquireErrorKind, Admission, Class, Limits, ManualClock, Permit, Policy,
    Prepared, Request, Resource, Rule, Scope,
};

#[track_caller]
fn check_refused(admission: &Admission, request: Request) {
    let prepared = admission.prepare(request.clone()).unwrap_err();
    assert_eq!(prepared, admission.try_acquire(request).unwrap_err());
}

#[test]
fn what_can_never_be_granted_is_not_prepared() {
    let admission = admission(Limits::new().node("streams", 1));
    check_refused(&admission, Request::new("op"));
    check_refused(&admission, streams("op", 0));
    check_refused(&admission, streams("op", 2));
    check_refused(&admission, sql("op", "nonsense", "sales"));
    check_refused(&admission, Request::new("op").capacity(Resource::node(), "nonsense", 1));
    admission.close();
    check_refused(&admission, streams("op", 1));
}

#[track_caller]
fn check_unsatisfiable(prepared: &Prepared) {
    let refused = prepared.try_acquire().unwrap_err();
    assert!(matches!(refused.kind(), AcquireErrorKind::Unsatisfiable { .. }), "{refused}");
}

#[test]
fn what_can_never_be_granted_any_more_is_refused_each_time() {
    let admission = Admission::new(Limits::new().node("streams", 8), ManualClock::new());
    let bounded = |bound| {
        let policy = Policy::new().class(Class::new("data"));
        policy.limit(Scope::Node, "streams", bound).limit(Scope::Workload, "streams", 8)
    };
    let of_node = admission.prepare(streams("op", 8)).unwrap();
    drop(of_node.try_acquire().unwrap());
    admission.register("w", bounded(4).compile().unwrap()).unwrap();
    check_unsatisfiable(&of_node);
    check_unsatisfiable(&of_node);

    // The host bounds what only a policy has bounded so far.
    let workload = Resource::workload("w");
    let request = Request::new("op").capacity(workload.clone(), "streams", 8);
    let of_workload = admission.prepare(request).unwrap();
    drop(of_workload.try_acquire().unwrap());
    admission.set_capacity(&workload, "streams", 4);
    check_unsatisfiable(&of_workload);
    check_unsatisfiable(&of_workload);
}

#[test]
fn what_one_turn_gave_back_early_is_there_in_the_next() {
    let admission = admission(Limits::new().node("streams", 2));
    let prepared = admission
        .prepare(sql("op", "data", "sales").capacity(Resource::node(), "streams", 2))
        .unwrap();
    let claims = prepared.request().claims();
    for returned in claims {
        let permit = prepared.try_acquire().unwrap();
        permit.downgrade(std::slice::from_ref(returned));
        assert_eq!(admission.snapshot().holders[0].claims.len(), 1);
        drop(permit);
        let _permit = prepared.try_acquire().unwrap();
        assert_eq!(admission.snapshot().holders[0].claims, claims);
    }
}

#[test]
fn each_turn_is_a_request_of_its_own() {
    let admission = admission(Limits::new().node("streams", 2));
    let prepared = admission.prepare(streams("op", 1)).unwrap();
    let (one, other) = (prepared.try_acquire().unwrap(), prepared.try_acquire().unwrap());
    assert_ne!(one.id(), other.id());
    let refused = prepared.try_acquire().unwrap_err();
    assert!(matches!(refused.kind(), AcquireErrorKind::WouldWait { .. }));
    let mut nested = Task::new(prepared.acquire());
    let Poll::Ready(Err(error)) = nested.poll() else { panic!("it would wait for itself") };
    assert!(matches!(error.kind(), AcquireErrorKind::WouldNest { .. }));
    drop((one, other));
    assert_eq!(admission.used(&Resource::node(), "streams"), 0);
}

#[test]
fn whoever_passes_a_waiter_again_and_again_is_counted() {
    let admission = admission(Limits::new().node("streams", 3).overtakes_max(2));
    let prepared = admission.prepare(streams("small", 1)).unwrap();
    drop(prepared.try_acquire().unwrap());
    let running = admission.try_acquire(streams("running", 1)).unwrap();
    let mut large = Task::new(admission.acquire(streams("large", 3)));
    assert!(large.poll().is_pending());
    for _ in 0..2 {
        drop(prepared.try_acquire().unwrap());
    }
    let refused = prepared.try_acquire().unwrap_err();
    assert!(matches!(refused.kind(), AcquireErrorKind::WouldWait { .. }), "{refused}");
    drop(running);
    assert_eq!(granted(&mut large).owner(), "large");
}

#[test]
fn what_others_work_on_meanwhile_is_not_taken_again() {
    let admission = admission(Limits::new());
    let prepared = admission.prepare(sql("op", "data", "sales")).unwrap();
    drop(prepared.try_acquire().unwrap());
    let restore = admission.try_acquire(sql("restore", "restore", "sales")).unwrap();
    let refused = prepared.try_acquire().unwrap_err();
    assert!(matches!(refused.kind(), AcquireErrorKind::WouldWait { .. }), "{refused}");
    drop(restore);
    let _permit = prepared.try_acquire().unwrap();
}

#[test]
fn every_turn_is_counted() {
    let admission = admission(Limits::new().node("streams", 1));
    let prepared = admission.prepare(streams("op", 1)).unwrap();
    (0..5).for_each(|_| drop(prepared.try_acquire().unwrap()));
    let metrics = admission.metrics();
    let counts = metrics.counts.values().next().unwrap();
    assert_eq!((counts.submitted, counts.granted), (5, 5));
    assert_eq!((counts.waits_ms.total(), counts.overtakes.total()), (5, 5));
    assert_eq!(metrics.evaluations, 5);
    drop(prepared);
    assert_eq!(admission.metrics(), metrics);
}

#[test]
fn a_prepared_request_waits_its_turn_and_is_granted() {
    let admission = admission(Limits::new());
    let running = admission.try_acquire(sql("running", "data", "sales")).unwrap();
    let prepared = admission.prepare(sql("op", "data", "sales")).unwrap();
    let mut task = Task::new(prepared.acquire());
    assert!(task.poll().is_pending());
    // The place in line does not depend on the prepared request.
    drop(prepared);
    drop(running);
    assert_eq!(granted(&mut task).owner(), "op");
}

#[test]
fn its_limits_are_shown_while_it_exists() {
    let admission = admission(Limits::new().node("streams", 1));
    assert!(admission.snapshot().limits.is_empty());
    let prepared = admission.prepare(streams("op", 1)).unwrap();
    let copy = prepared.clone();
    drop(prepared);
    assert_eq!(admission.snapshot().limits.len(), 1);
    drop(copy);
    assert!(admission.snapshot().limits.is_empty());
}

#[test]
fn a_name_means_what_the_present_policy_says() {
    let admission = admission(Limits::new());
    let prepared = admission.prepare(sql("op", "diff", "sales")).unwrap();
    let before = prepared.try_acquire().unwrap();
    let replace = |policy: Policy| admission.replace("sqlserver", policy.compile().unwrap());
    replace(Policy::new().class(Class::new("data"))).unwrap();
    let error = prepared.try_acquire().unwrap_err();
    assert!(matches!(error.kind(), AcquireErrorKind::UnknownClass { .. }), "{error}");
    // Now it is a class of its own, which runs beside data backups.
    let policy = Policy::new().class(Class::new("data")).class(Class::new("diff"));
    replace(policy.rule(Scope::Item, "diff/*", Rule::Allow)).unwrap();
    let after = prepared.try_acquire().unwrap();
    let claims = |permit: &Permit| {
        let holders = admission.snapshot().holders;
        holders.into_iter().find(|holder| holder.id == permit.id()).unwrap().claims
    };
    assert_eq!(claims(&before), sql("op", "data", "sales").claims());
    assert_eq!(claims(&after), sql("op", "diff", "sales").claims());
    drop((before, after, prepared));
    assert!(admission.snapshot().holders.is_empty());
}

#[test]
fn equal_requests_are_one_also_if_they_were_prepared() {
    let admission = admission(Limits::new());
    let policy = Policy::new().class(Class::new("log").coalesce(Scope::Item)).compile().unwrap();
    admission.register("w", policy).unwrap();
    let ask = |owner: &str| {
        let item = Resource::item("w/sales");
        admission.prepare(Request::new(owner).exclusion("w", item, "log").coalesce_key("log"))
    };
    let running = ask("running").unwrap().try_acquire().unwrap();
    let waiting = ["one", "other"].map(|owner| {
        // Neither the request nor its permit needs what it was prepared with.
        let mut task = Task::new(ask(owner).unwrap().acquire());
        assert!(task.poll().is_pending());
        task
    });
    drop(running);
    let [mut one, mut other] = waiting;
    let first = granted(&mut other);
    drop(one.poll());
    assert_eq!((first.owner(), first.root()), ("other", "other"));
}

/// What may happen to both of two admissions.
#[derive(Clone, Copy, Debug)]
enum Event {
    Try(usize),
    Wait(usize),
    GiveBack(usize),
    GiveUp(usize),
    Resize(u32),
    Replace,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..8usize).prop_map(Event::Try),
        (0..8usize).prop_map(Event::Wait),
        (0..8usize).prop_map(Event::Wait),
        any::<usize>().prop_map(Event::GiveBack),
        any::<usize>().prop_map(Event::GiveBack),
        any::<usize>().prop_map(Event::GiveUp),
        (0..4u32).prop_map(Event::Resize),
        Just(Event::Replace),
    ]
}

fn ask(number: usize) -> Request {
    let owner = format!("op-{number}");
    match number {
        0..3 => streams(&owner, 1 + u32::try_from(number).unwrap()),
        3..5 => sql(&owner, "data", "sales").capacity(Resource::node(), "streams", 1),
        5 => sql(&owner, "log", "sales"),
        6 => sql(&owner, "restore", "sales").capacity(Resource::node(), "buffers", 1),
        _ => sql(&owner, "data", "other").capacity(Resource::node(), "buffers", 2),
    }
}

struct Side {
    admission: Admission,
    /// What is asked for again and again, or nothing if it is made of text each time.
    prepared: Vec<Prepared>,
    waiting: Vec<Task<Acquire>>,
    permits: Vec<Permit>,
    errors: Vec<AcquireError>,
}

impl Side {
    fn new() -> Self {
        let admission =
            admission(Limits::new().node("streams", 3).node("buffers", 2).overtakes_max(2));
        let (prepared, waiting) = (Vec::new(), Vec::new());
        Self { admission, prepared, waiting, permits: Vec::new(), errors: Vec::new() }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Try(number) => {
                let outcome = match self.prepared.get(number) {
                    Some(prepared) => prepared.try_acquire(),
                    None => self.admission.try_acquire(ask(number)),
                };
                match outcome {
                    Ok(permit) => self.permits.push(permit),
                    Err(error) => self.errors.push(error),
                }
            }
            Event::Wait(number) => self.waiting.push(Task::new(match self.prepared.get(number) {
                Some(prepared) => prepared.acquire(),
                None => self.admission.acquire(ask(number)),
            })),
            Event::GiveBack(number) if !self.permits.is_empty() => {
                drop(self.permits.remove(number % self.permits.len()));
            }
            Event::GiveUp(number) if !self.waiting.is_empty() => {
                drop(self.waiting.remove(number % self.waiting.len()));
            }
            Event::GiveBack(_) | Event::GiveUp(_) => {}
            Event::Resize(streams) => {
                self.admission.set_capacity(&Resource::node(), "streams", streams);
            }
            Event::Replace => {
                self.admission.replace("sqlserver", sqlserver().compile().unwrap()).unwrap();
            }
        }
        for mut task in std::mem::take(&mut self.waiting) {
            match task.poll() {
                Poll::Ready(Ok(permit)) => self.permits.push(permit),
                Poll::Ready(Err(error)) => self.errors.push(error),
                Poll::Pending => self.waiting.push(task),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_history_is_decided_the_same_way(events in prop::collection::vec(event(), 1..60)) {
        let (mut text, mut prepared) = (Side::new(), Side::new());
        let all = (0..8).map(|number| prepared.admission.prepare(ask(number)).unwrap());
        prepared.prepared = all.collect();
        for event in events {
            text.apply(event);
            prepared.apply(event);
            let (one, other) = (text.admission.snapshot(), prepared.admission.snapshot());
            prop_assert_eq!(one.holders, other.holders);
            prop_assert_eq!(one.waiters, other.waiters);
            prop_assert_eq!(&text.errors, &prepared.errors);
            prop_assert_eq!(text.admission.metrics(), prepared.admission.metrics());
        }
    }
}
