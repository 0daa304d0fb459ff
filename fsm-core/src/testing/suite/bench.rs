//! What the behaviours are tried with: a medium whose type is forgotten, and runs to write.

use std::{future::Future, sync::Arc, time::Duration};

use futures::executor::block_on;

use crate::{
    Body, Carried, Data, Ending, Fault, Journal, JournalError, JournalErrorKind, Loaded, Record,
    RunId, RunSnapshot, Timestamp,
    testing::{Damage, Medium},
};

/// What came of trying a behaviour.
pub(super) enum Tried {
    Kept,
    Skipped,
    Broken(String),
}

impl From<Result<(), String>> for Tried {
    fn from(tried: Result<(), String>) -> Self {
        tried.map_or_else(Tried::Broken, |()| Tried::Kept)
    }
}

/// Makes a sentence of the contract a `?` away from its test.
pub(super) fn ensure(holds: bool, otherwise: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

pub(super) trait AnyMedium {
    fn open_any(&self) -> Arc<dyn Journal>;
    fn damage_any(&self, run: &RunId, seq: u64, damage: Damage) -> bool;
}

impl<M: Medium> AnyMedium for M {
    fn open_any(&self) -> Arc<dyn Journal> {
        Arc::new(self.open())
    }

    fn damage_any(&self, run: &RunId, seq: u64, damage: Damage) -> bool {
        self.damage(run, seq, damage)
    }
}

pub(super) struct Bench<'m> {
    medium: &'m dyn AnyMedium,
}

impl<'m> Bench<'m> {
    pub(super) fn new(medium: &'m dyn AnyMedium) -> Self {
        Bench { medium }
    }

    pub(super) fn open(&self) -> Open {
        Open(self.medium.open_any())
    }

    /// Closes `journal`, damages a record, and opens the journal again; `None` if the medium
    /// cannot be damaged.
    pub(super) fn damaged(
        &self,
        journal: Open,
        run: &RunId,
        seq: u64,
        damage: Damage,
    ) -> Option<Open> {
        drop(journal);
        self.medium.damage_any(run, seq, damage).then(|| self.open())
    }
}

/// An open journal, whose answers are awaited and whose errors are words.
pub(super) struct Open(pub(super) Arc<dyn Journal>);

impl Open {
    /// Writes what the contract allows.
    pub(super) fn append(&self, records: &[Record]) -> Result<(), String> {
        self.try_append(records).map_err(|error| format!("a sound write was refused: {error}"))
    }

    pub(super) fn try_append(&self, records: &[Record]) -> Result<(), JournalError> {
        block_on(self.0.append(records.to_vec()))
    }

    /// Writes what the contract forbids.
    pub(super) fn refuses(&self, records: &[Record]) -> Result<(), String> {
        match self.try_append(records) {
            Err(error) if error.kind() == JournalErrorKind::Conflict => Ok(()),
            Err(error) => Err(format!("the kind is not `Conflict`: {error}")),
            Ok(()) => Err("it was acknowledged".to_owned()),
        }
    }

    pub(super) fn load(&self, run: &RunId) -> Result<Option<RunSnapshot>, String> {
        read(self.0.load(run))
    }

    pub(super) fn history(&self, run: &RunId) -> Result<Vec<Record>, String> {
        read(self.0.history(run))
    }

    pub(super) fn head(&self, run: &RunId) -> Result<Option<u64>, String> {
        read(self.0.head(run))
    }

    pub(super) fn unfinished(
        &self,
        after: Option<&RunId>,
        limit: usize,
    ) -> Result<Vec<Loaded>, String> {
        read(self.0.unfinished(after, limit))
    }

    /// Whether history, head and loaded state of a run are those of `records`, all there are.
    pub(super) fn holds(&self, records: &[Record]) -> Result<(), String> {
        let run = &records[0].run;
        let history = self.history(run)?;
        ensure(history == records, format!("`{}`", counted("history", &history, records)))?;
        let head = records.last().map(|record| record.seq);
        let found = self.head(run)?;
        ensure(found == head, format!("the head of `{run}` is {found:?} instead of {head:?}"))?;
        let expected = RunSnapshot::fold(records.iter().cloned())?;
        let loaded = self.load(run)?;
        ensure(
            loaded.as_ref() == Some(&expected),
            format!("`{run}` loads as {loaded:?} instead of {expected:?}"),
        )
    }

    /// Whether there is nothing of `run`.
    pub(super) fn lacks(&self, run: &RunId) -> Result<(), String> {
        let (loaded, head) = (self.load(run)?, self.head(run)?);
        let records = self.history(run)?.len();
        ensure(
            loaded.is_none() && head.is_none() && records == 0,
            format!("of `{run}` there are {records} records, head {head:?}"),
        )
    }
}

fn counted(what: &str, found: &[Record], expected: &[Record]) -> String {
    let wrong = found.iter().zip(expected).position(|(found, expected)| found != expected);
    let (found_count, count) = (found.len(), expected.len());
    match wrong {
        Some(place) => format!(
            "{what}: record {} is {:?} instead of {:?}",
            place + 1,
            found[place],
            expected[place]
        ),
        None => format!("{what}: {found_count} records instead of {count}"),
    }
}

fn read<T>(answer: impl Future<Output = Result<T, JournalError>>) -> Result<T, String> {
    block_on(answer).map_err(|error| format!("reading failed: {error}"))
}

/// A run that a behaviour writes, record after record, one a second.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) machine: &'static str,
    pub(super) records: Vec<Record>,
    at: Timestamp,
    entries: u64,
}

/// When the first record of a run is written.
pub(super) const START: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

impl Run {
    /// A run that has entered its first state.
    pub(super) fn new(id: &str) -> Self {
        Run::carrying(id, Carried::default())
    }

    pub(super) fn carrying(id: &str, carried: Carried) -> Self {
        Run::unborn(id).entering(Data::from_bytes(b"{}".to_vec()), carried)
    }

    /// A run without records.
    pub(super) fn unborn(id: &str) -> Self {
        let id = RunId::new(id).unwrap_or_else(|error| unreachable!("the suite's own id: {error}"));
        Run { id, machine: "suite", records: Vec::new(), at: START, entries: 0 }
    }

    pub(super) fn of_machine(mut self, machine: &'static str) -> Self {
        self.machine = machine;
        for record in &mut self.records {
            if let Body::Enter { machine: name, .. } = &mut record.body {
                *name = machine.to_owned();
            }
        }
        self
    }

    pub(super) fn with(mut self, body: Body) -> Self {
        let seq = self.records.len() as u64 + 1;
        self.records.push(Record { run: self.id.clone(), seq, at: self.at, body });
        self.at = self.at + Duration::from_secs(1);
        self
    }

    pub(super) fn enter(self) -> Self {
        let data = Data::from_bytes(format!("{{\"entry\":{}}}", self.entries + 1).into_bytes());
        self.entering(data, Carried::default())
    }

    pub(super) fn entering(mut self, data: Data, carried: Carried) -> Self {
        self.entries += 1;
        let body = Body::Enter {
            entry: self.entries,
            machine: self.machine.to_owned(),
            version: 3,
            origin: "suite 1".to_owned(),
            graph: "0011223344556677".to_owned(),
            state: format!("state-{}", self.entries),
            data,
            wake_at: Some(START + Duration::from_secs(60)),
            carried: Box::new(carried),
        };
        self.with(body)
    }

    pub(super) fn intent(self, effect: &str) -> Self {
        self.with(Body::Intent { effect: effect.to_owned() })
    }

    pub(super) fn end(self) -> Self {
        self.with(Body::End { ending: Ending::Completed, fault: None })
    }

    pub(super) fn end_at(mut self, at: Timestamp) -> Self {
        self.at = at;
        self.end()
    }

    pub(super) fn last(&self) -> &[Record] {
        &self.records[self.records.len() - 1..]
    }

    pub(super) fn snapshot(&self) -> Result<RunSnapshot, String> {
        RunSnapshot::fold(self.records.iter().cloned())
    }
}

/// A fault with everything that a fault can have.
pub(super) fn fault() -> Fault {
    Fault::user("suite.full", "no `space` is left\non \u{1f4be}")
        .advise("delete something")
        .retry_after(Duration::from_secs(5))
        .caused_by(&std::io::Error::other("a cause"))
}

/// `prefix` and a number of two digits, so that ids sort as the numbers do.
pub(super) fn numbered(prefix: &str, number: usize) -> String {
    format!("{prefix}{number:02}")
}
