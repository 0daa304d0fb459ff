//! The examples, run as a stranger runs them: as programs, with a plugin that they load.
//!
//! Cargo builds them before the tests, unless it is asked for this test alone; then
//! `cargo build --examples` is what builds them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// What every plugin of this name exports, and nothing else does.
const SYMBOL: &[u8] = b"mercury_plugin_v1_plugin_sqlite";

/// `target/<profile>`.
fn profile() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a program");
    test.ancestors().nth(2).expect("a test is in target/<profile>/deps").to_owned()
}

fn example(name: &str) -> PathBuf {
    profile().join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

fn run(name: &str, arguments: &[&str]) -> Output {
    let program = example(name);
    let output = Command::new(&program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// Runs an example that is to succeed, and returns what it printed.
#[track_caller]
fn story(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    let stdout = String::from_utf8(output.stdout).expect("an example prints text");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    assert_eq!(stdout.lines().last(), Some("restored content is identical"), "{stdout}");
    // Trust and a new key are what a reader has to be told; nothing else is worth a warning.
    assert!(stderr.contains("trusting a plugin for development"), "{stderr}");
    assert_eq!(stderr.matches("a new archive key was created").count(), 1, "{stderr}");
    assert!(!stderr.to_lowercase().contains("error"), "{stderr}");
    stdout
}

/// Checks that `parts` are lines of `text`, in this order. Blanks at both ends do not count.
#[track_caller]
fn check_lines(text: &str, parts: &[&str]) {
    let mut lines = text.lines().map(str::trim);
    for part in parts {
        assert!(lines.any(|line| line == *part), "`{part}` is not where it should be in\n{text}");
    }
}

fn contains(path: &Path, needle: &[u8]) -> bool {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes.windows(needle.len()).any(|window| window == needle)
}

fn library() -> PathBuf {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    profile().join("deps").join(format!("{DLL_PREFIX}plugin_sqlite{DLL_SUFFIX}"))
}

#[test]
fn the_quickstart_tells_its_story() {
    let text = story("quickstart", &["--megabytes", "8"]);
    check_lines(
        &text,
        &[
            "An engine starts.",
            "The machine sqlite.backup: Back up one live database.",
            "inspect  -> copy      Check that the database can be read; note its owner and its look.",
            "copy     -> seal      Send one consistent moment of the database, page by page.",
            "seal     -> sealed    Make a recovery point of what is durable.",
            "sealed   (completed)  The recovery point exists.",
            "The machine sqlite.restore: Restore one database, and put it in place in one move.",
            "An application creates its database.",
            "First backup: everything is new.",
            "Second backup: 1 % of the rows changed, 1 % is new, and the application goes on.",
            "Third backup: the application has come to rest.",
            "Fourth backup: nothing was committed in between.",
            "skipped: nothing was committed since the newest recovery point",
            "the new point has the data of third/1",
            "PRAGMA integrity_check: ok",
            "operation              read         new      stored      time    MB/s",
            "restored content is identical",
        ],
    );
}

#[test]
fn the_quickstart_only_reads_a_database_of_the_users_own() {
    let root = tempfile::tempdir().unwrap();
    // Without an extension, as nobody promised one.
    let path = root.path().join("ledger");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE \"odd name\" (text TEXT PRIMARY KEY, blob BLOB) WITHOUT ROWID;
             INSERT INTO \"odd name\" VALUES ('one', x'01'), ('two', NULL);",
        )
        .unwrap();
    connection.close().unwrap();
    let before = std::fs::read(&path).unwrap();
    let text = story("quickstart", &[path.to_str().unwrap()]);
    check_lines(
        &text,
        &[
            "First backup: everything is new.",
            "Second backup: only if something was committed in between.",
            "PRAGMA integrity_check: ok",
            "compared by hash: odd name, sqlite_schema",
            "restored content is identical",
        ],
    );
    assert!(std::fs::read(&path).unwrap() == before, "the user's database was written to");
    let files = std::fs::read_dir(root.path()).unwrap().count();
    assert_eq!(files, 1, "something was left beside the user's database");
}

#[test]
fn a_killed_backup_is_finished_by_the_next_process() {
    let text = story("interrupted", &["--megabytes", "8"]);
    check_lines(
        &text,
        &[
            "An undisturbed backup, for comparison.",
            "The same backup in another process, killed when half of the bytes are on their way.",
            "An engine starts on the same state directory and the same archive.",
            "it finished the operation `nightly` by itself",
            "Recovery points:",
            "nightly/1 (full)",
            "PRAGMA integrity_check: ok",
            "restored content is identical",
        ],
    );
    assert_eq!(text.matches("nightly/1 (full)").count(), 1, "{text}");
}

#[test]
fn a_plugin_that_dies_in_the_middle_takes_neither_the_agent_nor_the_backup_along() {
    let text = story("isolated", &["--megabytes", "8"]);
    check_lines(
        &text,
        &[
            "An engine starts; the plugin's code is not in its process.",
            "A backup begins, and its process dies when half of the bytes are on their way.",
            "the agent lives, and the backup was finished by a new process",
            "Recovery points:",
            "nightly/1 (full)",
            "PRAGMA integrity_check: ok",
            "restored content is identical",
        ],
    );
    assert_eq!(text.matches("nightly/1 (full)").count(), 1, "{text}");
}

#[test]
fn scattered_changes_are_told_beside_the_pages_that_differ() {
    let text = story("scattered", &["--megabytes", "4"]);
    for part in ["pages that differ: ", "bytes stored anew: "] {
        assert_eq!(text.matches(part).count(), 2, "{text}");
    }
}

#[test]
fn a_shop_comes_back_as_it_was_at_noon() {
    let output = run("pitr", &[]);
    let text = String::from_utf8(output.stdout).expect("an example prints text");
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("SKIPPED") {
        assert!(output.status.success(), "{stderr}");
        return;
    }
    assert!(output.status.success(), "{text}\n{stderr}");
    assert!(stderr.is_empty(), "{stderr}");
    check_lines(
        &text,
        &[
            "A server and an engine start.",
            "the plugin found postgres/shop/cluster",
            "skipped: no transaction has ended since the newest recovery point",
            "At noon there are 20750 orders.",
            "Noon is covered by afternoon/1.",
            "a server replayed the log up to noon: 20750 orders",
            "20000 orders",
            "restored content is identical",
        ],
    );
}

#[test]
fn no_example_has_the_plugin_inside() {
    assert!(contains(&library(), SYMBOL), "the plugin exports another symbol");
    for name in ["quickstart", "interrupted", "isolated", "scattered"] {
        assert!(!contains(&example(name), SYMBOL), "{name} was linked with the plugin");
    }
    let postgres = b"mercury_plugin_v1_plugin_postgres";
    assert!(!contains(&example("pitr"), postgres), "pitr was linked with the plugin");
}

#[test]
fn a_plugin_that_is_missing_is_said_so_with_advice() {
    let output = run("quickstart", &["--megabytes", "1", "--plugin", "/nowhere/libplugin.so"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    check_lines(
        &stderr,
        &[
            "Error: plugin /nowhere/libplugin.so: there is no such file",
            "kind: Plugin, code: plugin.missing",
            "advice: give the path of a Mercury plugin built for this agent",
        ],
    );
}

#[test]
fn mistakes_on_the_command_line_are_told_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let (refused, usage) = (Some(1), "the arguments, all of them optional, are");
    for (example, argument, code, said) in [
        ("quickstart", "--help", Some(0), usage),
        ("quickstart", "--wrong", refused, usage),
        ("quickstart", path, refused, "not a file"),
        ("quickstart", "/nowhere/a.db", refused, "/nowhere/a.db: No such file"),
        ("interrupted", path, refused, usage),
    ] {
        let output = run(example, &[argument]);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(output.status.code(), code, "{example} {argument}: {text}");
        assert!(text.contains(said), "{example} {argument}: {text}");
    }
}

#[test]
fn the_plugin_is_looked_for_beside_the_program() {
    let root = tempfile::tempdir().unwrap();
    let program = root.path().join("examples/quickstart");
    std::fs::create_dir(root.path().join("examples")).unwrap();
    std::fs::copy(example("quickstart"), &program).unwrap();
    let output = Command::new(&program).args(["--megabytes", "1"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("code: plugin.missing"), "{stderr}");

    std::fs::create_dir(root.path().join("deps")).unwrap();
    let name = library();
    std::fs::copy(&name, root.path().join("deps").join(name.file_name().unwrap())).unwrap();
    let output = Command::new(&program).args(["--megabytes", "1"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
