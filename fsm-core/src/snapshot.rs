//! Where a run stands: its records, folded.

use serde::{Deserialize, Serialize};

use crate::{
    Body, Carried, Data, EffectLog, End, Ending, Fault, Pending, Record, RunId, Timestamp,
};

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
    /// Since when its step may run: the entry, or the time that it was to wait for.
    pub due: Timestamp,
    /// Since when the time of all its attempts is counted: as `due`, until an operator lets it
    /// continue.
    pub counted_from: Timestamp,
    /// Failed attempts at this entry.
    pub attempts: u32,
    /// When the last of them failed.
    pub failed_at: Option<Timestamp>,
    /// The state's step runs no sooner than this.
    pub wake_at: Option<Timestamp>,
    /// What is known of this entry's effects.
    pub effects: Vec<EffectLog>,
    /// What it takes along: requests, signals, children.
    pub carried: Box<Carried>,
    /// Whether it runs, pauses or has ended.
    pub status: Status,
    /// Whether it waits for an operator, and no step of the state has been at work since it began
    /// to wait, or the one that was has answered.
    #[serde(default)]
    pub between_steps: bool,
}

/// Whether a run runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// It runs, or waits for a time, a signal or a child.
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
            due: first.at,
            counted_from: first.at,
            attempts: 0,
            failed_at: None,
            wake_at: None,
            effects: Vec::new(),
            carried: Box::default(),
            status: Status::Active,
            between_steps: false,
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
        match (&self.status, &record.body) {
            (Status::Ended(Ending::Failed, _), Body::Redrive) => {}
            (Status::Ended(..), _) => return Err(format!("record {} follows the end", record.seq)),
            (_, Body::Redrive) => return Err(format!("record {} follows no end", record.seq)),
            _ => {}
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
                carried,
            } => {
                (self.entry, self.machine, self.version) = (entry, machine, version);
                (self.origin, self.graph) = (origin, graph);
                (self.state, self.data, self.wake_at) = (state, data, wake_at);
                self.carried = carried;
                self.due = wake_at.map_or(record.at, |at| at.max(record.at));
                self.counted_from = self.due;
                (self.attempts, self.failed_at) = (0, None);
                self.effects.clear();
                self.status = self.standing();
                self.between_steps = self.is_paused();
            }
            Body::Intent { effect } => {
                self.effects.push(EffectLog { name: effect, result: None });
            }
            Body::Result { effect, data } => {
                self.effects.retain(|known| known.name != effect);
                self.effects.push(EffectLog { name: effect, result: Some(data) });
            }
            Body::Attempt { attempt, next_at, .. } => {
                (self.attempts, self.failed_at) = (attempt, Some(record.at));
                self.wake_at = Some(next_at);
                self.between_steps = self.is_paused();
            }
            Body::Cancel { reason } => self.ask_to_stop(reason),
            Body::Deadline => {
                self.carried.deadline = None;
                self.ask_to_stop("its deadline has passed".to_owned());
            }
            Body::Pause { fault, between_steps } => {
                self.carried.paused = Some(fault);
                self.status = self.standing();
                self.between_steps = between_steps;
            }
            Body::Resume | Body::Redrive => {
                self.goes_on();
                // A time that its author chose still counts; the wait for an attempt does not.
                if self.failed_at.is_some() {
                    self.wake_at = None;
                }
                (self.attempts, self.failed_at) = (0, None);
                self.counted_from = self.due.max(record.at);
            }
            Body::Signal(signal) => self.hear(signal),
            Body::ChildEnded { run, end } => {
                for child in &mut self.carried.children {
                    if child.run == run {
                        child.end = Some(end.clone());
                    }
                }
            }
            Body::End { ending, fault } => self.status = Status::Ended(ending, fault),
        }
        Ok(())
    }

    /// How it ended; `None` while it has not.
    pub fn end(&self) -> Option<End> {
        let Status::Ended(ending, fault) = &self.status else { return None };
        let (state, data) = (self.state.clone(), self.data.clone());
        Some(End { ending: *ending, state, data, fault: fault.clone() })
    }

    fn is_paused(&self) -> bool {
        matches!(self.status, Status::Paused(_))
    }

    fn standing(&self) -> Status {
        self.carried.paused.clone().map_or(Status::Active, Status::Paused)
    }

    /// A run that waits for an operator goes on when it is asked to stop.
    fn ask_to_stop(&mut self, reason: String) {
        self.carried.asked.get_or_insert_with(|| reason.clone());
        self.carried.cancel.get_or_insert(reason);
        self.goes_on();
    }

    fn goes_on(&mut self) {
        self.carried.paused = None;
        self.status = Status::Active;
        self.between_steps = false;
    }

    fn hear(&mut self, signal: Pending) {
        let Carried { heard, signals, .. } = &mut *self.carried;
        if heard.len() == Carried::HEARD_MAX {
            heard.remove(0);
        }
        heard.push(signal.id.clone());
        signals.push(signal);
    }
}
