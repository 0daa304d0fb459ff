//! A journal with a mistake: what the journal suite has to find.

use std::sync::{Arc, Mutex};

use fsm_core::{
    Body, Journal, JournalError, Loaded, MemoryJournal, Page, Pruned, Record, Retention, RunId,
    RunSnapshot, RunSummary, Timestamp,
    testing::{Damage, Medium},
};
use futures::{
    FutureExt,
    future::{BoxFuture, ready},
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mistake {
    None,
    /// It acknowledges a write, and stores it with the next one.
    AcknowledgesEarly,
    /// A reopened journal lacks the last record.
    LosesTheLast,
    /// A second record of one number is acknowledged.
    AcceptsDuplicates,
    /// Records after a gap are acknowledged.
    AcceptsGaps,
    /// A refused batch leaves what stood before the record that was refused.
    WritesHalf,
    /// A page of unfinished runs skips the one after the page before.
    HidesARun,
    /// A page of a list shows ended runs too.
    ListsEverything,
    /// A child goes although its parent needs it.
    ForgetsChildren,
    /// Old records go, but nobody says how many.
    Miscounts,
    /// Data that is not text is mended.
    MendsData,
    /// A record that cannot be read is left out.
    SkipsDamage,
}

/// What the medium holds: records, and those that are rubbish.
#[derive(Clone)]
pub(crate) struct Faulty {
    mistake: Mistake,
    stored: Arc<Mutex<Vec<Record>>>,
    damaged: Arc<Mutex<Vec<(RunId, u64)>>>,
}

/// The journal that one process opens: a memory journal of what is stored.
pub(crate) struct Opened {
    medium: Faulty,
    memory: Mutex<MemoryJournal>,
    late: Mutex<Vec<Record>>,
}

impl Faulty {
    pub(crate) fn new(mistake: Mistake) -> Self {
        Faulty { mistake, stored: Arc::default(), damaged: Arc::default() }
    }
}

impl Medium for Faulty {
    type Journal = Opened;

    fn open(&self) -> Opened {
        let mut stored = self.stored.lock().unwrap();
        if self.mistake == Mistake::LosesTheLast {
            stored.pop();
        }
        let memory = Mutex::new(remember(&stored));
        Opened { medium: self.clone(), memory, late: Mutex::default() }
    }

    fn damage(&self, run: &RunId, seq: u64, damage: Damage) -> bool {
        match damage {
            Damage::Remove => {
                let mut stored = self.stored.lock().unwrap();
                stored.retain(|record| (&record.run, record.seq) != (run, seq));
            }
            _ => self.damaged.lock().unwrap().push((run.clone(), seq)),
        }
        true
    }
}

/// A memory journal of `records` that fit together.
fn remember(records: &[Record]) -> MemoryJournal {
    let memory = MemoryJournal::new();
    for record in records {
        let _ = memory.append(vec![record.clone()]).now_or_never();
    }
    memory
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a memory journal answers at once")
}

impl Opened {
    fn is(&self, mistake: Mistake) -> bool {
        self.medium.mistake == mistake
    }

    fn write(&self, records: &[Record]) -> Result<(), JournalError> {
        let memory = self.memory.lock().unwrap();
        now(memory.append(records.to_vec()))?;
        self.medium.stored.lock().unwrap().extend_from_slice(records);
        Ok(())
    }

    fn append_now(&self, mut records: Vec<Record>) -> Result<(), JournalError> {
        match self.medium.mistake {
            Mistake::AcknowledgesEarly => {
                let late = std::mem::replace(&mut *self.late.lock().unwrap(), records);
                self.write(&late)
            }
            Mistake::AcceptsDuplicates => {
                records.retain(|record| {
                    let head = now(self.memory.lock().unwrap().head(&record.run)).unwrap();
                    head.is_none_or(|head| record.seq > head)
                });
                self.write(&records)
            }
            Mistake::AcceptsGaps => {
                records.retain(|record| {
                    let head = now(self.memory.lock().unwrap().head(&record.run)).unwrap();
                    record.seq <= head.unwrap_or(0) + 1
                });
                self.write(&records)
            }
            Mistake::WritesHalf => {
                records.iter().try_for_each(|record| self.write(std::slice::from_ref(record)))
            }
            Mistake::MendsData => {
                for record in &mut records {
                    if let Body::Enter { data, .. } = &mut record.body {
                        let text = String::from_utf8_lossy(data.as_bytes()).into_owned();
                        *data = fsm_core::Data::from_bytes(text.into_bytes());
                    }
                }
                self.write(&records)
            }
            _ => self.write(&records),
        }
    }

    /// What is rubbish of `run`, unless the journal looks away.
    fn damage(&self, run: &RunId) -> Result<(), JournalError> {
        let damaged = self.medium.damaged.lock().unwrap().iter().any(|(hurt, _)| hurt == run);
        let holed = {
            let stored = self.medium.stored.lock().unwrap();
            let last = stored.iter().filter(|record| record.run == *run).map(|r| r.seq).max();
            last.unwrap_or(0) > now(self.memory.lock().unwrap().head(run))?.unwrap_or(0)
        };
        if (damaged || holed) && !self.is(Mistake::SkipsDamage) {
            return Err(JournalError::new(fsm_core::JournalErrorKind::Damaged, run.as_str()));
        }
        Ok(())
    }

    fn memory(&self) -> MemoryJournal {
        self.memory.lock().unwrap().clone()
    }
}

impl Journal for Opened {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), JournalError>> {
        ready(self.append_now(records)).boxed()
    }

    fn load(&self, run: &RunId) -> BoxFuture<'static, Result<Option<RunSnapshot>, JournalError>> {
        ready(self.damage(run).and_then(|()| now(self.memory().load(run)))).boxed()
    }

    fn unfinished(
        &self,
        after: Option<&RunId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Loaded>, JournalError>> {
        let mut runs = now(self.memory().unfinished(after, usize::MAX)).unwrap();
        if self.is(Mistake::HidesARun) && after.is_some() && !runs.is_empty() {
            runs.remove(0);
        }
        runs.truncate(limit);
        for loaded in &mut runs {
            if let Err(error) = self.damage(&loaded.run) {
                loaded.snapshot = Err(error.to_string());
            }
        }
        ready(Ok(runs)).boxed()
    }

    fn list(&self, mut page: Page) -> BoxFuture<'static, Result<Vec<RunSummary>, JournalError>> {
        page.unfinished &= !self.is(Mistake::ListsEverything);
        self.memory().list(page)
    }

    fn history(&self, run: &RunId) -> BoxFuture<'static, Result<Vec<Record>, JournalError>> {
        ready(self.damage(run).and_then(|()| now(self.memory().history(run)))).boxed()
    }

    fn head(&self, run: &RunId) -> BoxFuture<'static, Result<Option<u64>, JournalError>> {
        self.memory().head(run)
    }

    fn prune(
        &self,
        retention: Retention,
        now_is: Timestamp,
    ) -> BoxFuture<'static, Result<Pruned, JournalError>> {
        let mut pruned = now(self.memory().prune(retention, now_is)).unwrap();
        let mut stored = self.medium.stored.lock().unwrap();
        if self.is(Mistake::ForgetsChildren) && retention.count() == Some(0) {
            let before = stored.len();
            stored.retain(|record| !record.run.as_str().starts_with("p/"));
            pruned.records += (before - stored.len()) as u64;
            *self.memory.lock().unwrap() = remember(&stored);
        } else {
            let memory = self.memory();
            stored.retain(|record| {
                let kept = now(memory.history(&record.run)).unwrap();
                kept.iter().any(|kept| kept.seq == record.seq)
            });
        }
        if self.is(Mistake::Miscounts) {
            pruned.records = 0;
        }
        ready(Ok(pruned)).boxed()
    }
}
