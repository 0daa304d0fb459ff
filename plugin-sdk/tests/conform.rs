//! The program that runs the conformance kit: its table, its JSON, its exit code.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use plugin_sdk::conformance::{Group, Report, Verdict};

/// What the examples are built into.
fn built(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let built = program.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(built.is_file(), "{} is missing: build the examples", built.display());
    built
}

fn conform(library: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(built("conform"));
    command.arg(built(library)).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.output().unwrap()
}

const GREETING: [&str; 2] = ["--fixture", "examples/greeting.toml"];

#[test]
fn a_plugin_that_is_right_is_tried_in_full_here_and_in_processes_of_its_own() {
    let output = conform("libgreeting.so", &[&GREETING[..], &["--mode", "all", "--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let reports: Vec<Report> = serde_json::from_slice(&output.stdout).unwrap();
    let modes: Vec<_> = reports.iter().map(|report| report.mode.as_str()).collect();
    assert_eq!(modes, ["isolated", "in-process"]);
    for report in reports {
        let not_passed: Vec<_> =
            report.checks.iter().filter(|check| check.verdict != Verdict::Passed).collect();
        assert!(not_passed.is_empty(), "{}: {not_passed:#?}", report.mode);
        for group in Group::ALL {
            assert!(report.checks.iter().any(|check| check.group == group), "{group}");
        }
    }
}

#[test]
fn a_plugin_that_writes_to_standard_output_is_found_wherever_it_runs() {
    for mode in ["in-process", "isolated"] {
        let only = ["--only", "fuzz", "--only", "hygiene", "--mode", mode, "--json"];
        let output = conform("libbroken_output.so", &only);
        let report: Report = serde_json::from_slice(&output.stdout).unwrap();
        let check = report.check(Group::Hygiene, "standard_output").unwrap();
        assert!(check.is_broken() && check.detail.contains("a stray line"), "{mode}: {check:?}");
        assert_eq!(output.status.code(), Some(1), "{mode}");
    }
}

#[test]
fn a_table_says_what_was_tried_and_the_exit_code_what_came_of_it() {
    let only = ["--only", "load", "--only", "fuzz"];
    let output = conform("libbroken_cancel.so", &only);
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{table}");
    assert!(table.contains("truncated") && !table.contains("lifecycle"), "{table}");
    assert!(table.lines().last().unwrap().contains("0 broken, 0 warnings"), "{table}");

    let output = conform("libbroken_freeze.so", &GREETING);
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains("there is no workload `greeting` in it"), "{table}");
}

#[test]
fn what_cannot_be_tried_is_said_and_is_not_success() {
    for arguments in [&["--fixture", "/nowhere"][..], &["--mode", "upside-down"], &["--what"]] {
        let output = conform("libgreeting.so", arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(arguments[arguments.len() - 1]), "{said}");
    }
}
