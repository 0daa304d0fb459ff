//! A journal in memory: for tests, and for runs that nobody needs after the process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::{BoxFuture, ready};

use crate::{
    Body, Journal, JournalError, JournalErrorKind, Loaded, Page, Pruned, Record, Retention, RunId,
    RunSnapshot, RunSummary, Status, Timestamp,
};

/// Keeps records as long as the value lives. Clones share them, so that a test can drop a
/// runtime and start another one on what the first has written.
#[derive(Clone, Debug, Default)]
pub struct MemoryJournal {
    runs: Arc<Mutex<BTreeMap<RunId, Vec<Record>>>>,
}

type Runs = BTreeMap<RunId, Vec<Record>>;

impl MemoryJournal {
    /// An empty journal.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_now(&self, records: Vec<Record>) -> Result<(), JournalError> {
        let mut runs = self.lock();
        let mut heads = BTreeMap::new();
        for record in &records {
            let head = heads.entry(&record.run).or_insert_with(|| head(&runs, &record.run));
            if record.seq != *head + 1 {
                let subject = format!("{} record {}", record.run, record.seq);
                return Err(JournalError::new(JournalErrorKind::Conflict, subject));
            }
            *head += 1;
        }
        for record in records {
            runs.entry(record.run.clone()).or_default().push(record);
        }
        Ok(())
    }

    fn prune_now(&self, retention: Retention, now: Timestamp) -> Pruned {
        let mut runs = self.lock();
        let mut pruned = Pruned::default();
        for run in forgettable(&runs, retention, now) {
            pruned.runs += 1;
            pruned.records += runs.remove(&run).map_or(0, |records| records.len() as u64);
        }
        for records in runs.values_mut() {
            let most = retention.records().unwrap_or(u64::MAX);
            let surplus = (records.len() as u64).saturating_sub(most) as usize;
            let excess = surplus.min(last_entry(records));
            records.drain(..excess);
            pruned.records += excess as u64;
        }
        pruned
    }
}

fn head(runs: &Runs, run: &RunId) -> u64 {
    runs.get(run).and_then(|records| records.last()).map_or(0, |record| record.seq)
}

/// Where the last entry into a state stands among `records`.
fn last_entry(records: &[Record]) -> usize {
    let entered = |record: &Record| matches!(record.body, Body::Enter { .. });
    records.iter().rposition(entered).unwrap_or(0)
}

fn fold(records: &[Record]) -> Result<RunSnapshot, String> {
    RunSnapshot::fold(records[last_entry(records)..].iter().cloned())
}

/// The runs that `retention` lets go: ended long enough ago, or too many; never a child before its
/// parent has ended.
fn forgettable(runs: &Runs, retention: Retention, now: Timestamp) -> Vec<RunId> {
    let snapshots: BTreeMap<_, _> =
        runs.iter().filter_map(|(run, records)| Some((run, fold(records).ok()?))).collect();
    let ended = |snapshot: &RunSnapshot| matches!(snapshot.status, Status::Ended(..));
    let free = |snapshot: &RunSnapshot| {
        let parent = snapshot.carried.parent.as_ref();
        parent.and_then(|parent| snapshots.get(parent)).is_none_or(ended)
    };
    let mut finished: Vec<_> = snapshots.values().filter(|s| ended(s) && free(s)).collect();
    finished.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.at, snapshot.run.clone())));
    let old =
        |snapshot: &RunSnapshot| retention.age().is_some_and(|age| now.since(snapshot.at) > age);
    let kept = retention.count().unwrap_or(usize::MAX);
    let goes = |&(place, snapshot): &(usize, &&RunSnapshot)| place >= kept || old(snapshot);
    finished.iter().enumerate().filter(goes).map(|(_, snapshot)| snapshot.run.clone()).collect()
}

impl Journal for MemoryJournal {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), JournalError>> {
        Box::pin(ready(self.append_now(records)))
    }

    fn load(&self, run: &RunId) -> BoxFuture<'static, Result<Option<RunSnapshot>, JournalError>> {
        let loaded = self.lock().get(run).map(|records| fold(records)).transpose();
        let damaged =
            |why| JournalError::new(JournalErrorKind::Damaged, run.as_str()).caused_by(why);
        Box::pin(ready(loaded.map_err(|why: String| damaged(why))))
    }

    fn unfinished(
        &self,
        after: Option<&RunId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Loaded>, JournalError>> {
        let runs = self.lock();
        let later = runs.iter().filter(|(run, _)| after.is_none_or(|after| *run > after));
        let loaded =
            later.map(|(run, records)| Loaded { run: run.clone(), snapshot: fold(records) });
        let unfinished = loaded.filter(|loaded| {
            !matches!(&loaded.snapshot, Ok(snapshot) if matches!(snapshot.status, Status::Ended(..)))
        });
        Box::pin(ready(Ok(unfinished.take(limit).collect())))
    }

    fn list(&self, page: Page) -> BoxFuture<'static, Result<Vec<RunSummary>, JournalError>> {
        let runs = self.lock();
        let readable = runs.values().filter_map(|records| fold(records).ok());
        let summaries = readable.map(|snapshot| RunSummary::from(&snapshot));
        let shown = summaries.filter(|summary| page.shows(summary)).take(page.limit);
        Box::pin(ready(Ok(shown.collect())))
    }

    fn history(&self, run: &RunId) -> BoxFuture<'static, Result<Vec<Record>, JournalError>> {
        Box::pin(ready(Ok(self.lock().get(run).cloned().unwrap_or_default())))
    }

    fn head(&self, run: &RunId) -> BoxFuture<'static, Result<Option<u64>, JournalError>> {
        let runs = self.lock();
        Box::pin(ready(Ok(runs.contains_key(run).then(|| head(&runs, run)))))
    }

    fn prune(
        &self,
        retention: Retention,
        now: Timestamp,
    ) -> BoxFuture<'static, Result<Pruned, JournalError>> {
        Box::pin(ready(Ok(self.prune_now(retention, now))))
    }
}
