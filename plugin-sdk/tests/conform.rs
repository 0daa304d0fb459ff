//! The program that runs the conformance kit: its table, its JSON, its exit code.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use plugin_sdk::conformance::{Group, Report, Verdict};
use plugin_sdk::host::{Digest, Library, Sidecar, Trust};

/// What the examples are built into.
fn built(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let built = program.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(built.is_file(), "{} is missing: build the examples", built.display());
    built
}

fn conform(library: &str, arguments: &[&str]) -> Output {
    conform_at(&built(library), arguments)
}

fn conform_at(library: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(built("conform"));
    command.arg(library).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.output().unwrap()
}

/// The library of `greeting`, installed with its description.
struct Installed(PathBuf);

impl Installed {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::copy(built("libgreeting.so"), directory.join("libgreeting.so")).unwrap();
        let installed = Installed(directory);
        let trust = Trust::development("the tests' own library");
        let library = Library::load(&installed.library(), &trust).unwrap();
        let manifest = serde_json::from_slice(&library.manifest().unwrap()).unwrap();
        let digest = Digest::of(&fs::read(installed.library()).unwrap());
        let sidecar = Sidecar::of(&manifest, ">=0.1, <0.2", digest).unwrap();
        fs::write(installed.sidecar(), sidecar.to_toml()).unwrap();
        installed
    }

    fn library(&self) -> PathBuf {
        self.0.join("libgreeting.so")
    }

    fn sidecar(&self) -> PathBuf {
        self.0.join(Sidecar::file_name(&self.library()))
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const GREETING: [&str; 2] = ["--fixture", "examples/greeting.toml"];

#[test]
fn a_plugin_that_is_right_is_tried_in_full_here_and_in_processes_of_its_own() {
    let installed = Installed::new("conform-in-full");
    let arguments = [&GREETING[..], &["--mode", "all", "--json"]].concat();
    let output = conform_at(&installed.library(), &arguments);
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
fn a_description_that_is_not_the_librarys_is_found() {
    let installed = Installed::new("conform-description");
    let right = fs::read_to_string(installed.sidecar()).unwrap();
    for (from, to, why) in [
        ("\"0.1.0\"", "\"0.1.1\"", "has the version `0.1.0`, but its sidecar says `0.1.1`"),
        ("[\"greeting\"]", "[\"farewell\"]", "has `greeting` among its workloads"),
        (">=0.1, <0.2", ">=7.1", "is for SDK >=7.1"),
        ("form = 1", "form = ", "damaged"),
    ] {
        let wrong = right.replace(from, to);
        assert_ne!(right, wrong);
        fs::write(installed.sidecar(), wrong).unwrap();
        for mode in ["in-process", "isolated"] {
            let only = ["--only", "load", "--mode", mode, "--json"];
            let output = conform_at(&installed.library(), &only);
            assert_eq!(output.status.code(), Some(1), "{mode}: {why}");
            let report: Report = serde_json::from_slice(&output.stdout).unwrap();
            let check = report.check(Group::Load, "sidecar").unwrap();
            assert!(check.is_broken() && check.detail.contains(why), "{mode}: {check:?}");
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
    assert!(table.lines().last().unwrap().contains("0 broken, 1 warnings"), "{table}");
    assert!(table.contains("a step of `send` of `ignores_cancel` may hang for ever"), "{table}");

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
