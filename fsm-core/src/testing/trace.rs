//! What is left of one play of a trial, and in what two of them differ.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Debug},
};

use crate::{Body, End, Graph, Record, RunId, RunSnapshot};

/// What one play has left.
pub(super) struct Trace {
    /// The run that the trial started, and how it ended.
    pub(super) root: RunId,
    pub(super) end: End,
    pub(super) runs: BTreeMap<RunId, RunTrace>,
    pub(super) histories: Vec<Vec<Record>>,
    pub(super) graphs: Vec<Graph>,
    /// Every key under which a step asked for an effect, in any process.
    pub(super) keys: BTreeSet<Key>,
    pub(super) observed: Vec<Box<dyn Observed>>,
    /// Journal writes, for each process.
    pub(super) writes: Vec<usize>,
    /// For each call of a step, how many effects its outcome had.
    pub(super) calls: Vec<usize>,
    /// How often everything stood still and time passed.
    pub(super) waits: usize,
    pub(super) deaths: usize,
    /// Steps that ran again after they had come to their end.
    pub(super) steps_repeated: usize,
    /// Effects that ran again, under a key that had run.
    pub(super) repeated: usize,
    /// States that were given up: calls of `on_exhausted`.
    pub(super) given_up: usize,
}

/// What the journal says of one run.
pub(super) struct RunTrace {
    pub(super) end: End,
    entered: Vec<String>,
    /// Entry and attempt.
    attempts: Vec<(u64, u32)>,
    recorded: BTreeSet<Key>,
}

/// The key of an effect.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) run: RunId,
    pub(super) entry: u64,
    pub(super) effect: String,
}

impl Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.run, self.entry, self.effect)
    }
}

/// Something that an author compares, its type forgotten.
pub(super) trait Observed: Debug {
    fn is_same(&self, other: &dyn Observed) -> bool;
    fn as_any(&self) -> &dyn Any;
}

impl<T: PartialEq + Debug + 'static> Observed for T {
    fn is_same(&self, other: &dyn Observed) -> bool {
        other.as_any().downcast_ref::<T>().is_some_and(|other| self == other)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What has to be equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Alike {
    /// Everything.
    All,
    /// Everything but these states, and how often a state was entered in a row.
    AllBut(Vec<String>),
    /// How the run ended, and what is observed.
    Ends,
}

/// In what a play differs from the undisturbed one.
pub(super) struct Difference {
    pub(super) what: String,
    pub(super) expected: String,
    pub(super) found: String,
}

impl RunTrace {
    /// What `records`, all of one run that has ended, say of it.
    ///
    /// # Errors
    ///
    /// Why they are no sound history.
    pub(super) fn of(records: &[Record]) -> Result<Self, String> {
        let snapshot = RunSnapshot::fold(records.iter().cloned())?;
        let end = snapshot.end().ok_or("it has no end")?;
        let (mut entered, mut attempts, mut recorded) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut at = 0;
        for record in records {
            match &record.body {
                Body::Enter { entry, .. } if *entry != at + 1 => {
                    return Err(format!("entry {entry} follows entry {at}"));
                }
                Body::Enter { state, entry, .. } => {
                    at = *entry;
                    entered.push(state.clone());
                }
                Body::Attempt { attempt, .. } => attempts.push((at, *attempt)),
                Body::Intent { effect } | Body::Result { effect, .. } => {
                    let (run, effect) = (record.run.clone(), effect.clone());
                    recorded.insert(Key { run, entry: at, effect });
                }
                _ => {}
            }
        }
        Ok(RunTrace { end, entered, attempts, recorded })
    }

    /// The states that were entered, without `extra` ones and without repetition in a row.
    fn path(&self, extra: &[String]) -> Vec<&String> {
        let mut path: Vec<_> = self.entered.iter().filter(|state| !extra.contains(state)).collect();
        path.dedup();
        path
    }
}

impl Trace {
    /// Whether attempts were left for a step that was made to fail: no more was given up than
    /// undisturbed, and no run ended with the fault that the trial made.
    pub(super) fn is_mended(&self, undisturbed: &Trace) -> bool {
        let made = |run: &RunTrace| {
            run.end.fault.as_ref().is_some_and(|fault| fault.code().starts_with("trial."))
        };
        self.given_up <= undisturbed.given_up && !self.runs.values().any(made)
    }

    /// Says in what this differs from what was `undisturbed`. Attempts count unless faults were
    /// caused.
    pub(super) fn compare(
        &self,
        undisturbed: &Trace,
        alike: &Alike,
        attempts: bool,
    ) -> Result<(), Difference> {
        same(|| format!("the end of `{}`", self.root), &undisturbed.end, &self.end)?;
        match alike {
            Alike::All => self.compare_all(undisturbed, attempts)?,
            Alike::AllBut(extra) => self.compare_paths(undisturbed, extra)?,
            Alike::Ends => {}
        }
        let pairs = undisturbed.observed.iter().zip(&self.observed);
        for (number, (expected, found)) in (1..).zip(pairs) {
            if !expected.is_same(&**found) {
                let what = match self.observed.len() {
                    1 => "what is observed in the end".to_owned(),
                    _ => format!("what is observed in the end ({number})"),
                };
                return Err(difference(what, expected, found));
            }
        }
        Ok(())
    }

    fn compare_all(&self, undisturbed: &Trace, attempts: bool) -> Result<(), Difference> {
        let ids = |trace: &Trace| trace.runs.keys().cloned().collect::<Vec<_>>();
        same(|| "the runs".to_owned(), &ids(undisturbed), &ids(self))?;
        for ((id, expected), found) in undisturbed.runs.iter().zip(self.runs.values()) {
            same(|| format!("the states that `{id}` entered"), &expected.entered, &found.entered)?;
            same(|| format!("the end of `{id}`"), &expected.end, &found.end)?;
            if attempts {
                let what = || format!("the failed attempts of `{id}`");
                same(what, &expected.attempts, &found.attempts)?;
            }
            let what = || format!("the effects that `{id}` recorded");
            same(what, &expected.recorded, &found.recorded)?;
        }
        let what = || "the keys under which effects ran".to_owned();
        same(what, &undisturbed.keys, &self.keys)
    }

    /// Entries are counted, so a state more shifts the keys of what follows and the ids of
    /// children: those are compared without their numbers.
    fn compare_paths(&self, undisturbed: &Trace, extra: &[String]) -> Result<(), Difference> {
        let paths = |trace: &Trace| {
            let runs = trace.runs.iter();
            let mut paths: Vec<_> = runs
                .map(|(id, run)| {
                    let path: Vec<_> = run.path(extra).into_iter().cloned().collect();
                    (without_numbers(id.as_str()), path, run.end.ending)
                })
                .collect();
            paths.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
            paths
        };
        let what = || "the states that were entered".to_owned();
        same(what, &paths(undisturbed), &paths(self))?;
        let keys = |trace: &Trace| {
            let ours = trace.keys.iter().filter(|key| !trace.entered(key, extra));
            ours.map(|key| without_numbers(&format!("{key:?}"))).collect::<BTreeSet<_>>()
        };
        let what = || "the effects that ran".to_owned();
        same(what, &keys(undisturbed), &keys(self))
    }

    /// Whether the effect of `key` belongs to one of `states`.
    fn entered(&self, key: &Key, states: &[String]) -> bool {
        let place = usize::try_from(key.entry).unwrap_or(usize::MAX).wrapping_sub(1);
        let run = self.runs.get(&key.run);
        run.and_then(|run| run.entered.get(place)).is_some_and(|state| states.contains(state))
    }
}

fn without_numbers(id: &str) -> String {
    let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<_> = id.split('/').filter(|part| !is_number(part)).collect();
    parts.join("/")
}

fn same<T: PartialEq + Debug>(
    what: impl Fn() -> String,
    expected: &T,
    found: &T,
) -> Result<(), Difference> {
    if expected == found { Ok(()) } else { Err(difference(what(), expected, found)) }
}

fn difference(what: String, expected: &impl Debug, found: &impl Debug) -> Difference {
    Difference { what, expected: format!("{expected:?}"), found: format!("{found:?}") }
}
