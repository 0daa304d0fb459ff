//! Where a run stands: its records, folded.

use serde::{Deserialize, Serialize};

use crate::{Body, Data, EffectLog, Ending, Fault, Record, RunId, Timestamp};

/// Where a run stands. A pure fold of its records, from any [`Body::Enter`] on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunSnapshot {
    /// The run.
    pub run: RunId,
    /// The last record's place.
    pub seq: u64,
    /// When the last record was written.
    pub at: Timestamp,
    /// The machine's name.
    pub machine: String,
    /// The version of the machine that wrote the state.
    pub version: u32,
    /// Who registered it.
    pub origin: String,
    /// The graph's fingerprint.
    pub graph: String,
    /// The state's name.
    pub state: String,
    /// Its data; the run's result when it has ended.
    pub data: Data,
    /// Which entry into a state this is.
    pub entry: u64,
    /// Failed attempts at this entry.
    pub attempts: u32,
    /// The state's step runs no sooner than this.
    pub wake_at: Option<Timestamp>,
    /// What is known of this entry's effects.
    pub effects: Vec<EffectLog>,
    /// The request to cancel that is not settled yet.
    pub cancel: Option<String>,
    /// Whether it runs, pauses or has ended.
    pub status: Status,
}

/// Whether a run runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// It runs, or waits for a time.
    Active,
    /// It waits for an operator.
    Paused(Fault),
    /// It ended.
    Ended(Ending, Option<Fault>),
}

impl Status {
    /// The status as one lower-case word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Paused(_) => "paused",
            Status::Ended(ending, _) => ending.as_str(),
        }
    }
}

impl RunSnapshot {
    /// Folds `records`, which begin with an [`Body::Enter`] and have no gap.
    ///
    /// # Errors
    ///
    /// What is wrong with the records, in words.
    pub fn fold(records: impl IntoIterator<Item = Record>) -> Result<Self, String> {
        let mut records = records.into_iter();
        let first = records.next().ok_or("there is no record")?;
        let mut snapshot = RunSnapshot::begin(first)?;
        for record in records {
            snapshot.apply(record)?;
        }
        Ok(snapshot)
    }

    fn begin(first: Record) -> Result<Self, String> {
        let Body::Enter { .. } = first.body else {
            return Err(format!("record {} is no `enter`", first.seq));
        };
        let before = first.seq.checked_sub(1).ok_or("records are numbered from 1")?;
        let mut snapshot = RunSnapshot {
            run: first.run.clone(),
            seq: before,
            at: first.at,
            machine: String::new(),
            version: 0,
            origin: String::new(),
            graph: String::new(),
            state: String::new(),
            data: Data::default(),
            entry: 0,
            attempts: 0,
            wake_at: None,
            effects: Vec::new(),
            cancel: None,
            status: Status::Active,
        };
        snapshot.apply(first)?;
        Ok(snapshot)
    }

    /// Applies the record that follows.
    ///
    /// # Errors
    ///
    /// What is wrong, in words: another run's record, a gap in the sequence, or a record after
    /// the end.
    pub fn apply(&mut self, record: Record) -> Result<(), String> {
        if record.run != self.run {
            return Err(format!("a record of {} among those of {}", record.run, self.run));
        }
        if self.seq.checked_add(1) != Some(record.seq) {
            return Err(format!("record {} follows record {}", record.seq, self.seq));
        }
        if matches!(self.status, Status::Ended(..)) {
            return Err(format!("record {} follows the end", record.seq));
        }
        self.seq = record.seq;
        self.at = record.at;
        match record.body {
            Body::Enter {
                entry,
                machine,
                version,
                origin,
                graph,
                state,
                data,
                wake_at,
                cancel,
            } => {
                (self.entry, self.machine, self.version) = (entry, machine, version);
                (self.origin, self.graph) = (origin, graph);
                (self.state, self.data, self.wake_at) = (state, data, wake_at);
                self.cancel = cancel;
                self.attempts = 0;
                self.effects.clear();
            }
            Body::Intent { effect } => {
                self.effects.push(EffectLog { name: effect, result: None });
            }
            Body::Result { effect, data } => {
                self.effects.retain(|known| known.name != effect);
                self.effects.push(EffectLog { name: effect, result: Some(data) });
            }
            Body::Attempt { attempt, next_at, .. } => {
                self.attempts = attempt;
                self.wake_at = Some(next_at);
            }
            Body::Cancel { reason } => {
                self.cancel.get_or_insert(reason);
                if let Status::Paused(_) = self.status {
                    self.status = Status::Active;
                }
            }
            Body::Pause { fault } => self.status = Status::Paused(fault),
            Body::Resume => {
                self.status = Status::Active;
                self.attempts = 0;
                self.wake_at = None;
            }
            Body::End { ending, fault } => self.status = Status::Ended(ending, fault),
        }
        Ok(())
    }
}
