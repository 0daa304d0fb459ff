//! A policy as a document: versions, conditions, keys, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use support::queue;
use throttle::{
    AcquireErrorKind, Admission, Class, CompiledPolicy, EngineVersion, Limits, ManualClock, Policy,
    PolicyErrorKind, Request, Resource, Rule, Scope,
};

const DOCUMENT: &str = r#"{
    "classes": [
        { "name": "data", "aliases": ["full", "diff", "copy_only", "file"] },
        { "name": "log", "priority": "high", "coalesce": "item" },
        { "name": "restore", "priority": "urgent" }
    ],
    "rules": {
        "item": { "data/log": "allow", "data>restore": "reject(data-backup-running)" },
        "instance": { "*/*": "allow", "restore/*": "wait" }
    },
    "limits": { "node": { "streams": 20, "streams.data": 18 } },
    "when": {
        "engine<9": {
            "rules": { "item": { "log/data": "wait" } },
            "limits": { "node": { "streams": 4 } }
        },
        "engine>=13,engine<15": { "rules": { "item": { "data/data": "allow" } } }
    }
}"#;

fn document() -> Policy {
    serde_json::from_str(DOCUMENT).unwrap()
}

fn version(text: &str) -> EngineVersion {
    text.parse().unwrap()
}

fn with(policy: CompiledPolicy) -> Admission {
    let admission = Admission::new(Limits::new().node("streams", 8), ManualClock::new());
    admission.register("w", policy).unwrap();
    admission
}

fn ask(owner: &str, class: &str) -> Request {
    Request::new(owner).exclusion("w", Resource::item("w/i/x"), class)
}

/// Whether `asked` starts beside `running` with this version.
#[track_caller]
fn starts(engine: &str, running: &str, asked: &str) -> bool {
    let admission = with(document().compile_for(&version(engine)).unwrap());
    let _running = admission.try_acquire(ask("running", running)).unwrap();
    admission.try_acquire(ask("asked", asked)).is_ok()
}

#[test]
fn a_log_backup_waits_for_a_full_one_in_old_versions_only() {
    for (engine, is_beside) in [("8.0.760", false), ("8.99", false), ("9", true), ("16.0", true)] {
        assert_eq!(starts(engine, "full", "log"), is_beside, "{engine}");
        assert_eq!(starts(engine, "log", "diff"), is_beside, "{engine}");
    }
}

#[test]
fn several_comparisons_hold_together() {
    for (engine, is_allowed) in [("12.9", false), ("13.0", true), ("14.9.9", true), ("15", false)] {
        assert_eq!(starts(engine, "full", "full"), is_allowed, "{engine}");
    }
}

#[test]
fn a_limit_under_a_condition_counts_where_it_is_smaller() {
    for (engine, most) in [("8", 4), ("9", 8)] {
        let admission = with(document().compile_for(&version(engine)).unwrap());
        let streams = |units| Request::new("op").capacity(Resource::node(), "streams", units);
        assert!(admission.try_acquire(streams(most)).is_ok(), "{engine}");
        // The policy's 20 is clamped to the host's 8.
        let error = admission.try_acquire(streams(most + 1)).unwrap_err();
        assert!(
            matches!(error.kind(), AcquireErrorKind::Unsatisfiable { ceiling, .. } if *ceiling == most)
        );
    }
}

#[test]
fn a_policy_survives_being_written_down() {
    let text = serde_json::to_string(&document()).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), document());
    // What an older reader does not know is not written without need.
    let plain = serde_json::to_string(&Policy::new().class(Class::new("data"))).unwrap();
    assert!(!plain.contains("when") && !plain.contains("coalesce"), "{plain}");
}

#[track_caller]
fn check(text: &str, expected: PolicyErrorKind, message: &str) {
    let policy: Policy = serde_json::from_str(text).unwrap();
    let error = policy.compile_for(&version("9")).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (expected, message));
}

#[test]
fn what_is_wrong_with_a_document_is_said_by_name() {
    let policy =
        |rest: &str| format!(r#"{{ "classes": [{{ "name": "a" }}, {{ "name": "b" }}], {rest} }}"#);
    check(
        &policy(r#""rules": { "item": { "a/b": "allow", "b/a": "wait" } }"#),
        PolicyErrorKind::AmbiguousRules,
        "rules disagree about a pair: a>b on item",
    );
    check(
        &policy(r#""rules": { "item": { "a/b": "reject(busy)" } }"#),
        PolicyErrorKind::RejectWithoutDirection,
        "rejection does not say which class is running: a/b",
    );
    check(
        &policy(r#""limits": { "node": { "streams": 0 } }"#),
        PolicyErrorKind::ZeroLimit,
        "limit of a policy is zero: streams of node",
    );
    // What does not hold for this version is checked all the same.
    check(
        &policy(r#""when": { "engine>90": { "rules": { "item": { "a/c": "wait" } } } }"#),
        PolicyErrorKind::UnknownClass,
        "class is not declared: c in a/c",
    );
    for condition in ["engine", "engine<", "version<9", "engine<9.x", "engine<9,", "engine=+9"] {
        check(
            &policy(&format!(r#""when": {{ "{condition}": {{}} }}"#)),
            PolicyErrorKind::MalformedCondition,
            &format!("condition is not a comparison such as engine<9: {condition}"),
        );
    }
}

#[test]
fn a_policy_with_conditions_is_not_used_without_a_version() {
    let error = document().compile().unwrap_err();
    assert_eq!(error.kind(), PolicyErrorKind::VersionNeeded);
}

#[test]
fn conditions_that_hold_together_must_not_disagree() {
    let text = r#"{ "classes": [{ "name": "a" }], "when": {
        "engine<10": { "rules": { "item": { "a/a": "wait" } } },
        "engine>8": { "rules": { "item": { "a/a": "allow" } } } } }"#;
    check(text, PolicyErrorKind::AmbiguousRules, "rules disagree about a pair: a>a on item");
    let policy: Policy = serde_json::from_str(text).unwrap();
    policy.compile_for(&version("8")).unwrap();
}

#[test]
fn versions_are_compared_number_by_number() {
    let sorted = ["0", "8.0.760", "9", "9.0.1", "9.1", "10", "10.0.0.1"].map(version);
    assert!(sorted.is_sorted());
    assert_eq!(version("9.0.0"), version("9"));
    assert_eq!(version("9.0.0").to_string(), "9");
    for text in ["", "9.", "x", "9.-1", "+9"] {
        let error = text.parse::<EngineVersion>().unwrap_err();
        assert_eq!(error.kind(), PolicyErrorKind::MalformedVersion, "{text}");
    }
}

#[test]
fn a_class_without_any_rule_excludes_everything_on_its_item() {
    let policy = Policy::new().class(Class::new("a")).class(Class::new("b")).rule(
        Scope::Instance,
        "*/*",
        Rule::Allow,
    );
    let admission = with(policy.compile().unwrap());
    let _a = admission.try_acquire(ask("a", "a")).unwrap();
    assert!(admission.try_acquire(ask("a2", "a")).is_err());
    queue(&admission, ask("b", "b"));
}

#[test]
fn a_class_says_where_equal_requests_are_one() {
    let admission = with(document().compile_for(&version("16")).unwrap());
    let _running = admission.try_acquire(ask("09:00", "log")).unwrap();
    let _waits = queue(&admission, ask("09:15", "log").coalesce_key("scheduled"));
    let error = admission.try_acquire(ask("09:30", "log").coalesce_key("scheduled")).unwrap_err();
    assert_eq!(error.kind(), &AcquireErrorKind::Coalesced { into: "09:15".into() });
    // Nothing is one without a key, nor with the log of another item.
    queue(&admission, ask("by hand", "log"));
    let other = Request::new("other").exclusion("w", Resource::item("w/i/y"), "log");
    drop(admission.try_acquire(other.coalesce_key("scheduled")).unwrap());
}
