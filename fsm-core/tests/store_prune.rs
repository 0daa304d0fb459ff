//! What the SQLite journal forgets: in pieces, without keeping anybody waiting, and so that the
//! file stays bounded.
//!
//! `FSM_CORE_TRANSITIONS` says how many transitions the longest run takes (50,000 unless it is
//! set).
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.
#![cfg(feature = "sqlite")]

mod store_support;

use std::time::Duration;

use fsm_core::{
    Body, Ending, Journal, JournalError, Pruned, Retention, Timestamp,
    sqlite::{SqliteJournal, Store},
};
use futures::{
    executor::block_on,
    future::{Either, select},
};

use self::store_support::{enter, id, record};

const NOW: Timestamp = Timestamp::from_unix_ms(1_000_000);

struct Kept {
    directory: tempfile::TempDir,
    store: Store,
    journal: SqliteJournal,
}

impl Kept {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state.db")).unwrap();
        let journal = SqliteJournal::new(store.clone()).unwrap();
        Kept { directory, store, journal }
    }

    /// Takes `run` from one number to another, many records in one write.
    fn enter(&self, run: &str, from: u64, to: u64) {
        for first in (from..=to).step_by(100) {
            let records = (first..=to.min(first + 99)).map(|seq| enter(run, seq)).collect();
            block_on(self.journal.append(records)).unwrap();
        }
    }

    fn end(&self, run: &str, seq: u64) {
        let body = Body::End { ending: Ending::Completed, fault: None };
        block_on(self.journal.append(vec![record(run, seq, body)])).unwrap();
    }

    fn prune(&self, retention: Retention) -> Pruned {
        block_on(self.journal.prune(retention, NOW)).unwrap()
    }

    fn figure(&self, sql: &'static str) -> u64 {
        block_on(
            self.store
                .write(move |tx| Ok::<_, JournalError>(tx.query_row(sql, [], |row| row.get(0))?)),
        )
        .unwrap()
    }

    fn records(&self) -> u64 {
        self.figure("SELECT count(*) FROM fsm_record")
    }

    fn pages(&self) -> u64 {
        self.figure("PRAGMA page_count")
    }
}

#[test]
fn a_run_that_goes_on_for_ever_does_not_fill_the_disk() {
    let kept = Kept::new();
    let transitions = std::env::var("FSM_CORE_TRANSITIONS").map_or(50_000, |n| n.parse().unwrap());
    let retention = Retention::default().records_per_run(500);
    let mut pages = Vec::new();
    for first in (1..=transitions).step_by(1_000) {
        kept.enter("r", first, first + 999);
        kept.prune(retention);
        pages.push(kept.pages());
    }
    assert_eq!(kept.records(), 500);
    let last = *pages.last().unwrap();
    assert!(last <= pages[3], "{pages:?}");
    let path = kept.store.path().to_owned();
    let snapshot = block_on(kept.journal.load(&id("r"))).unwrap().unwrap();
    assert_eq!(snapshot.entry, snapshot.seq);
    drop((kept.journal, kept.store));
    assert!(std::fs::metadata(path).unwrap().len() <= last * 2048);
    drop(kept.directory);
}

#[test]
fn runs_that_come_and_go_do_not_fill_the_disk() {
    let kept = Kept::new();
    let retention = Retention::default().finished_count(50);
    let mut pages = Vec::new();
    for round in 0..20 {
        for run in 0..100 {
            let run = format!("run-{round}-{run}");
            let end = record(&run, 3, Body::End { ending: Ending::Completed, fault: None });
            block_on(kept.journal.append(vec![enter(&run, 1), enter(&run, 2), end])).unwrap();
        }
        kept.prune(retention);
        pages.push(kept.pages());
    }
    assert_eq!(kept.records(), 150);
    assert_eq!(kept.figure("SELECT count(*) FROM fsm_run"), 50);
    // Once a few rounds have gone by, it does not grow at all.
    assert_eq!(pages.last(), pages.get(9), "{pages:?}");
}

#[test]
fn appends_go_on_while_much_is_forgotten() {
    let kept = Kept::new();
    kept.enter("old", 1, 20_000);
    kept.end("old", 20_001);
    let before = kept.store.commits().0;
    let forget = kept.journal.prune(Retention::default().finished_for(Duration::ZERO), NOW);
    let (pruned, appended) = block_on(async {
        let (mut forget, mut appended) = (forget, 0);
        loop {
            let append = kept.journal.append(vec![enter("new", appended + 1)]);
            match select(forget, append).await {
                Either::Left((pruned, append)) => {
                    append.await.unwrap();
                    return (pruned.unwrap(), appended);
                }
                Either::Right((done, unfinished)) => {
                    done.unwrap();
                    (forget, appended) = (unfinished, appended + 1);
                }
            }
        }
    });
    assert_eq!((pruned.runs, pruned.records), (1, 20_001));
    assert!(kept.store.commits().0 - before > 20, "in pieces");
    assert!(appended >= 5, "{appended} in the meantime");
    assert_eq!(kept.records(), appended + 1);
}

/// Begins to prune and stops half-way, as if the process had died. Answers whether anything was
/// left to sweep.
fn stop_half_way(kept: &Kept, retention: Retention, appends: u64) -> bool {
    block_on(async {
        let mut prune = kept.journal.prune(retention, NOW);
        for seq in 1..=appends {
            let append = kept.journal.append(vec![enter("clock", seq)]);
            match select(prune, append).await {
                Either::Left(_) => break,
                Either::Right((_, unfinished)) => prune = unfinished,
            }
        }
    });
    kept.figure("SELECT count(*) FROM fsm_garbage") > 0
}

#[test]
fn what_an_interrupted_pruning_left_is_swept_by_the_next_one() {
    let mut interrupted = 0;
    for appends in 1..12 {
        let kept = Kept::new();
        kept.enter("ended", 1, 2_500);
        kept.end("ended", 2_501);
        kept.enter("long", 1, 4_000);
        let retention = Retention::default().finished_count(0).records_per_run(10);
        interrupted += u32::from(stop_half_way(&kept, retention, appends));

        let history = block_on(kept.journal.history(&id("long"))).unwrap();
        assert!(matches!(history.len(), 10 | 4_000), "{}", history.len());
        assert_eq!(block_on(kept.journal.load(&id("long"))).unwrap().unwrap().seq, 4_000);
        let ended = block_on(kept.journal.history(&id("ended"))).unwrap().len();
        assert!(matches!(ended, 0 | 2_501), "{ended}");
        let shown = kept.figure("SELECT count(*) FROM history WHERE run <> 'clock'");
        assert_eq!(shown, (ended + history.len()) as u64, "what was cut off is not seen");

        kept.prune(retention);
        assert_eq!(kept.figure("SELECT count(*) FROM history WHERE run = 'long'"), 10);
        assert_eq!(kept.figure("SELECT count(*) FROM fsm_garbage"), 0);
        let clock = kept.figure("SELECT count(*) FROM history WHERE run = 'clock'");
        assert_eq!(kept.records(), 10 + clock);
    }
    assert!(interrupted > 2, "{interrupted}");
}

#[test]
fn a_run_that_is_started_again_under_a_forgotten_name_begins_anew() {
    let kept = Kept::new();
    kept.enter("r", 1, 3);
    kept.end("r", 4);
    assert_eq!(kept.prune(Retention::default().finished_count(0)).records, 4);
    assert_eq!(block_on(kept.journal.head(&id("r"))).unwrap(), None);
    kept.enter("r", 1, 2);
    assert_eq!(store_support::check_history(&kept.journal, "r"), 2);
}

#[test]
fn a_child_is_not_forgotten_before_its_parent_has_ended() {
    let kept = Kept::new();
    kept.enter("parent", 1, 1);
    let mut first = enter("child", 1);
    let Body::Enter { carried, .. } = &mut first.body else { unreachable!() };
    carried.parent = Some(id("parent"));
    block_on(kept.journal.append(vec![first])).unwrap();
    kept.end("child", 2);
    let all = Retention::default().finished_count(0).finished_for(Duration::ZERO);
    assert_eq!(kept.prune(all), Pruned::default());
    kept.end("parent", 2);
    assert_eq!(kept.prune(all).runs, 2);
}

#[test]
fn a_damaged_run_is_not_shortened_and_keeps_nobody_from_it() {
    let kept = Kept::new();
    for run in ["damaged", "whole"] {
        kept.enter(run, 1, 20);
        let body = Body::Intent { effect: "effect".to_owned() };
        for seq in 21..=30 {
            block_on(kept.journal.append(vec![record(run, seq, body.clone())])).unwrap();
        }
    }
    let retention = Retention::default().records_per_run(15);
    let tool = store_support::tool(kept.store.path());
    let sql = "DELETE FROM fsm_record
               WHERE seq = 18 AND run_id = (SELECT id FROM fsm_run WHERE run = 'damaged')";
    assert_eq!(tool.execute(sql, []).unwrap(), 1);
    assert_eq!(kept.prune(retention).records, 15);
    assert_eq!(block_on(kept.journal.history(&id("whole"))).unwrap().len(), 15);
    assert!(block_on(kept.journal.history(&id("damaged"))).is_err());
    assert_eq!(block_on(kept.journal.load(&id("damaged"))).unwrap().unwrap().seq, 30);
}
