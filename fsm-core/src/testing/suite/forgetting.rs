//! What is promised of forgetting.

use std::time::Duration;

use futures::{executor::block_on, future::join};

use super::{
    Behaviour,
    bench::{Bench, Open, Run, START, ensure, numbered},
};
use crate::{Carried, Child, Pruned, Retention, RunId, Timestamp};

pub(super) const ALL: &[Behaviour] = &[
    Behaviour {
        name: "keeps_by_default",
        says: "nothing is forgotten unless retention says so",
        test: |bench| keeps_by_default(bench).into(),
    },
    Behaviour {
        name: "prune_by_age",
        says: "runs that ended too long ago are forgotten, and no others",
        test: |bench| prune_by_age(bench).into(),
    },
    Behaviour {
        name: "prune_by_count",
        says: "of the runs that have ended those that ended last are kept",
        test: |bench| prune_by_count(bench).into(),
    },
    Behaviour {
        name: "prune_children",
        says: "a child is not forgotten before its parent has ended",
        test: |bench| prune_children(bench).into(),
    },
    Behaviour {
        name: "prune_records",
        says: "a run's oldest records are forgotten, up to its last entry, and it still loads",
        test: |bench| prune_records(bench).into(),
    },
    Behaviour {
        name: "prune_meanwhile",
        says: "appends go on while something is forgotten",
        test: |bench| prune_meanwhile(bench).into(),
    },
];

/// Long after every run of the suite.
const LATER: Timestamp = Timestamp::from_unix_ms(START.as_unix_ms() + 1_000_000_000);

fn prune(journal: &Open, retention: Retention, now: Timestamp) -> Result<Pruned, String> {
    let pruned = block_on(journal.0.prune(retention, now));
    pruned.map_err(|error| format!("it failed: {error}"))
}

/// Prunes, and looks whether as much was forgotten as it says, and as it should.
fn forgets(
    journal: &Open,
    retention: Retention,
    now: Timestamp,
    runs: u64,
    records: u64,
) -> Result<(), String> {
    let pruned = prune(journal, retention, now)?;
    let right = Pruned { runs, records };
    ensure(pruned == right, format!("it says {pruned:?} instead of {right:?}"))
}

fn after(secs: u64) -> Timestamp {
    START + Duration::from_secs(secs)
}

fn keeps_by_default(bench: &Bench<'_>) -> Result<(), String> {
    let (ended, active) = (Run::new("ended").enter().end(), Run::new("active").enter().intent("e"));
    let journal = bench.open();
    journal.append(&ended.records)?;
    journal.append(&active.records)?;
    forgets(&journal, Retention::default(), LATER, 0, 0)?;
    journal.holds(&ended.records)?;
    journal.holds(&active.records)
}

fn prune_by_age(bench: &Bench<'_>) -> Result<(), String> {
    let old = Run::new("old").intent("e").end_at(after(100));
    let young = Run::new("young").end_at(after(101));
    let active = Run::new("active").intent("e");
    let journal = bench.open();
    for run in [&old, &young, &active] {
        journal.append(&run.records)?;
    }
    let hour = Retention::default().finished_for(Duration::from_secs(3600));
    forgets(&journal, hour, after(3700), 0, 0)?;
    forgets(&journal, hour, after(3701), 1, 3)?;
    drop(journal);
    let journal = bench.open();
    journal.lacks(&old.id)?;
    journal.holds(&young.records)?;
    journal.holds(&active.records)?;
    // What is forgotten may begin anew.
    journal.append(&Run::new("old").records)?;
    journal.holds(&Run::new("old").records)
}

fn prune_by_count(bench: &Bench<'_>) -> Result<(), String> {
    // The order in which they end is not that of their ids.
    let ended = |number: usize| {
        let run = Run::new(&numbered("ended/", number));
        run.end_at(after(100 + (number as u64 * 7) % 5))
    };
    let runs: Vec<_> = (0..5).map(ended).collect();
    let active = Run::new("active");
    let journal = bench.open();
    runs.iter().try_for_each(|run| journal.append(&run.records))?;
    journal.append(&active.records)?;
    forgets(&journal, Retention::default().finished_count(5), LATER, 0, 0)?;
    forgets(&journal, Retention::default().finished_count(2), LATER, 3, 6)?;
    let mut by_end: Vec<_> = runs.iter().collect();
    by_end.sort_by_key(|run| run.records[1].at);
    by_end[..3].iter().try_for_each(|run| journal.lacks(&run.id))?;
    by_end[3..].iter().try_for_each(|run| journal.holds(&run.records))?;
    forgets(&journal, Retention::default().finished_count(0), LATER, 2, 4)?;
    journal.holds(&active.records)
}

fn prune_children(bench: &Bench<'_>) -> Result<(), String> {
    let named = |id: &str| RunId::new(id).unwrap_or_else(|_| unreachable!("a word names a run"));
    let child = |parent: &str, key: &str| {
        let carried = Carried { parent: Some(named(parent)), ..Carried::default() };
        Run::carrying(&format!("{parent}/1/{key}"), carried).end()
    };
    let has =
        |key: &str| Child { key: key.to_owned(), run: named(&format!("p/1/{key}")), end: None };
    let carried = Carried { children: vec![has("a"), has("b")], ..Carried::default() };
    let parent = Run::new("p").entering(crate::Data::default(), carried);
    let (a, b, orphan) = (child("p", "a"), child("p", "b"), child("gone", "a"));
    let journal = bench.open();
    for run in [&parent, &a, &b, &orphan] {
        journal.append(&run.records)?;
    }
    let nothing = Retention::default().finished_count(0).finished_for(Duration::ZERO);
    // The orphan's parent was forgotten before, so nobody needs it.
    forgets(&journal, nothing, LATER, 1, 2)?;
    journal.lacks(&orphan.id)?;
    for run in [&parent, &a, &b] {
        journal.holds(&run.records)?;
    }
    let parent = parent.end();
    journal.append(parent.last())?;
    prune(&journal, nothing, LATER)?;
    // The children may take one more prune than their parent.
    prune(&journal, nothing, LATER)?;
    [&parent, &a, &b].into_iter().try_for_each(|run| journal.lacks(&run.id))
}

fn prune_records(bench: &Bench<'_>) -> Result<(), String> {
    let long = (0..10).fold(Run::new("long"), |run, _| run.intent("e").enter()).intent("f");
    let deep = (0..9).fold(Run::new("deep"), |run, number| run.intent(&numbered("e", number)));
    let ended = (0..5).fold(Run::new("ended"), |run, _| run.enter()).end();
    let journal = bench.open();
    for run in [&long, &deep, &ended] {
        journal.append(&run.records)?;
    }
    // 22 records, 10, and 7, of which the first entry, and the last two, are needed.
    forgets(&journal, Retention::default().records_per_run(4), LATER, 0, 18 + 3)?;
    forgets(&journal, Retention::default().records_per_run(1), LATER, 0, 2 + 2)?;
    for (run, kept) in [(&long, 2), (&deep, 10), (&ended, 2)] {
        let (id, count) = (&run.id, run.records.len());
        let history = journal.history(id)?;
        let right = &run.records[count - kept..];
        ensure(history == right, format!("of `{id}` there are {} records", history.len()))?;
        ensure(journal.load(id)? == Some(run.snapshot()?), format!("`{id}` loads as another"))?;
        ensure(journal.head(id)? == Some(count as u64), format!("`{id}` has another head"))?;
    }
    let next = long.enter();
    journal.append(next.last())?;
    let loaded = journal.load(&next.id)?;
    ensure(loaded == Some(next.snapshot()?), "the run does not go on")
}

fn prune_meanwhile(bench: &Bench<'_>) -> Result<(), String> {
    let journal = bench.open();
    let ended: Vec<_> = (0..50).map(|number| Run::new(&numbered("ended/", number)).end()).collect();
    ended.iter().try_for_each(|run| journal.append(&run.records))?;
    let run = (0..50).fold(Run::new("active"), |run, _| run.enter());
    let writes = async {
        for record in &run.records {
            journal.0.append(vec![record.clone()]).await?;
        }
        Ok::<_, crate::JournalError>(())
    };
    let nothing = Retention::default().finished_count(0);
    let (pruned, written) = block_on(join(journal.0.prune(nothing, LATER), writes));
    pruned.map_err(|error| format!("it failed: {error}"))?;
    written.map_err(|error| format!("a write was refused: {error}"))?;
    journal.holds(&run.records)?;
    ended.iter().try_for_each(|run| journal.lacks(&run.id))
}
