//! Faults below SQLite: each write and each sync of the state file made to fail in turn, and a
//! sync that does not return.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.
#![cfg(all(feature = "sqlite", target_os = "linux"))]

mod store_support;

use std::path::{Path, PathBuf};

use fsm_core::{
    Journal, Page,
    sqlite::{SqliteJournal, Store},
};
use futures::{FutureExt, executor::block_on};

use self::store_support::{
    append, check_history,
    child::{child, file},
    enter, enter_with, id, open,
    shim::Shim,
};

const RUN: &str = "r";
const APPENDS: u64 = 6;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Not a test of its own: commits in sequence, and says what it hears.
#[test]
#[ignore = "the child process of other tests"]
fn child_that_commits() {
    let journal = match Store::open(&file()) {
        Ok(store) => SqliteJournal::new(store.clone()).map(|journal| (store, journal)),
        Err(error) => Err(error),
    };
    let (store, journal) = match journal {
        Ok(opened) => opened,
        Err(error) => return println!("\nheard {:?}", error.kind()),
    };
    let mut seq = block_on(journal.head(&id(RUN))).unwrap().unwrap_or(0);
    for n in 0..APPENDS {
        match append(&journal, enter_with(RUN, seq + 1, 3_000)) {
            Ok(()) => {
                seq += 1;
                println!("\nacknowledged {seq}");
            }
            Err(error) => println!("\nheard {:?}", error.kind()),
        }
        if n == APPENDS / 2
            && let Err(error) = block_on(store.checkpoint())
        {
            println!("\nheard {:?}", error.kind());
        }
    }
    if std::env::var_os("SHIM_LOG").is_some_and(|log| Path::new(&log).exists()) {
        println!("\nfailed before it was closed");
    }
    if std::env::var_os(DIES).is_some() {
        // The log stays behind, as after a crash.
        std::process::exit(0);
    }
}

const DIES: &str = "FSM_CORE_TEST_DIES";

/// How a call fails.
#[derive(Clone, Copy, Debug)]
struct Fault {
    errno: i32,
    sticky: bool,
}

/// What a child has said.
#[derive(Debug, Default)]
struct Said {
    acknowledged: u64,
    /// What its callers heard, from the first failure on.
    heard: Vec<String>,
    /// Acknowledgements after a failure.
    later: Vec<u64>,
    before_close: bool,
}

impl Said {
    fn parse(output: &str) -> Self {
        let mut said = Said::default();
        for line in output.lines() {
            match line.split_once(' ') {
                Some(("acknowledged", seq)) => {
                    said.acknowledged = seq.parse().unwrap();
                    if !said.heard.is_empty() {
                        said.later.push(said.acknowledged);
                    }
                }
                Some(("heard", kind)) => said.heard.push(kind.to_owned()),
                Some(("failed", _)) => said.before_close = true,
                _ => {}
            }
        }
        said
    }
}

/// Runs a child over the files in `directory`, the `n`th call of which fails. Answers what it
/// said, and which call that was; `None` if there was no such call.
fn fail(shim: &Shim, directory: &Path, n: u32, fault: Fault) -> (Said, Option<String>) {
    let (path, log) = (directory.join("state.db"), Shim::log(directory));
    let mut command = child("child_that_commits", &path);
    shim.under(&mut command, &path);
    command
        .env("SHIM_FAIL", n.to_string())
        .env("SHIM_ERRNO", fault.errno.to_string())
        .env("SHIM_LOG", &log);
    if fault.sticky {
        command.env("SHIM_STICKY", "1");
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "call {n}, {fault:?}: {said}{complained}");
    (Said::parse(&said), std::fs::read_to_string(log).ok())
}

/// Makes each call fail in turn, until a child meets no fault: over a new file, and over one that
/// a crash has left with its log. `check` is told what failed and what the child said.
fn fail_each(fault: Fault, check: impl Fn(&str, &Said)) {
    let Some(shim) = Shim::build() else { return };
    for before in [0, APPENDS] {
        let mut n = 0;
        loop {
            n += 1;
            assert!(n < 1_000, "there is no end");
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("state.db");
            if before > 0 {
                let died = child("child_that_commits", &path).env(DIES, "1").output().unwrap();
                assert!(died.status.success());
                assert!(path.with_extension("db-wal").exists(), "there is a log to recover");
            }
            let (said, failed) = fail(&shim, directory.path(), n, fault);
            let kept = check_history(&open(&path).unwrap(), RUN);
            let acknowledged = said.acknowledged.max(before);
            let Some(failed) = failed else {
                assert_eq!(said.heard, Vec::<String>::new(), "call {n}");
                assert_eq!((kept, acknowledged), (before + APPENDS, before + APPENDS));
                assert!(n > 20, "that cannot be all of them");
                break;
            };
            let what = format!("call {n} after {before}, {fault:?}: {failed}");
            println!("{what}{said:?}");
            assert!(
                kept == acknowledged || (kept == acknowledged + 1 && !said.heard.is_empty()),
                "{what}: {kept} of {said:?}"
            );
            check(&what, &said);
        }
    }
}

/// One caller hears of the failure, all later ones that the journal has to be opened again.
fn check_fail_stop(what: &str, said: &Said) {
    assert_eq!(said.later, Vec::<u64>::new(), "{what}: {said:?}");
    match said.heard.split_first() {
        None => assert!(!said.before_close, "{what}: nobody heard of it"),
        Some((first, rest)) => {
            assert_eq!(first, "Storage", "{what}: {said:?}");
            assert!(rest.iter().all(|kind| kind == "Poisoned"), "{what}: {said:?}");
        }
    }
}

#[test]
fn after_a_failed_write_or_sync_nothing_is_acknowledged() {
    fail_each(Fault { errno: EIO, sticky: true }, check_fail_stop);
}

#[test]
fn a_write_or_sync_that_fails_once_is_not_tried_again() {
    fail_each(Fault { errno: EIO, sticky: false }, check_fail_stop);
}

/// A write for which there is no space is told as such. A sync that fails is a failed sync, whatever
/// the reason.
fn check_full(what: &str, said: &Said) {
    if !what.contains(": write") || what.contains("-shm") {
        return check_fail_stop(what, said);
    }
    assert!(!said.heard.is_empty() || !said.before_close, "{what}: nobody heard of it");
    assert!(said.heard.iter().all(|kind| kind == "Full"), "{what}: {said:?}");
}

#[test]
fn a_medium_without_space_loses_nothing() {
    fail_each(Fault { errno: ENOSPC, sticky: true }, |what, said| {
        if !said.heard.iter().any(|kind| kind == "Full") {
            check_fail_stop(what, said);
        }
    });
}

#[test]
fn when_there_is_space_again_the_same_append_works() {
    fail_each(Fault { errno: ENOSPC, sticky: false }, |what, said| {
        check_full(what, said);
        // Unless it could not even be opened, one append failed, or none but the checkpoint.
        if said.heard == ["Full"] && said.acknowledged > 0 {
            let failed = APPENDS - 1 - (said.acknowledged - 1) % APPENDS;
            assert!(failed <= 1, "{what}: {said:?}");
        }
    });
}

/// Syncs wait while there is one.
struct Gate(PathBuf);

impl Gate {
    fn shut() -> Self {
        let gate = PathBuf::from(std::env::var_os("SHIM_GATE").unwrap());
        std::fs::write(&gate, "").unwrap();
        Gate(gate)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// Not a test of its own: appends while the disk stands still.
#[test]
#[ignore = "the child process of `nothing_is_acknowledged_before_its_sync_returns`"]
fn child_whose_disk_stands_still() {
    let journal = open(&file()).unwrap();
    append(&journal, enter(RUN, 1)).unwrap();
    let gate = Gate::shut();
    let waiting = gate.0.with_extension("gate.waiting");
    let mut second = journal.append(vec![enter(RUN, 2)]);
    while !waiting.exists() {
        std::thread::yield_now();
    }
    let mut third = journal.append(vec![enter(RUN, 3)]);
    for _ in 0..100 {
        assert!(second.as_mut().now_or_never().is_none(), "the sync has not returned");
        assert!(third.as_mut().now_or_never().is_none());
        assert_eq!(block_on(journal.load(&id(RUN))).unwrap().unwrap().seq, 1);
        assert_eq!(block_on(journal.list(Page::default())).unwrap().len(), 1);
        assert_eq!(block_on(journal.unfinished(None, 10)).unwrap().len(), 1);
    }
    drop(gate);
    block_on(second).unwrap();
    block_on(third).unwrap();
    assert_eq!(check_history(&journal, RUN), 3);
}

#[test]
fn nothing_is_acknowledged_before_its_sync_returns_and_reading_goes_on() {
    let Some(shim) = Shim::build() else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let mut command = child("child_whose_disk_stands_still", &path);
    shim.under(&mut command, &path);
    let output = command.env("SHIM_GATE", directory.path().join("shim.gate")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
}
