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
fn a_plugin_that_is_right_is_tried_in_full() {
    let output = conform("libgreeting.so", &[&GREETING[..], &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    let not_passed: Vec<_> =
        report.checks.iter().filter(|check| check.verdict != Verdict::Passed).collect();
    assert!(not_passed.is_empty(), "{not_passed:#?}");
    for group in Group::ALL {
        assert!(report.checks.iter().any(|check| check.group == group), "{group}");
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
