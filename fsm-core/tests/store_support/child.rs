//! This test program once more, as a process of its own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where a child finds its state file.
const FILE: &str = "FSM_CORE_TEST_FILE";

/// A command that runs the ignored test `name` of this program over the file at `path`.
pub(crate) fn child(name: &str, path: &Path) -> Command {
    wrapped(&[], name, path)
}

/// As [`child`], started by the command in `wrapper`.
pub(crate) fn wrapped(wrapper: &[&str], name: &str, path: &Path) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env(FILE, path)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null());
    command
}

/// The child's state file.
pub(crate) fn file() -> PathBuf {
    std::env::var_os(FILE).expect("started by another test").into()
}

/// Whether a tool that a test needs is missing, and may be: in CI it may not.
pub(crate) fn may_skip(what: &str, why: &dyn std::fmt::Display) -> bool {
    assert!(std::env::var_os("MERCURY_REQUIRE_SERVERS").is_none(), "{what}: {why}");
    eprintln!("SKIPPED: {what}: {why}");
    true
}
