//! What a policy may say.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use throttle::{
    Admission, Class, Conditional, Limits, ManualClock, Policy, PolicyErrorKind, Request, Resource,
    Rule, Scope,
};

/// The classes `a`, `b` and `c`.
fn classes() -> Policy {
    ["a", "b", "c"].into_iter().fold(Policy::new(), |policy, name| policy.class(Class::new(name)))
}

#[track_caller]
fn check(policy: &Policy, expected: PolicyErrorKind, subject: &str) {
    let error = policy.compile().unwrap_err();
    assert_eq!((error.kind(), error.subject()), (expected, subject));
}

#[test]
fn a_pair_with_an_unknown_class_is_refused() {
    let policy = classes().rule(Scope::Item, "a/full", Rule::Allow);
    check(&policy, PolicyErrorKind::UnknownClass, "full in a/full");
}

#[test]
fn a_rejection_between_two_classes_needs_a_direction() {
    let reject = || Rule::reject("busy");
    let policy = classes().rule(Scope::Item, "a/b", reject());
    check(&policy, PolicyErrorKind::RejectWithoutDirection, "a/b");
    let policy = classes().rule(Scope::Item, "a/*", reject());
    check(&policy, PolicyErrorKind::RejectWithoutDirection, "a/*");
    classes().rule(Scope::Item, "a>b", reject()).compile().unwrap();
    classes().rule(Scope::Item, "a/a", reject()).compile().unwrap();
}

#[test]
fn only_requests_of_one_class_can_coalesce() {
    let policy = classes().rule(Scope::Item, "a/b", Rule::Coalesce);
    check(&policy, PolicyErrorKind::CoalesceAcrossClasses, "a/b");
}

#[test]
fn a_limit_of_zero_is_refused() {
    let policy = classes().limit(Scope::Workload, "streams", 0);
    check(&policy, PolicyErrorKind::ZeroLimit, "streams of workload");
}

#[test]
fn sixty_four_classes_are_allowed_and_one_more_is_refused() {
    let with = |count: usize| {
        (0..count).fold(Policy::new(), |policy, n| policy.class(Class::new(format!("c{n}"))))
    };
    with(64).compile().unwrap();
    check(&with(65), PolicyErrorKind::TooManyClasses, "65 classes");
}

#[test]
fn a_name_stands_for_one_class() {
    let policy = classes().class(Class::new("d").alias("a"));
    check(&policy, PolicyErrorKind::DuplicateClass, "a");
    let policy = classes().class(Class::new("a/b"));
    check(&policy, PolicyErrorKind::MalformedName, "a/b");
}

#[test]
fn a_pair_that_is_no_pair_is_refused() {
    for pair in ["a", "a/b>c", "/b", "a>", ""] {
        check(
            &classes().rule(Scope::Item, pair, Rule::Allow),
            PolicyErrorKind::MalformedPair,
            pair,
        );
    }
}

#[test]
fn rules_that_disagree_are_refused_until_a_closer_rule_decides() {
    let policy =
        classes().rule(Scope::Item, "a/*", Rule::Wait).rule(Scope::Item, "b/*", Rule::Allow);
    check(&policy, PolicyErrorKind::AmbiguousRules, "a>b on item");
    policy.rule(Scope::Item, "b/a", Rule::Wait).compile().unwrap();
}

/// Whether `asked` starts beside `running`.
#[track_caller]
fn starts(policy: &Policy, running: &str, asked: &str) -> bool {
    let admission = Admission::new(Limits::new(), ManualClock::new());
    admission.register("w", policy.compile().unwrap()).unwrap();
    let ask = |owner, class: &str| Request::new(owner).exclusion("w", Resource::item("x"), class);
    let _running = admission.try_acquire(ask("running", running)).unwrap();
    admission.try_acquire(ask("asked", asked)).is_ok()
}

#[test]
fn the_closest_rule_decides() {
    let policy = classes()
        .rule(Scope::Item, "*/*", Rule::Allow)
        .rule(Scope::Item, "a/*", Rule::Wait)
        .rule(Scope::Item, "a/b", Rule::Allow)
        .rule(Scope::Item, "a>b", Rule::reject("busy"));
    assert!(starts(&policy, "b", "c"));
    assert!(!starts(&policy, "a", "c"));
    assert!(!starts(&policy, "c", "a"));
    assert!(!starts(&policy, "a", "b"));
    assert!(starts(&policy, "b", "a"));
}

#[test]
fn a_workload_has_one_policy() {
    let admission = support::admission(Limits::new());
    let error = admission.register("hana", classes().compile().unwrap()).unwrap_err();
    assert_eq!(error.kind(), PolicyErrorKind::AlreadyRegistered);
    assert_eq!(error.to_string(), "workload already has a policy: hana");
}

#[test]
fn a_policy_is_data() {
    let text = r#"{
        "classes": [
            { "name": "data", "aliases": ["full", "diff"], "priority": "normal" },
            { "name": "log", "priority": "high" }
        ],
        "rules": {
            "item": { "data/data": "reject(data-backup-running)", "data/log": "allow" }
        },
        "limits": { "workload": { "streams": 20 } }
    }"#;
    let policy: Policy = serde_json::from_str(text).unwrap();
    assert!(starts(&policy, "full", "log"));
    assert!(!starts(&policy, "full", "diff"));
    let again: Policy = serde_json::from_str(&serde_json::to_string(&policy).unwrap()).unwrap();
    assert_eq!(again, policy);
}

#[test]
fn a_rule_or_a_field_that_is_unknown_is_refused_when_it_is_read() {
    for text in [
        r#"{ "rules": { "item": { "a/a": "maybe" } } }"#,
        r#"{ "rules": { "item": { "a/a": "reject()" } } }"#,
        r#"{ "rule": {} }"#,
    ] {
        serde_json::from_str::<Policy>(text).unwrap_err();
    }
}

/// Four kinds of lock: `backup`, `archive` and `restore` exclude themselves, `all` excludes
/// everything. Another product's rules, in no code but data.
#[test]
fn four_kinds_of_lock_are_four_classes() {
    let policy = ["archive", "backup", "restore", "all"]
        .into_iter()
        .fold(Policy::new(), |policy, name| policy.class(Class::new(name)))
        .rule(Scope::Item, "*/*", Rule::Allow)
        .rule(Scope::Item, "archive/archive", Rule::Wait)
        .rule(Scope::Item, "backup/backup", Rule::Wait)
        .rule(Scope::Item, "restore/restore", Rule::Wait)
        .rule(Scope::Item, "all/*", Rule::Wait);
    for running in ["archive", "backup", "restore", "all"] {
        for asked in ["archive", "backup", "restore", "all"] {
            let is_excluded = running == asked || running == "all" || asked == "all";
            assert_eq!(starts(&policy, running, asked), !is_excluded, "{running}>{asked}");
        }
    }
}

#[test]
fn a_compiled_policy_tells_what_it_calls_a_class_and_what_it_bounds() {
    let old = Conditional::new().limit(Scope::Instance, "streams", 1);
    let policy = Policy::new()
        .class(Class::new("data").alias("full"))
        .limit(Scope::Item, "streams", 2)
        .when("engine<9", old);
    let new = policy.compile_for(&"16".parse().unwrap()).unwrap();
    assert_eq!((new.proper_name("full"), new.proper_name("data")), (Some("data"), Some("data")));
    assert_eq!(new.proper_name("log"), None);
    assert!(new.bounds(Scope::Item, "streams") && !new.bounds(Scope::Item, "streams.log"));
    assert!(!new.bounds(Scope::Instance, "streams"));
    let old = policy.compile_for(&"8".parse().unwrap()).unwrap();
    assert!(old.bounds(Scope::Instance, "streams"));
}
