//! Which work may run beside which.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use support::{admission, failed, granted, queue, sql, still_waits};
use throttle::{
    AcquireErrorKind, Admission, Claim, Class, Limits, ManualClock, Policy, Relation, Request,
    Resource, Rule, Scope,
};

fn hana(owner: &str, class: &str, tenant: &str) -> Request {
    Request::new(owner).exclusion("hana", Resource::item(format!("hana/HDB/{tenant}")), class)
}

/// Work on one tenant, which also takes part in the work on its instance.
fn tenant(owner: &str, class: &str, instance: &str, tenant: &str) -> Request {
    Request::new(owner)
        .exclusion("hana", Resource::instance(format!("hana/{instance}")), class)
        .exclusion("hana", Resource::item(format!("hana/{instance}/{tenant}")), class)
}

#[test]
fn a_log_backup_starts_beside_a_full_backup() {
    let admission = admission(Limits::new());
    let _full = admission.try_acquire(sql("full", "data", "sales")).unwrap();
    drop(admission.try_acquire(sql("log", "log", "sales")).unwrap());
}

#[test]
fn a_second_full_backup_waits_where_the_policy_says_wait() {
    let admission = admission(Limits::new());
    let full = admission.try_acquire(sql("full", "full", "sales")).unwrap();
    let mut second = queue(&admission, sql("second", "diff", "sales"));
    drop(full);
    drop(granted(&mut second));
}

#[test]
fn a_second_full_backup_is_rejected_with_code_and_holder_where_the_policy_says_reject() {
    let admission = admission(Limits::new());
    let _full = admission.try_acquire(hana("full-7", "data", "T1")).unwrap();
    let error = admission.try_acquire(hana("full-8", "full", "T1")).unwrap_err();
    let AcquireErrorKind::Rejected { code, conflict } = error.kind() else {
        panic!("{error:?}");
    };
    assert_eq!(code, "data-backup-running");
    assert_eq!((&*conflict.holder, &*conflict.holder_class), ("full-7", "data"));
    assert_eq!(
        error.to_string(),
        "request of full-8 was rejected with data-backup-running because of full-7"
    );
}

#[test]
fn a_rejection_with_a_direction_holds_in_that_direction_and_on_that_item_only() {
    let admission = admission(Limits::new());
    let remedial = admission.try_acquire(hana("heal", "remedial", "T1")).unwrap();
    let error = admission.try_acquire(hana("log", "log", "T1")).unwrap_err();
    assert!(matches!(
        error.kind(),
        AcquireErrorKind::Rejected { code, .. } if code == "remedial-backup-running"
    ));
    let log = admission.try_acquire(hana("log", "log", "T2")).unwrap();
    drop(remedial);
    let _waits = queue(&admission, hana("heal", "remedial", "T2"));
    drop(log);
}

#[test]
fn a_restore_waits_for_its_own_database_and_holds_back_who_comes_after_it() {
    let admission = admission(Limits::new());
    let full = admission.try_acquire(sql("full", "data", "sales")).unwrap();
    let mut restore = queue(&admission, sql("restore", "restore", "sales"));
    let mut log = queue(&admission, sql("log", "log", "sales"));
    let _other = admission.try_acquire(sql("other", "data", "stock")).unwrap();

    drop(full);
    let restore = granted(&mut restore);
    still_waits(&mut log);
    drop(restore);
    drop(granted(&mut log));
}

#[test]
fn a_restore_of_the_instance_excludes_its_tenants_and_no_others() {
    let admission = admission(Limits::new());
    let one = admission.try_acquire(tenant("one", "data", "HDB", "T1")).unwrap();
    let two = admission.try_acquire(tenant("two", "log", "HDB", "T2")).unwrap();
    let instance = || Resource::instance("hana/HDB");
    let mut restore =
        queue(&admission, Request::new("system").exclusion("hana", instance(), "restore"));
    let mut three = queue(&admission, tenant("three", "log", "HDB", "T3"));
    let _other = admission.try_acquire(tenant("four", "data", "QAS", "T1")).unwrap();

    drop(one);
    still_waits(&mut restore);
    drop(two);
    let restore = granted(&mut restore);
    still_waits(&mut three);
    drop(restore);
    drop(granted(&mut three));
}

#[test]
fn classes_of_different_workloads_conflict_on_what_they_share() {
    let admission = admission(Limits::new());
    let device = || Resource::custom("snapshot-provider");
    let _one =
        admission.try_acquire(Request::new("one").exclusion("hana", device(), "log")).unwrap();
    queue(&admission, Request::new("two").exclusion("sqlserver", device(), "log"));
}

#[test]
fn an_undeclared_pair_waits() {
    let admission = Admission::new(Limits::new(), ManualClock::new());
    let policy = Policy::new().class(Class::new("a")).class(Class::new("b"));
    admission.register("w", policy.compile().unwrap()).unwrap();
    let ask = |class| Request::new(class).exclusion("w", Resource::item("w/i/x"), class);
    let _running = admission.try_acquire(ask("a")).unwrap();
    queue(&admission, ask("b"));
}

#[test]
fn a_pair_that_is_allowed_in_one_direction_does_not_overtake() {
    let policy = Policy::new().class(Class::new("probe")).class(Class::new("data")).rule(
        Scope::Item,
        "probe>data",
        Rule::Allow,
    );
    let admission = Admission::new(Limits::new(), ManualClock::new());
    admission.register("w", policy.compile().unwrap()).unwrap();
    let ask = |owner, class| Request::new(owner).exclusion("w", Resource::item("w/i/x"), class);

    let first = admission.try_acquire(ask("first", "data")).unwrap();
    let mut probe = queue(&admission, ask("probe", "probe"));
    let mut data = queue(&admission, ask("data", "data"));
    drop(first);
    let _probe = granted(&mut probe);
    drop(granted(&mut data));
}

#[test]
fn one_request_may_name_many_items_in_any_order() {
    let admission = admission(Limits::new());
    let group = |owner: &str, databases: &[&str]| {
        databases.iter().fold(Request::new(owner), |request, database| {
            let item = Resource::item(format!("sqlserver/main/{database}"));
            request.exclusion("sqlserver", item, "data")
        })
    };
    let one = admission.try_acquire(group("one", &["a", "b", "c"])).unwrap();
    let mut two = queue(&admission, group("two", &["c", "b", "a"]));
    drop(one);
    drop(granted(&mut two));
}

#[test]
fn part_of_an_operation_does_not_conflict_with_the_operation() {
    let admission = admission(Limits::new());
    let restore = admission.try_acquire(sql("restore", "restore", "sales")).unwrap();
    // A stranger already waits for the restore. If the tail backup queued behind it, the
    // restore would wait for the stranger and the stranger for the restore.
    let mut stranger = queue(&admission, sql("nightly", "log", "sales"));
    let tail =
        admission.try_acquire(sql("restore/tail", "log", "sales").lent_by(&restore)).unwrap();
    assert_eq!(tail.root(), "restore");
    drop(restore);
    still_waits(&mut stranger);
    drop(tail);
    drop(granted(&mut stranger));
}

#[test]
fn a_waiting_part_starts_as_soon_as_its_operation_holds_the_item() {
    let admission = admission(Limits::new());
    let full = admission.try_acquire(sql("full", "data", "sales")).unwrap();
    let mut restore = queue(&admission, sql("restore", "restore", "sales"));
    let mut part = queue(&admission, sql("restore", "data", "sales"));
    drop(full);
    let _restore = granted(&mut restore);
    drop(granted(&mut part));
}

#[test]
fn an_equal_request_that_waits_already_is_named_instead_of_queueing_twice() {
    let policy =
        Policy::new().class(Class::new("log")).rule(Scope::Item, "log/log", Rule::Coalesce);
    let admission = Admission::new(Limits::new(), ManualClock::new());
    admission.register("w", policy.compile().unwrap()).unwrap();
    let ask = |owner, key| {
        Request::new(owner).exclusion("w", Resource::item("w/i/x"), "log").coalesce_key(key)
    };
    let _running = admission.try_acquire(ask("09:00", "scheduled")).unwrap();
    let _waits = queue(&admission, ask("09:15", "scheduled"));
    let error = admission.try_acquire(ask("09:30", "scheduled")).unwrap_err();
    assert_eq!(error.kind(), &AcquireErrorKind::Coalesced { into: "09:15".into() });
    queue(&admission, ask("09:31", "on demand"));
}

#[test]
fn exclusions_are_taken_back_after_a_restart_before_anything_new() {
    let admission = admission(Limits::new().node("streams", 1));
    let adopted = admission
        .adopt(sql("old", "data", "sales").capacity(Resource::node(), "streams", 3))
        .unwrap();
    let mut new = queue(&admission, support::streams("new", 1));
    queue(&admission, sql("other", "data", "sales"));
    drop(adopted);
    drop(granted(&mut new));
}

#[test]
fn a_conflict_at_a_restart_is_reported_and_takes_nothing() {
    let admission = admission(Limits::new());
    let _old = admission.adopt(sql("old", "data", "sales")).unwrap();
    let both = sql("odd", "data", "sales").exclusion(
        "sqlserver",
        Resource::item("sqlserver/main/stock"),
        "data",
    );
    let error = admission.adopt(both).unwrap_err();
    let AcquireErrorKind::Conflicting { conflicts } = error.kind() else { panic!("{error:?}") };
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].holder, "old");
    drop(admission.try_acquire(sql("new", "data", "stock")).unwrap());
}

#[test]
fn a_snapshot_names_what_each_waiter_truly_waits_for() {
    let admission = admission(Limits::new().node("streams", 1));
    let _restore = admission
        .try_acquire(sql("restore-17", "restore", "sales").capacity(Resource::node(), "streams", 1))
        .unwrap();
    let _log =
        queue(&admission, sql("log-1", "log", "sales").capacity(Resource::node(), "streams", 1));
    let _full = queue(&admission, support::streams("full-2", 1));

    let snapshot = admission.snapshot();
    let [log, full] = &snapshot.waiters[..] else { panic!("{snapshot:?}") };
    let sales = Resource::item("sqlserver/main/sales");
    assert_eq!(log.waits_for, Claim::exclusion("sqlserver", sales, "log"));
    assert_eq!(full.waits_for, Claim::capacity(Resource::node(), "streams", 1));
    for waiter in [log, full] {
        assert_eq!(waiter.position, 1);
        assert_eq!(waiter.blockers.len(), 1);
        assert_eq!(waiter.blockers[0].owner, "restore-17");
        assert_eq!(waiter.blockers[0].relation, Relation::Holds);
    }
}

#[test]
fn a_name_that_nobody_declared_is_an_error_that_names_it() {
    let admission = admission(Limits::new());
    let item = || Resource::item("x");
    for (request, message) in [
        (
            Request::new("op").exclusion("oracle", item(), "data"),
            "request of op names workload oracle, which has no policy",
        ),
        (
            Request::new("op").exclusion("hana", item(), "shrink"),
            "request of op names class shrink, which workload hana does not have",
        ),
        (
            Request::new("op").capacity(item(), "streams", 1),
            "request of op names limit streams of item x, which is not set",
        ),
        (Request::new("op"), "request of op is malformed: it has no claims"),
    ] {
        let error = admission.try_acquire(request).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(!error.is_retryable());
    }
}

#[test]
fn a_waiter_of_a_closed_admission_is_told_so() {
    let admission = admission(Limits::new());
    let _full = admission.try_acquire(sql("full", "data", "sales")).unwrap();
    let mut waits = queue(&admission, sql("second", "data", "sales"));
    admission.close();
    assert_eq!(failed(&mut waits).kind(), &AcquireErrorKind::Closed);
}
