//! A journal in memory: for tests, and for runs that nobody needs after the process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::{BoxFuture, ready};

use crate::{Journal, JournalError, JournalErrorKind, Loaded, Record, RunId, RunSnapshot, Status};

/// Keeps records as long as the value lives. Clones share them, so that a test can drop a
/// runtime and start another one on what the first has written.
#[derive(Clone, Debug, Default)]
pub struct MemoryJournal {
    runs: Arc<Mutex<BTreeMap<RunId, Vec<Record>>>>,
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RunId, Vec<Record>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_now(&self, records: Vec<Record>) -> Result<(), JournalError> {
        let mut runs = self.lock();
        let mut lengths = BTreeMap::new();
        for record in &records {
            let kept = runs.get(&record.run).map_or(0, Vec::len) as u64;
            let length = lengths.entry(&record.run).or_insert(kept);
            if record.seq != *length + 1 {
                let subject = format!("{} record {}", record.run, record.seq);
                return Err(JournalError::new(JournalErrorKind::Conflict, subject));
            }
            *length += 1;
        }
        for record in records {
            runs.entry(record.run.clone()).or_default().push(record);
        }
        Ok(())
    }
}

fn fold(run: &RunId, records: &[Record]) -> Loaded {
    Loaded { run: run.clone(), snapshot: RunSnapshot::fold(records.iter().cloned()) }
}

impl Journal for MemoryJournal {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), JournalError>> {
        Box::pin(ready(self.append_now(records)))
    }

    fn load(&self, run: &RunId) -> BoxFuture<'static, Result<Option<RunSnapshot>, JournalError>> {
        let loaded = self.lock().get(run).map(|records| fold(run, records));
        let subject = run.to_string();
        Box::pin(ready(
            loaded.map(|loaded| loaded.snapshot).transpose().map_err(|why| {
                JournalError::new(JournalErrorKind::Damaged, subject).caused_by(why)
            }),
        ))
    }

    fn unfinished(&self) -> BoxFuture<'static, Result<Vec<Loaded>, JournalError>> {
        let ended = |loaded: &Loaded| matches!(&loaded.snapshot, Ok(snapshot) if matches!(snapshot.status, Status::Ended(..)));
        let runs = self.lock();
        let loaded = runs.iter().map(|(run, records)| fold(run, records));
        Box::pin(ready(Ok(loaded.filter(|loaded| !ended(loaded)).collect())))
    }

    fn history(&self, run: &RunId) -> BoxFuture<'static, Result<Vec<Record>, JournalError>> {
        Box::pin(ready(Ok(self.lock().get(run).cloned().unwrap_or_default())))
    }
}
