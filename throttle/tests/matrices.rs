//! The rules of three products, as documents that a plugin could ship, beside the tables that
//! say what they mean.
//!
//! A table has a row for what runs and a column for what is asked for on the same item: `A`
//! it starts, `W` it waits, `R` it is refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use support::{granted, queue};
use throttle::{AcquireErrorKind, Admission, Limits, ManualClock, Policy, Request, Resource};

const SQLSERVER: &str = include_str!("policies/sqlserver.json");
const HANA: &str = include_str!("policies/hana.json");
const PGBACKREST: &str = include_str!("policies/pgbackrest.json");

fn admission(policy: &str) -> Admission {
    let policy: Policy = serde_json::from_str(policy).unwrap();
    let admission = Admission::new(Limits::new(), ManualClock::new());
    admission.register("w", policy.compile().unwrap()).unwrap();
    admission
}

/// Work of `class` on a database, as an operation asks for it: its instance is shared.
fn work(owner: &str, class: &str, instance: &str, database: &str) -> Request {
    Request::new(owner)
        .exclusion("w", Resource::item(format!("w/{instance}/{database}")), class)
        .exclusion("w", Resource::instance(format!("w/{instance}")), class)
}

/// What becomes of `asked` while `running` runs: a letter, and the code of a refusal.
fn outcome(policy: &str, running: &str, asked: &str) -> (char, Option<String>) {
    let admission = admission(policy);
    let on_item =
        |owner, class: &str| Request::new(owner).exclusion("w", Resource::item("x"), class);
    let _running = admission.try_acquire(on_item("running", running)).unwrap();
    match admission.try_acquire(on_item("asked", asked)) {
        Ok(_) => ('A', None),
        Err(error) => match error.kind() {
            AcquireErrorKind::WouldWait { blocked_by } => {
                assert_eq!(blocked_by.as_deref(), Some("running"));
                ('W', None)
            }
            AcquireErrorKind::Rejected { code, conflict, .. } => {
                assert_eq!(conflict.holder, "running");
                ('R', Some(code.clone()))
            }
            other => panic!("{running}>{asked}: {other:?}"),
        },
    }
}

/// The first line names the columns, each later one begins with what runs.
#[track_caller]
fn check(policy: &str, table: &str) {
    let mut lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
    let columns: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    for line in lines {
        let mut cells = line.split_whitespace();
        let running = cells.next().unwrap();
        let cells: Vec<_> = cells.collect();
        assert_eq!(cells.len(), columns.len(), "{line}");
        for (asked, expected) in columns.iter().zip(cells) {
            let (letter, _) = outcome(policy, running, asked);
            assert_eq!(letter.to_string(), expected, "{asked} while {running} runs");
        }
    }
}

#[test]
fn sql_server_is_as_its_table_says() {
    check(
        SQLSERVER,
        "          full copy_only diff file log restore shrink snapshot
         full      W    W         W    W    A   W       W      A
         copy_only W    W         W    W    A   W       W      A
         diff      W    W         W    W    A   W       W      A
         log       A    A         A    A    W   W       W      A
         restore   W    W         W    W    W   W       W      W
         shrink    W    W         W    W    W   W       W      W
         snapshot  A    A         A    A    A   W       W      W",
    );
}

#[test]
fn hana_is_as_its_table_says() {
    check(
        HANA,
        "         full diff incr log remedial restore
         full     R    R    R    A   W        W
         diff     R    R    R    A   W        W
         log      A    A    A    A   A        W
         remedial R    R    R    R   R        W
         restore  W    W    W    W   W        W",
    );
}

#[test]
fn pgbackrest_is_as_its_table_says() {
    check(
        PGBACKREST,
        "             archive-push backup expire restore stanza-create
         archive-get   W            A      A      A       W
         backup        A            W      W      A       W
         annotate      A            W      W      A       W
         restore       A            A      A      W       W
         stanza-delete W            W      W      W       W",
    );
}

#[test]
fn a_refusal_has_the_code_of_what_runs() {
    for (running, asked, code) in [
        ("full", "diff", "OperationCancelledBecauseConflictingOperationRunning"),
        ("remedial", "full", "UserErrorBackupFailedAsRemedialBackupInProgress"),
        ("remedial", "log", "OperationCancelledBecauseConflictingAutohealOperationRunning"),
    ] {
        assert_eq!(outcome(HANA, running, asked), ('R', Some(code.to_owned())));
    }
}

#[test]
fn a_remedial_backup_refuses_logs_of_its_own_database_only() {
    let admission = admission(HANA);
    let _remedial = admission.try_acquire(work("remedial", "remedial", "HXE", "A")).unwrap();
    let error = admission.try_acquire(work("log", "log", "HXE", "A")).unwrap_err();
    assert!(matches!(error.kind(), AcquireErrorKind::Rejected { .. }), "{error}");
    let _other = admission.try_acquire(work("log", "log", "HXE", "B")).unwrap();
}

#[test]
fn a_restore_waits_for_its_database_delays_no_other_and_is_not_passed() {
    let admission = admission(SQLSERVER);
    let full = admission.try_acquire(work("full", "full", "main", "A")).unwrap();
    let mut restore = queue(&admission, work("restore", "restore", "main", "A"));
    let _other = admission.try_acquire(work("other", "full", "main", "B")).unwrap();
    // Of the restore's urgency: an earlier arrival of its kind comes first.
    let mut log = queue(&admission, work("log", "log", "main", "A"));
    drop(full);
    let restore = granted(&mut restore);
    support::still_waits(&mut log);
    drop(restore);
    drop(granted(&mut log));
}

#[test]
fn restoring_the_system_stops_its_instance_and_no_other() {
    for policy in [SQLSERVER, HANA] {
        let admission = admission(policy);
        let tenant = admission.try_acquire(work("tenant", "full", "one", "A")).unwrap();
        let mut system = queue(&admission, work("system", "restore_system", "one", "SYSTEM"));
        let mut late = queue(&admission, work("late", "log", "one", "B"));
        let _elsewhere = admission.try_acquire(work("elsewhere", "full", "two", "A")).unwrap();
        drop(tenant);
        let system = granted(&mut system);
        support::still_waits(&mut late);
        drop(system);
        drop(granted(&mut late));
    }
}
