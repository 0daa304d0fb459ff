//! The conformance kit passes a plugin that is right, and finds what is wrong with one that is not.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "conformance/files.rs"]
mod files;
#[path = "../examples/greeting.rs"]
#[allow(unreachable_pub, reason = "it is a library of its own, too")]
mod greeting;

use std::path::PathBuf;

use files::Files;
use greeting::Greeting;
use plugin_sdk::conformance::{Check, Grade, Group, Kit, Mode, Report, Subject, Verdict};
use plugin_sdk::host::{Process, Runner};

/// The library of the example `name`.
fn library(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let target = program.ancestors().nth(2).unwrap();
    let library = target.join(format!("examples/lib{name}.so"));
    assert!(library.is_file(), "{} is missing: build the examples", library.display());
    library
}

/// The library of the example `name`, in this process or in others.
fn subject(name: &str, mode: Mode) -> Subject {
    match mode {
        Mode::Isolated => {
            let runner = Runner::at(env!("CARGO_BIN_EXE_plugin-runner"));
            Subject::isolated(library(name), Process::new().runner(runner))
        }
        _ => Subject::library(library(name)),
    }
}

#[track_caller]
fn check_passes(subject: Subject) -> Report {
    let report = Kit::new(subject).fixture(Files::new("greeting")).run();
    println!("{report}");
    let failed: Vec<_> =
        report.checks.iter().filter(|check| check.verdict == Verdict::Failed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(report.exit_code(), 0);
    report
}

/// Checks of `report` that were not tried, by name.
fn skipped(report: &Report) -> Vec<&str> {
    let skipped = report.checks.iter().filter(|check| check.verdict == Verdict::Skipped);
    skipped.map(|check| check.name.as_str()).collect()
}

/// What neither of them can be tried on in a test program.
const NOT_OF_A_TEST: [&str; 3] = ["no_panic_in_drop", "standard_output", "threads"];

#[test]
fn a_plugin_that_is_right_passes_linked_loaded_and_isolated() {
    let linked = check_passes(Subject::linked::<Greeting>());
    let loaded = check_passes(subject("greeting", Mode::InProcess));
    let isolated = check_passes(subject("greeting", Mode::Isolated));
    assert_eq!(skipped(&loaded), NOT_OF_A_TEST);
    assert_eq!(skipped(&isolated), NOT_OF_A_TEST);
    assert_eq!(skipped(&linked)[1..], NOT_OF_A_TEST, "and a linked plugin is no file");
    let tried = |report: &Report| -> Vec<_> {
        report.checks.iter().map(|check| (check.group, check.name.clone())).collect()
    };
    assert_eq!(tried(&linked), tried(&loaded), "the same checks in each mode");
    assert_eq!(tried(&loaded), tried(&isolated), "the same checks in each mode");
}

/// What of the broken plugin `name` the kit finds broken, in this process and in others.
#[track_caller]
fn check_broken(name: &str, workload: &'static str, expected: &[(Group, &str, &str)]) {
    for mode in [Mode::InProcess, Mode::Isolated] {
        let report = Kit::new(subject(name, mode)).fixture(Files::new(workload)).run();
        println!("{report}");
        assert_eq!(report.exit_code(), 1);
        let broken: Vec<&Check> = report.broken().collect();
        assert_eq!(broken.len(), expected.len(), "{mode}: {broken:#?}");
        for (check, (group, name, why)) in broken.into_iter().zip(expected) {
            let found = (check.group, check.name.as_str(), check.grade);
            assert_eq!(found, (*group, *name, Grade::Must), "{mode}");
            assert!(check.detail.contains(why), "{mode}: {why:?} is not in {:?}", check.detail);
        }
    }
}

#[test]
fn a_freeze_that_is_left_behind_is_found() {
    let left = "item.frozen is left (the run ended";
    let expected = [
        (Group::Cancel, "backup_stops", left),
        (Group::Errors, "backup_services_fail", left),
        (Group::Panic, "backup_host_panics", left),
    ];
    check_broken("broken_freeze", "leaks_a_freeze", &expected);
}

#[test]
fn a_step_that_ignores_that_it_is_to_stop_is_found() {
    let expected = [(Group::Cancel, "backup_stops", "the step `send` went on, and asked for")];
    check_broken("broken_cancel", "ignores_cancel", &expected);
}

#[test]
fn what_is_sent_twice_is_found() {
    let twice = "it was sent twice: take again.copy-";
    let expected = [
        (Group::Lifecycle, "backup_killed_at_calls", twice),
        (Group::Lifecycle, "backup_killed_at_writes", twice),
        (Group::Errors, "backup_services_fail", twice),
    ];
    check_broken("broken_twice", "sends_twice", &expected);
}

#[test]
fn a_secret_that_comes_out_is_found() {
    // What the host itself logs about a library, and what the plugin writes into a record.
    for (secret, name) in
        [("libgreeting.so", "no_secret_in_the_log"), ("item.txt", "no_secret_written_down")]
    {
        let fixture = Files::new("greeting").with_secret(secret);
        let kit = Kit::new(Subject::library(library("greeting"))).fixture(fixture);
        let report = kit.only(&[Group::RoundTrip, Group::Hygiene]).run();
        let check = report.check(Group::Hygiene, name).unwrap();
        assert!(check.is_broken() && !check.detail.contains(secret), "{check:?}");
    }
}

#[test]
fn what_needs_a_fixture_is_not_tried_without_one() {
    let needs_a_configuration = Kit::new(Subject::linked::<Greeting>()).run();
    let instance = needs_a_configuration.check(Group::Load, "instance").unwrap();
    assert!(instance.verdict == Verdict::Skipped && instance.detail.contains("directory"));

    let report = Kit::new(Subject::library(library("broken_cancel"))).run();
    let tried = |group| {
        let of = report.checks.iter().filter(move |check| check.group == group);
        of.filter(|check| check.verdict != Verdict::Skipped).count()
    };
    assert!(tried(Group::Load) > 5 && tried(Group::RoundTrip) == 0, "{report}");
    assert_eq!(tried(Group::Lifecycle) + tried(Group::Errors) + tried(Group::Stream), 0);
    assert!(tried(Group::Fuzz) > 5 && report.passed(), "{report}");
}

#[test]
fn a_file_that_is_no_plugin_is_broken_and_nothing_else_is_tried() {
    let report = Kit::new(Subject::library(file!())).run();
    assert_eq!(report.checks.len(), 1, "{report}");
    assert!(report.checks[0].is_broken() && report.checks[0].name == "loads", "{report}");
}
