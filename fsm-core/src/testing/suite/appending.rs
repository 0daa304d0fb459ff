//! What is promised of writing.

use std::thread;

use futures::{FutureExt, executor::block_on, future::try_join_all};

use super::{
    Behaviour,
    bench::{Bench, Run, START, ensure, fault, numbered},
};
use crate::{Body, Carried, Child, Data, End, Ending, Pending, Record, RunId};

pub(super) const ALL: &[Behaviour] = &[
    Behaviour {
        name: "durable",
        says: "what was acknowledged is there when the journal is opened again",
        test: |bench| durable(bench).into(),
    },
    Behaviour {
        name: "faithful",
        says: "every kind of record comes back as it was written",
        test: |bench| faithful(bench).into(),
    },
    Behaviour {
        name: "batches",
        says: "a batch of several runs is one write",
        test: |bench| batches(bench).into(),
    },
    Behaviour {
        name: "empty_batch",
        says: "a write of nothing succeeds",
        test: |bench| empty_batch(bench).into(),
    },
    Behaviour {
        name: "no_duplicate",
        says: "a second record of one number is refused as a conflict, with all of its batch",
        test: |bench| no_duplicate(bench).into(),
    },
    Behaviour {
        name: "no_gap",
        says: "a record that does not follow its run's last one is refused, with all of its batch",
        test: |bench| no_gap(bench).into(),
    },
    Behaviour {
        name: "one_of_two",
        says: "of two writers of one record one is refused",
        test: |bench| one_of_two(bench).into(),
    },
    Behaviour {
        name: "concurrent",
        says: "runs are written side by side",
        test: |bench| concurrent(bench).into(),
    },
    Behaviour {
        name: "dropped_write",
        says: "a write whose future is dropped is whole or not there, and hinders nobody",
        test: |bench| dropped_write(bench).into(),
    },
    Behaviour {
        name: "long_ids",
        says: "an id has up to 200 bytes, and each of them counts",
        test: |bench| long_ids(bench).into(),
    },
    Behaviour {
        name: "any_data",
        says: "data is bytes, text or not, up to a mebibyte and more",
        test: |bench| any_data(bench).into(),
    },
];

fn durable(bench: &Bench<'_>) -> Result<(), String> {
    let mut run = Run::new("durable");
    bench.open().append(&run.records)?;
    for _ in 0..3 {
        bench.open().holds(&run.records)?;
        run = run.intent("effect").enter();
        bench.open().append(&run.records[run.records.len() - 2..])?;
    }
    run = run.end();
    bench.open().append(run.last())?;
    bench.open().holds(&run.records)
}

/// A run that has been through everything.
fn eventful() -> Run {
    let id = |text: &str| RunId::new(text).unwrap_or_else(|_| unreachable!("a word names a run"));
    let end = |ending, fault| End {
        ending,
        state: "done".to_owned(),
        data: Data::from_bytes(vec![0, 255]),
        fault,
    };
    let child = |key: &str, end| Child { key: key.to_owned(), run: id(key), end };
    let signal = |id: &str| Pending {
        id: id.to_owned(),
        name: "approval".to_owned(),
        data: Data::from_bytes(b"\"yes\"".to_vec()),
    };
    let carried = Carried {
        asked: Some("a reason, `quoted`".to_owned()),
        cancel: Some("a reason, `quoted`".to_owned()),
        deadline: Some(START),
        parent: Some(id("parent")),
        paused: Some(fault()),
        children: vec![
            child("first", None),
            child("second", Some(end(Ending::Failed, Some(fault())))),
        ],
        signals: vec![signal("s1")],
        heard: vec!["s0".to_owned(), "s1".to_owned()],
    };
    let failed = Body::End { ending: Ending::Failed, fault: Some(fault()) };
    Run::new("eventful")
        .entering(Data::from_bytes(b"[1,2]".to_vec()), carried)
        .intent("once")
        .with(Body::Result { effect: "once".to_owned(), data: Data::from_bytes(vec![1, 0, 200]) })
        .with(Body::Attempt { attempt: 1, fault: fault(), next_at: START })
        .with(Body::Signal(signal("s2")))
        .with(Body::ChildEnded { run: id("first"), end: end(Ending::Completed, None) })
        .with(Body::Pause { fault: fault(), between_steps: true })
        .with(Body::Resume)
        .with(Body::Cancel { reason: "enough".to_owned() })
        .with(Body::Deadline)
        .with(failed.clone())
        .with(Body::Redrive)
        .with(failed)
}

fn faithful(bench: &Bench<'_>) -> Result<(), String> {
    let run = eventful();
    let journal = bench.open();
    // The state after each record, not only after the last one.
    for count in 1..=run.records.len() {
        journal.append(&run.records[count - 1..count])?;
        journal.holds(&run.records[..count])?;
    }
    drop(journal);
    bench.open().holds(&run.records)
}

fn batches(bench: &Bench<'_>) -> Result<(), String> {
    let (one, other) = (Run::new("one").intent("e").enter(), Run::new("other").end());
    // Interleaved: each run's own records are in order.
    let mut batch = one.records.clone();
    batch.insert(1, other.records[0].clone());
    batch.insert(3, other.records[1].clone());
    bench.open().append(&batch)?;
    let journal = bench.open();
    journal.holds(&one.records)?;
    journal.holds(&other.records)
}

fn empty_batch(bench: &Bench<'_>) -> Result<(), String> {
    let journal = bench.open();
    journal.append(&[])?;
    let none = journal.unfinished(None, 10)?.is_empty();
    ensure(none, "there is a run after a write of nothing")
}

/// Writes `batch`, which is to be refused, and looks whether anything of it is left and whether
/// the journal goes on.
fn refused(bench: &Bench<'_>, there: &Run, batch: &[Record], new: &Run) -> Result<(), String> {
    let journal = bench.open();
    journal.refuses(batch)?;
    journal.holds(&there.records).map_err(|how| format!("after the refusal {how}"))?;
    journal.lacks(&new.id).map_err(|how| format!("after the refusal {how}"))?;
    let next = there.clone().enter();
    journal.append(next.last()).map_err(|how| format!("after the refusal {how}"))?;
    drop(journal);
    let journal = bench.open();
    journal.holds(&next.records)?;
    journal.lacks(&new.id)
}

fn no_duplicate(bench: &Bench<'_>) -> Result<(), String> {
    let (there, new) = (Run::new("there").intent("e"), Run::new("new"));
    bench.open().append(&there.records)?;
    let twin = Run::new("there").enter();
    refused(bench, &there, &[&new.records[..], &twin.records[1..]].concat(), &new)?;
    // Also when both stand in one batch, or the first record of a run is written again.
    let (there, new) = (Run::new("more").intent("e"), Run::new("new"));
    bench.open().append(&there.records)?;
    let twins = [new.records[0].clone(), new.records[0].clone()];
    refused(bench, &there, &twins, &new)?;
    bench.open().refuses(&Run::new("there").records)
}

fn no_gap(bench: &Bench<'_>) -> Result<(), String> {
    let (there, new) = (Run::new("there").intent("e"), Run::new("new"));
    bench.open().append(&there.records)?;
    let later = there.clone().intent("f").intent("g");
    refused(bench, &there, &[&new.records[..], later.last()].concat(), &new)?;
    // A run begins with its first record.
    let (there, new) = (Run::new("more"), Run::new("new").enter());
    bench.open().append(&there.records)?;
    refused(bench, &there, new.last(), &new)
}

fn one_of_two(bench: &Bench<'_>) -> Result<(), String> {
    let journal = bench.open();
    let mut run = Run::new("contended");
    journal.append(&run.records)?;
    for round in 0..20 {
        let rivals = [run.clone().intent("left"), run.clone().intent("right")];
        let written = thread::scope(|scope| {
            let writers = rivals.each_ref().map(|rival| {
                let journal = &journal;
                scope.spawn(move || journal.try_append(rival.last()).is_ok())
            });
            writers.map(|writer| writer.join().unwrap_or(false))
        });
        let winner = match written {
            [true, false] => 0,
            [false, true] => 1,
            _ => return Err(format!("round {round}: acknowledged {written:?}")),
        };
        let [left, right] = rivals;
        run = if winner == 0 { left } else { right };
        journal.holds(&run.records)?;
    }
    Ok(())
}

fn concurrent(bench: &Bench<'_>) -> Result<(), String> {
    let runs: Vec<_> = (0..64)
        .map(|number| {
            let run = Run::new(&numbered("side-by-side/", number));
            (0..7).fold(run, |run, _| run.intent("e").enter())
        })
        .collect();
    let journal = bench.open();
    let writes = runs.iter().map(|run| async {
        for record in &run.records {
            journal.0.append(vec![record.clone()]).await?;
        }
        Ok::<_, crate::JournalError>(())
    });
    block_on(try_join_all(writes)).map_err(|error| format!("a write was refused: {error}"))?;
    drop(journal);
    let journal = bench.open();
    runs.iter().try_for_each(|run| journal.holds(&run.records))
}

fn dropped_write(bench: &Bench<'_>) -> Result<(), String> {
    let (given_up, other) = (Run::new("given-up").intent("e").enter(), Run::new("other"));
    let journal = bench.open();
    // Polled at most once, and not at all.
    let _ = journal.0.append(given_up.records[..2].to_vec()).now_or_never();
    journal.append(&other.records)?;
    let head = journal.head(&given_up.id)?;
    ensure(matches!(head, None | Some(2)), format!("its head is {head:?}"))?;
    if head.is_some() {
        drop(journal.0.append(given_up.last().to_vec()));
    }
    let other = other.enter();
    journal.append(other.last())?;
    drop(journal);
    let journal = bench.open();
    match journal.head(&given_up.id)? {
        None => journal.lacks(&given_up.id)?,
        Some(2) => journal.holds(&given_up.records[..2])?,
        _ => journal.holds(&given_up.records)?,
    }
    journal.holds(&other.records)
}

fn long_ids(bench: &Bench<'_>) -> Result<(), String> {
    let long = "x".repeat(199);
    let ids = [
        format!("{long}a"),
        format!("{long}b"),
        format!("{long}A"),
        "case".to_owned(),
        "CASE".to_owned(),
        "a-_.:/@Z9".to_owned(),
    ];
    let runs: Vec<_> = ids.iter().map(|id| Run::new(id).intent("e")).collect();
    let journal = bench.open();
    runs.iter().try_for_each(|run| journal.append(&run.records))?;
    drop(journal);
    let journal = bench.open();
    runs.iter().try_for_each(|run| journal.holds(&run.records))
}

fn any_data(bench: &Bench<'_>) -> Result<(), String> {
    let large: Vec<_> = (0..1_048_576_u32).map(|index| (index % 251) as u8).collect();
    let text = "\u{e4}\u{1f4be} \0 '\" ".repeat(90_000).into_bytes();
    let all = [Vec::new(), b"null".to_vec(), vec![0xff, 0xfe, 0], b"a\0b".to_vec(), large, text];
    let run = all.into_iter().fold(Run::unborn("data"), |run, bytes| {
        let data = Data::from_bytes(bytes);
        let result = Body::Result { effect: "e".to_owned(), data: data.clone() };
        run.entering(data, Carried::default()).with(result)
    });
    bench.open().append(&run.records)?;
    bench.open().holds(&run.records)
}
