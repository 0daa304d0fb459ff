//! What is promised of reading.

use super::{
    Behaviour,
    bench::{Bench, Open, Run, ensure, fault, numbered},
};
use crate::{Body, Page, RunId, RunSummary};

pub(super) const ALL: &[Behaviour] = &[
    Behaviour {
        name: "nothing",
        says: "an empty journal has no runs, and a run that there is not is no error",
        test: |bench| nothing(bench).into(),
    },
    Behaviour {
        name: "unfinished",
        says: "the runs that have not ended, paused and redriven ones too, are all found by id",
        test: |bench| unfinished(bench).into(),
    },
    Behaviour {
        name: "unfinished_pages",
        says: "pages of unfinished runs lose none and repeat none, whatever their size",
        test: |bench| unfinished_pages(bench).into(),
    },
    Behaviour {
        name: "list",
        says: "a page shows the runs that it is for, by id, as their snapshots say",
        test: |bench| list(bench).into(),
    },
    Behaviour {
        name: "list_pages",
        says: "pages of a list lose none and repeat none, whatever their size",
        test: |bench| list_pages(bench).into(),
    },
];

fn nothing(bench: &Bench<'_>) -> Result<(), String> {
    let journal = bench.open();
    journal.lacks(&Run::new("nobody").id)?;
    ensure(journal.unfinished(None, 10)?.is_empty(), "a run is unfinished")?;
    ensure(list_of(&journal, Page::default())?.is_empty(), "a run is listed")?;
    journal.append(&Run::new("somebody").records)?;
    journal.lacks(&Run::new("nobody").id)
}

/// Runs in every standing, in the order of their ids.
fn everybody() -> Vec<Run> {
    let failed = || Body::End { ending: crate::Ending::Failed, fault: Some(fault()) };
    let mut runs = vec![
        Run::new("a/active").intent("e"),
        Run::new("a/ended").enter().end(),
        Run::new("b-failed").with(failed()),
        Run::new("b/paused").with(Body::Pause { fault: fault(), between_steps: true }),
        Run::new("b/redriven").with(failed()).with(Body::Redrive),
        Run::new("c").of_machine("other"),
        Run::new("c.ended").of_machine("other").end(),
        Run::new("z/resumed")
            .with(Body::Pause { fault: fault(), between_steps: true })
            .with(Body::Resume),
    ];
    runs.sort_by(|a, b| a.id.cmp(&b.id));
    runs
}

fn is_unfinished(run: &&Run) -> bool {
    run.snapshot().is_ok_and(|snapshot| snapshot.end().is_none())
}

fn written(bench: &Bench<'_>, runs: &[Run]) -> Result<Open, String> {
    let journal = bench.open();
    // Not in the order of their ids.
    runs.iter().rev().try_for_each(|run| journal.append(&run.records))?;
    drop(journal);
    Ok(bench.open())
}

fn unfinished(bench: &Bench<'_>) -> Result<(), String> {
    let runs = everybody();
    let journal = written(bench, &runs)?;
    let loaded = journal.unfinished(None, usize::MAX)?;
    let expected: Vec<_> = runs.iter().filter(is_unfinished).collect();
    let ids = |ids: &mut dyn Iterator<Item = &RunId>| ids.cloned().collect::<Vec<_>>();
    let (found, right) = (
        ids(&mut loaded.iter().map(|loaded| &loaded.run)),
        ids(&mut expected.iter().map(|run| &run.id)),
    );
    ensure(found == right, format!("they are {found:?} instead of {right:?}"))?;
    for (run, loaded) in expected.into_iter().zip(loaded) {
        let snapshot = run.snapshot()?;
        let same = loaded.snapshot.as_ref() == Ok(&snapshot);
        ensure(same, format!("{:?} instead of {snapshot:?}", loaded.snapshot))?;
    }
    Ok(())
}

fn unfinished_pages(bench: &Bench<'_>) -> Result<(), String> {
    let runs: Vec<_> = (0..23)
        .map(|number| {
            let run = Run::new(&numbered("page/", number));
            if number % 5 == 4 { run.end() } else { run }
        })
        .collect();
    let journal = written(bench, &runs)?;
    let right: Vec<_> = runs.iter().filter(is_unfinished).map(|run| run.id.clone()).collect();
    for limit in [1, 2, 7, 18, 19, 100] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = journal.unfinished(after.as_ref(), limit)?;
            let count = page.len();
            ensure(count <= limit, format!("a page of {limit} has {count} runs"))?;
            found.extend(page.into_iter().map(|loaded| loaded.run));
            after = found.last().cloned();
            if count < limit || found.len() > right.len() {
                break;
            }
        }
        ensure(found == right, format!("pages of {limit} are {found:?} instead of {right:?}"))?;
    }
    Ok(())
}

fn list_of(journal: &Open, page: Page) -> Result<Vec<RunSummary>, String> {
    let listed = futures::executor::block_on(journal.0.list(page));
    listed.map_err(|error| format!("reading failed: {error}"))
}

fn list(bench: &Bench<'_>) -> Result<(), String> {
    let runs = everybody();
    let journal = written(bench, &runs)?;
    let all = || Page::default().limit(100);
    let pages = [
        Page::default(),
        all(),
        all().limit(3),
        all().limit(0),
        all().unfinished(),
        all().machine("other"),
        all().machine("other").unfinished(),
        all().machine("nobody's"),
        all().after(runs[2].id.clone()),
        all().after(runs[2].id.clone()).unfinished().machine("suite").limit(2),
        all().after(Run::new("b/pause").id),
    ];
    for page in pages {
        let summaries = runs.iter().map(|run| run.snapshot().map(|s| RunSummary::from(&s)));
        let summaries: Vec<_> = summaries.collect::<Result<_, _>>()?;
        let shown = summaries.into_iter().filter(|summary| page.shows(summary));
        let right: Vec<_> = shown.take(page.limit).collect();
        let found = list_of(&journal, page.clone())?;
        ensure(found == right, format!("{page:?} shows {found:?} instead of {right:?}"))?;
    }
    Ok(())
}

fn list_pages(bench: &Bench<'_>) -> Result<(), String> {
    let runs: Vec<_> = (0..23).map(|number| Run::new(&numbered("page/", number))).collect();
    let journal = written(bench, &runs)?;
    for limit in [1, 2, 23, 24] {
        let (mut found, mut page) = (Vec::new(), Page::default().limit(limit));
        loop {
            let listed = list_of(&journal, page.clone())?;
            let count = listed.len();
            found.extend(listed.into_iter().map(|summary| summary.run));
            if count < limit || found.len() > runs.len() {
                break;
            }
            page = Page { after: found.last().cloned(), ..page };
        }
        let right: Vec<_> = runs.iter().map(|run| run.id.clone()).collect();
        ensure(found == right, format!("pages of {limit} are {found:?} instead of {right:?}"))?;
    }
    Ok(())
}
