//! What is promised when a medium is damaged.

use super::{
    Behaviour,
    bench::{Bench, Run, Tried, ensure},
};
use crate::{JournalErrorKind, testing::Damage};

pub(super) const ALL: &[Behaviour] = &[
    Behaviour {
        name: "missing_record",
        says: "a run of which a record is missing is named as damaged, and hides no other",
        test: |bench| named(bench, Damage::Remove, &[3, 4]),
    },
    Behaviour {
        name: "altered_record",
        says: "a run of which a record is rubbish is named as damaged, and hides no other",
        test: |bench| named(bench, Damage::Alter, &[2, 3, 5]),
    },
];

/// Damages one record after another, each of a run of its own between two others.
fn named(bench: &Bench<'_>, damage: Damage, seqs: &[u64]) -> Tried {
    for &seq in seqs {
        match one(bench, damage, seq) {
            Ok(true) => {}
            Ok(false) => return Tried::Skipped,
            Err(how) => return Tried::Broken(format!("record {seq}, {damage:?}: {how}")),
        }
    }
    Tried::Kept
}

fn one(bench: &Bench<'_>, damage: Damage, seq: u64) -> Result<bool, String> {
    let run = |place: &str| {
        let run = Run::new(&format!("{damage:?}/{seq}/{place}"));
        run.enter().intent("e").intent("f").intent("g")
    };
    let (before, hurt, after) = (run("a"), run("b"), run("c"));
    let journal = bench.open();
    for run in [&before, &hurt, &after] {
        journal.append(&run.records)?;
    }
    let Some(journal) = bench.damaged(journal, &hurt.id, seq, damage) else { return Ok(false) };
    match futures::executor::block_on(journal.0.load(&hurt.id)) {
        Err(error) if error.kind() == JournalErrorKind::Damaged => {
            let names = error.to_string().contains(hurt.id.as_str());
            ensure(names, format!("the error does not name the run: {error}"))?;
        }
        Err(error) => return Err(format!("loading says {error}")),
        Ok(loaded) => return Err(format!("it loads as {loaded:?}")),
    }
    if damage == Damage::Alter {
        let history = futures::executor::block_on(journal.0.history(&hurt.id));
        ensure(history.is_err(), "its history is read as if nothing had happened")?;
    }
    let unfinished = journal.unfinished(Some(&before.id), 2)?;
    let found: Vec<_> =
        unfinished.iter().map(|loaded| (&loaded.run, loaded.snapshot.is_ok())).collect();
    let right = [(&hurt.id, false), (&after.id, true)];
    ensure(found == right, format!("a restart finds {found:?} instead of {right:?}"))?;
    for neighbour in [before, after] {
        journal.holds(&neighbour.records)?;
        let next = neighbour.enter();
        journal.append(next.last())?;
        journal.holds(&next.records)?;
    }
    Ok(true)
}
