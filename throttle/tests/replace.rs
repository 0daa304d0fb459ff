//! Another policy while work runs and waits.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use support::{granted, queue, still_waits};
use throttle::{
    Admission, Class, Limits, ManualClock, Permit, Policy, PolicyErrorKind, Request, Resource,
    Rule, Scope,
};

fn policy(pairs: &[(&str, Rule)]) -> Policy {
    let classes = Policy::new().class(Class::new("data")).class(Class::new("log"));
    pairs.iter().fold(classes, |policy, (pair, rule)| policy.rule(Scope::Item, *pair, rule.clone()))
}

fn ask(owner: &str, class: &str) -> Request {
    Request::new(owner).exclusion("w", Resource::item("w/i/x"), class)
}

fn start(policy: &Policy) -> (Admission, Permit) {
    let admission = Admission::new(Limits::new().node("streams", 2), ManualClock::new());
    admission.register("w", policy.compile().unwrap()).unwrap();
    let running = admission.try_acquire(ask("running", "data")).unwrap();
    (admission, running)
}

fn replace(admission: &Admission, policy: &Policy) {
    admission.replace("w", policy.compile().unwrap()).unwrap();
}

#[test]
fn who_may_start_by_the_new_rules_starts_at_once() {
    let (admission, running) = start(&policy(&[]));
    let mut log = queue(&admission, ask("log", "log"));
    let mut data = queue(&admission, ask("data", "data"));
    replace(&admission, &policy(&[("data/log", Rule::Allow)]));
    let _log = granted(&mut log);
    still_waits(&mut data);
    drop(running);
    drop(granted(&mut data));
}

#[test]
fn holders_keep_what_they_hold_and_waiters_wait_by_the_new_rules() {
    let (admission, running) = start(&policy(&[("data/log", Rule::Allow)]));
    let beside = admission.try_acquire(ask("beside", "log")).unwrap();
    let full = admission
        .try_acquire(Request::new("full").capacity(Resource::node(), "streams", 2))
        .unwrap();
    // It waits for a stream first, for the item by the new rules.
    let log = ask("late", "log").capacity(Resource::node(), "streams", 1);
    let mut waits = queue(&admission, log.clone());
    replace(&admission, &policy(&[("data>log", Rule::reject("busy"))]));
    assert_eq!(admission.snapshot().holders.len(), 3);
    drop(full);
    still_waits(&mut waits);
    assert!(admission.try_acquire(ask("new", "log")).unwrap_err().to_string().contains("busy"));
    drop(running);
    still_waits(&mut waits);
    drop(beside);
    drop(granted(&mut waits));
}

#[test]
fn a_class_that_is_gone_excludes_everything_until_it_is_free() {
    let (admission, running) = start(&policy(&[("*/*", Rule::Allow)]));
    let new = Policy::new().class(Class::new("log")).rule(Scope::Item, "log/log", Rule::Allow);
    replace(&admission, &new);
    let mut waits = queue(&admission, ask("waits", "log"));
    assert!(admission.try_acquire(ask("gone", "data")).is_err());
    drop(running);
    let _waits = granted(&mut waits);
    drop(admission.try_acquire(ask("beside", "log")).unwrap());
}

#[test]
fn a_class_may_become_an_alias() {
    let (admission, running) = start(&policy(&[]));
    let new = Policy::new().class(Class::new("full").alias("data")).class(Class::new("log")).rule(
        Scope::Item,
        "full/log",
        Rule::Allow,
    );
    replace(&admission, &new);
    drop(admission.try_acquire(ask("log", "log")).unwrap());
    let mut next = queue(&admission, ask("next", "full"));
    drop(running);
    drop(granted(&mut next));
}

#[test]
fn new_limits_count_at_once() {
    let streams = || Request::new("op").capacity(Resource::node(), "streams", 1);
    let (admission, running) = start(&policy(&[]).limit(Scope::Node, "streams", 1));
    let one = admission.try_acquire(streams()).unwrap();
    let mut two = queue(&admission, Request::new("two").capacity(Resource::node(), "streams", 1));
    replace(&admission, &policy(&[]));
    drop(granted(&mut two));
    drop((running, one));
}

#[test]
fn there_must_be_a_policy_to_replace() {
    let (admission, _running) = start(&policy(&[]));
    let error = admission.replace("other", policy(&[]).compile().unwrap()).unwrap_err();
    assert_eq!(error.kind(), PolicyErrorKind::NotRegistered);
    assert_eq!(error.to_string(), "workload has no policy yet: other");
}
