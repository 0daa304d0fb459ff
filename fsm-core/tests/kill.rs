//! A process that writes for a thousand runs at once, killed at random again and again: what was
//! acknowledged is there, once, and without a gap.
//!
//! `FSM_CORE_KILLS` says how often (200 times unless it is set), and `FSM_CORE_SEED` replays the
//! moments of a run of this test as far as a scheduler can be replayed.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.
#![cfg(all(feature = "sqlite", unix))]

mod store_support;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::Path,
    process::Stdio,
    time::Duration,
};

use fsm_core::{Journal, Page};
use futures::{executor::block_on, future::join_all};

use self::store_support::{
    Dice, check_history,
    child::{child, file},
    enter, id, open,
};

const RUNS: usize = 1_000;
/// The line with which a child says that it is about to write.
const READY: &str = "ready";

fn name(run: usize) -> String {
    format!("run-{run:04}")
}

/// Not a test of its own: takes all runs further, each from where it stands, until it is killed.
#[test]
#[ignore = "the child process of `what_was_acknowledged_survives_any_kill`"]
fn child_that_writes_until_it_is_killed() {
    let journal = open(&file()).unwrap();
    let said = std::io::stdout();
    writeln!(&said, "\n{READY}").unwrap();
    let runs = (0..RUNS).map(|run| {
        let (journal, said) = (&journal, &said);
        async move {
            let mut seq = journal.head(&id(&name(run))).await.unwrap().unwrap_or(0);
            loop {
                seq += 1;
                journal.append(vec![enter(&name(run), seq)]).await.unwrap();
                // One short write to a pipe: all of it gets there, or nothing.
                said.lock().write_all(format!("{run} {seq}\n").as_bytes()).unwrap();
            }
        }
    });
    block_on(join_all(runs));
}

/// What a killed child has acknowledged: the last number of each run.
fn acknowledged(said: &str) -> BTreeMap<usize, u64> {
    let mut last = BTreeMap::new();
    let mut lines = said.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.by_ref().find(|line| line.trim() == READY);
    for line in lines {
        let (run, seq) = line.trim().split_once(' ').unwrap();
        let (run, seq) = (run.parse().unwrap(), seq.parse().unwrap());
        let before = last.insert(run, seq);
        assert!(before.is_none_or(|before| seq == before + 1), "{run}: {seq} after {before:?}");
    }
    last
}

/// Lets a child write for `time`, and kills it.
fn kill_after(path: &Path, time: Duration) -> BTreeMap<usize, u64> {
    let mut child = child("child_that_writes_until_it_is_killed", path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        output.read_to_end(&mut said).unwrap();
        String::from_utf8(said).unwrap()
    });
    // Not a wait for something: the moment is the experiment.
    std::thread::sleep(time);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.code().is_none(), "it ended by itself: {status}");
    acknowledged(&reader.join().unwrap())
}

#[test]
fn what_was_acknowledged_survives_any_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let kills: u32 = std::env::var("FSM_CORE_KILLS").map_or(200, |kills| kills.parse().unwrap());
    let mut dice = Dice::new();
    let mut seen = BTreeMap::new();
    let mut total = 0;
    for kill in 1..=kills {
        let told = kill_after(&path, Duration::from_millis(5 + dice.below(120)));
        total += told.len();
        seen.extend(told);
        // What a restart sees. It must be what the last child left, so it is read first.
        let journal = open(&path).unwrap();
        let found = block_on(journal.unfinished(None, usize::MAX)).unwrap();
        let heads: BTreeMap<_, _> = found
            .into_iter()
            .map(|found| (found.run.clone(), found.snapshot.unwrap().seq))
            .collect();
        for (&run, &seq) in &seen {
            let head = heads.get(&id(&name(run))).copied().unwrap_or(0);
            assert!(head >= seq, "kill {kill}: {} has {head} of {seq}", name(run));
        }
        // Each record of a sample of them; of all, at the end.
        for _ in 0..5 {
            check_history(&journal, &name(dice.below(RUNS as u64) as usize));
        }
    }
    let journal = open(&path).unwrap();
    let records: u64 = (0..RUNS).map(|run| check_history(&journal, &name(run))).sum();
    let listed = block_on(journal.list(Page::default().limit(usize::MAX))).unwrap();
    for run in seen.keys() {
        let name = name(*run);
        assert!(listed.iter().any(|listed| listed.run.as_str() == name), "{name} was started");
    }
    let tool = store_support::tool(&path);
    let count = |sql: &str| tool.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM fsm_record"), records, "none is there twice");
    assert_eq!(
        count("SELECT count(*) FROM (SELECT DISTINCT run_id, seq FROM fsm_record)"),
        records
    );
    println!("{kills} kills, {total} acknowledged heads, {records} records");
    assert!(total > 0, "nothing was written");
}
