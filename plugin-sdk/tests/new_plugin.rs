//! What `new_plugin` writes builds outside of the workspace, and passes the conformance kit.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A directory that goes away.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mercury-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn new_plugin(scratch: &Scratch, name: &str) -> Output {
    let program = std::env::current_exe().unwrap();
    let built = program.ancestors().nth(2).unwrap().join("examples/new_plugin");
    assert!(built.is_file(), "{} is missing: build the examples", built.display());
    Command::new(built).args([name, "--dir"]).arg(&scratch.0).output().unwrap()
}

/// Writes the plugin `acme_db`, to be built with the versions of this workspace; its directory.
fn acme_db(scratch: &Scratch) -> PathBuf {
    let made = new_plugin(scratch, "acme_db");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let directory = scratch.0.join("plugin-acme_db");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::copy(workspace.join("Cargo.lock"), directory.join("Cargo.lock")).unwrap();
    directory
}

/// Runs `cargo` in `directory`, with the compiled dependencies of this workspace; what it said.
fn cargo(directory: &Path, arguments: &[&str]) -> (String, String) {
    let program = std::env::current_exe().unwrap();
    let target = program.ancestors().nth(3).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--offline", "--quiet"])
        .current_dir(directory)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{failed}");
    (said, failed)
}

#[test]
fn a_new_plugin_builds_and_passes_the_kit() {
    let scratch = Scratch::new("new-plugin");
    let directory = acme_db(&scratch);
    let code = fs::read_to_string(directory.join("src/lib.rs")).unwrap();
    assert!(code.contains("plugin_sdk::export!(AcmeDb);"), "{code}");
    assert!(!code.to_lowercase().contains("greeting"), "{code}");

    let (said, failed) = cargo(&directory, &["test"]);
    assert!(said.contains("2 passed") && !failed.contains("warning"), "{said}\n{failed}");
}

/// With the command of its README. A size is the same each time, for one compiler.
#[test]
#[ignore = "builds everything for release; a part of .ci/nightly"]
fn the_library_of_a_new_plugin_is_below_a_megabyte() {
    let scratch = Scratch::new("new-plugin-size");
    let directory = acme_db(&scratch);
    let command = ["rustc", "--release", "--lib", "--crate-type", "cdylib"];
    let told = fs::read_to_string(directory.join("README.md")).unwrap();
    assert!(told.contains(&format!("\ncargo {} ", command.join(" "))), "{told}");
    cargo(&directory, &command);
    let program = std::env::current_exe().unwrap();
    let library = program.ancestors().nth(3).unwrap().join("release/libplugin_acme_db.so");
    let bytes = fs::metadata(&library).unwrap().len();
    println!("{bytes} bytes");
    assert!(bytes < 1_000_000, "{bytes} bytes");
}

#[test]
fn a_name_that_no_workload_can_have_is_refused_and_nothing_is_replaced() {
    let scratch = Scratch::new("new-plugin-names");
    for name in ["Acme", "a/b", "7", "", "acme-db"] {
        let refused = new_plugin(&scratch, name);
        assert_eq!(refused.status.code(), Some(2), "{name}");
    }
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0);
    assert!(new_plugin(&scratch, "acme").status.success());
    let again = new_plugin(&scratch, "acme");
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.code() == Some(2) && said.contains("exists already"), "{said}");
}
