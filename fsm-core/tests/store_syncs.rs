//! How often the disk is asked: once for a commit that stands alone, and far less often for many
//! at a time. Counted by `strace`, from outside.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.
#![cfg(all(feature = "sqlite", target_os = "linux"))]

mod store_support;

use std::process::Command;

use fsm_core::{
    Journal,
    sqlite::{SqliteJournal, Store},
};
use futures::{executor::block_on, future::join_all};

use self::store_support::{
    check_history,
    child::{file, may_skip, wrapped},
    enter, open,
};

const COMMITS: u64 = 500;
const WRITERS: u64 = 64;
const EACH: u64 = 50;

/// Not a test of its own: commits in sequence.
#[test]
#[ignore = "the child process of another test"]
fn child_that_commits_in_sequence() {
    let store = Store::open(&file()).unwrap();
    let journal = SqliteJournal::new(store.clone()).unwrap();
    let before = store.commits().0;
    for seq in 1..=COMMITS {
        block_on(journal.append(vec![enter("r", seq)])).unwrap();
    }
    assert_eq!(store.commits().0 - before, COMMITS, "each is a transaction of its own");
}

/// Not a test of its own: commits for many runs at the same time.
#[test]
#[ignore = "the child process of another test"]
fn child_that_commits_for_many() {
    let store = Store::open(&file()).unwrap();
    let journal = SqliteJournal::new(store.clone()).unwrap();
    let before = store.commits();
    let writers = (0..WRITERS).map(|writer| {
        let journal = &journal;
        async move {
            for seq in 1..=EACH {
                journal.append(vec![enter(&format!("run-{writer}"), seq)]).await.unwrap();
            }
        }
    });
    block_on(join_all(writers));
    let after = store.commits();
    assert_eq!(after.1 - before.1, WRITERS * EACH, "appends");
    assert!(after.0 - before.0 <= WRITERS * EACH / 4, "{} transactions", after.0 - before.0);
}

/// How many syncs a child needs; `None` where strace is missing or may not trace.
fn syncs(name: &str) -> Option<(tempfile::TempDir, usize)> {
    let what = "the number of syncs: strace cannot be run";
    match Command::new("strace").args(["-o", "/dev/null", "true"]).output() {
        Ok(output) if output.status.success() => {}
        // A sandbox that forbids tracing is none of the installation's faults.
        Ok(output) => {
            eprintln!("SKIPPED: {what}: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Err(error) if may_skip(what, &error) => return None,
        Err(error) => panic!("{what}: {error}"),
    }
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let wrapper = ["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", trace.to_str().unwrap()];
    let output = wrapped(&wrapper, name, &directory.path().join("state.db")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let trace = std::fs::read_to_string(trace).unwrap();
    // A call that another thread's line cuts in two is there twice, and counted where it begins.
    let begins = |line: &&str| line.contains("fsync(") || line.contains("fdatasync(");
    let count = trace.lines().filter(begins).count();
    println!("{name}: {count} syncs");
    Some((directory, count))
}

#[test]
fn each_commit_that_stands_alone_is_synced() {
    let Some((directory, syncs)) = syncs("child_that_commits_in_sequence") else { return };
    assert!(syncs >= COMMITS as usize, "{syncs} syncs of {COMMITS} commits");
    assert_eq!(check_history(&open(&directory.path().join("state.db")).unwrap(), "r"), COMMITS);
}

#[test]
fn those_who_commit_at_the_same_time_share_syncs() {
    let Some((directory, syncs)) = syncs("child_that_commits_for_many") else { return };
    let commits = (WRITERS * EACH) as usize;
    assert!(syncs < commits / 4, "{syncs} syncs of {commits} commits");
    assert!(syncs as u64 >= EACH, "{syncs} syncs cannot be all");
    let journal = open(&directory.path().join("state.db")).unwrap();
    for writer in 0..WRITERS {
        assert_eq!(check_history(&journal, &format!("run-{writer}")), EACH);
    }
}
