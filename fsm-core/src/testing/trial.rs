//! A machine, its world, and everything that can go wrong with both.

use std::{fmt, fmt::Debug, sync::Arc};

use serde::Serialize;

use super::{
    Medium, TrialError, TrialErrorKind, TrialReport,
    draw::Draw,
    play::Play,
    schedule::{Blow, DEATHS, FAILURES, Failure, MOMENTS, Schedule},
    trace::{Alike, Observed, Trace},
};
use crate::{AnyMachine, Data, End, Fault, Journal, MemoryJournal, Pending, RunId, Signal};

/// How many schedules are played unless the author says otherwise.
const AT_MOST: usize = 20_000;

/// What opens the journal of one play, for each of its processes.
pub(super) type Open = Box<dyn Fn() -> Arc<dyn Journal>>;

/// What is made of a world, or seen in it.
pub(super) type Of<W, T> = Box<dyn Fn(&W) -> T>;

/// What must hold of a world and of how the run ended in it.
pub(super) type OfEnd<W> = Box<dyn Fn(&W, &End) -> Result<(), String>>;

/// A run of a machine, played once undisturbed, and again and again with one thing or two going
/// wrong; see the [module](super) for what it promises.
///
/// `W` is the outside world, `()` if the machines need none.
pub struct Trial<W = ()> {
    pub(super) machine: String,
    pub(super) input: Result<Data, Fault>,
    pub(super) world: Box<dyn Fn() -> W>,
    pub(super) machines: Vec<Of<W, Box<dyn AnyMachine>>>,
    pub(super) signals: Vec<Pending>,
    pub(super) observe: Vec<Of<W, Box<dyn Observed>>>,
    pub(super) throughout: Vec<Of<W, Result<(), String>>>,
    pub(super) always: Vec<OfEnd<W>>,
    may_fail: bool,
    pub(super) journal: Box<dyn Fn() -> Open>,
    pub(super) seed: Option<u64>,
    alike: Alike,
    at_most: usize,
}

impl Trial {
    /// A run of the machine named `machine` that begins with `input`.
    pub fn new(machine: impl Into<String>, input: &impl Serialize) -> Self {
        Trial {
            machine: machine.into(),
            input: Data::encode(input),
            world: Box::new(|| ()),
            machines: Vec::new(),
            signals: Vec::new(),
            observe: Vec::new(),
            throughout: Vec::new(),
            always: Vec::new(),
            may_fail: false,
            journal: Box::new(|| {
                let journal = MemoryJournal::new();
                Box::new(move || Arc::new(journal.clone()))
            }),
            seed: None,
            alike: Alike::All,
            at_most: AT_MOST,
        }
    }

    /// The outside world: `world` makes a new one for each play. It is what survives the death of
    /// a process, beside the journal. To be named before whatever looks at it.
    #[must_use]
    pub fn world<W: 'static>(self, world: impl Fn() -> W + 'static) -> Trial<W> {
        Trial {
            machine: self.machine,
            input: self.input,
            world: Box::new(world),
            machines: of_any(self.machines),
            signals: self.signals,
            observe: of_any(self.observe),
            throughout: of_any(self.throughout),
            always: self.always.into_iter().map(of_any_end).collect(),
            may_fail: self.may_fail,
            journal: self.journal,
            seed: self.seed,
            alike: self.alike,
            at_most: self.at_most,
        }
    }
}

impl<W: 'static> Trial<W> {
    /// A machine that every process registers: the one under test, and those of its children.
    #[must_use]
    pub fn machine<A: AnyMachine + 'static>(mut self, machine: impl Fn(&W) -> A + 'static) -> Self {
        self.machines.push(Box::new(move |world| Box::new(machine(world))));
        self
    }

    /// Tells a run `signal` once one stands in a state that waits for it, and again, under the
    /// same `id`, in each process that follows. Several are told in the order given here.
    #[must_use]
    pub fn signal<G: Signal>(mut self, id: impl Into<String>, signal: &G) -> Self {
        match Data::encode(signal) {
            Ok(data) => {
                self.signals.push(Pending { id: id.into(), name: G::NAME.to_owned(), data });
            }
            Err(fault) => self.input = Err(fault),
        }
        self
    }

    /// Something about the world that must be in the end as it is undisturbed.
    #[must_use]
    pub fn observe<T: PartialEq + Debug + 'static>(
        mut self,
        observe: impl Fn(&W) -> T + 'static,
    ) -> Self {
        self.observe.push(Box::new(move |world| Box::new(observe(world))));
        self
    }

    /// Something that holds in the end of every play, whatever went wrong and however the run
    /// ended: "nothing is left frozen".
    #[must_use]
    pub fn always(mut self, holds: impl Fn(&W) -> Result<(), String> + 'static) -> Self {
        self.always.push(Box::new(move |world, _| holds(world)));
        self
    }

    /// As [`always`](Trial::always), for what depends on how the run ended: "a run that was
    /// cancelled has left nothing behind".
    #[must_use]
    pub fn always_at_end(
        mut self,
        holds: impl Fn(&W, &End) -> Result<(), String> + 'static,
    ) -> Self {
        self.always.push(Box::new(holds));
        self
    }

    /// The run that nothing disturbs ends with a fault, and is meant to. Without this such a run
    /// is a mistake in the trial or in the machine: it would be found "the same" after each crash.
    #[must_use]
    pub fn may_fail(mut self) -> Self {
        self.may_fail = true;
        self
    }

    /// Something that holds not only in the end, as what holds [`always`](Trial::always), but also
    /// whenever a process has died: "the file is the old one or the new one".
    #[must_use]
    pub fn throughout(mut self, holds: impl Fn(&W) -> Result<(), String> + 'static) -> Self {
        self.throughout.push(Box::new(holds));
        self
    }

    /// Where the records are kept, a [`MemoryJournal`] by default. `fresh` makes a new, empty
    /// [`Medium`] for each play, which is opened once for each process.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// use fsm_core::{sqlite::{SqliteJournal, Store}, testing::Trial};
    ///
    /// let trial = Trial::new("backup", &()).journal(|| {
    ///     let directory = tempfile::tempdir().unwrap();
    ///     move || {
    ///         let store = Store::open(&directory.path().join("state.db")).unwrap();
    ///         SqliteJournal::new(store).unwrap()
    ///     }
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn journal<M: Medium + 'static>(mut self, fresh: impl Fn() -> M + 'static) -> Self {
        self.journal = Box::new(move || {
            let medium = fresh();
            Box::new(move || Arc::new(medium.open()))
        });
        self
    }

    /// Draws the order in which tasks run, and the sample of [`at_most`](Trial::at_most), from
    /// `seed`; see [`ManualEnvironment::seeded`](super::ManualEnvironment::seeded).
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Plays no more than `schedules` of each kind, drawn evenly from all there are. 20,000 by
    /// default.
    #[must_use]
    pub fn at_most(mut self, schedules: usize) -> Self {
        self.at_most = schedules.max(1);
        self
    }

    /// The run may enter these states although the undisturbed one does not: those that look at
    /// the world after an interruption. What follows counts as the same although its keys hold
    /// other numbers, and so does a state that is entered several times in a row.
    #[must_use]
    pub fn allow_states(mut self, states: &[&str]) -> Self {
        self.alike = Alike::AllBut(states.iter().map(|&state| state.to_owned()).collect());
        self
    }

    /// Compares how the run ended and what is observed, and nothing else.
    #[must_use]
    pub fn compare_ends_only(mut self) -> Self {
        self.alike = Alike::Ends;
        self
    }

    /// Plays the run undisturbed, twice.
    ///
    /// # Errors
    ///
    /// [`TrialError`], if it does not come to its end, breaks what must always hold, or differs
    /// from time to time.
    pub fn undisturbed(&self) -> Result<TrialReport, TrialError> {
        self.calm().map(|(report, _)| report)
    }

    /// Lets the process die at each write of the journal, before and after it lands, silently and
    /// with an error that is heard; and then the process that follows at each of its writes.
    /// Everything must be as undisturbed.
    ///
    /// # Errors
    ///
    /// [`TrialError`] names what differs, and in which schedule.
    pub fn crash_everywhere(&self) -> Result<TrialReport, TrialError> {
        let (mut report, calm) = self.calm()?;
        let singles = crashes(&[], calm.writes[0]);
        report.there_are(singles.len());
        let mut pairs = Vec::new();
        for schedule in self.sample(&singles) {
            let trace = self.same_as(&calm, schedule)?;
            if let Some(&writes) = trace.writes.get(1) {
                pairs.extend(crashes(&schedule.0, writes));
            }
            report.played(&trace);
        }
        report.there_are(pairs.len());
        for schedule in self.sample(&pairs) {
            report.played(&self.same_as(&calm, schedule)?);
        }
        Ok(report)
    }

    /// Throws the outcome of each step away, once, and runs the step again under the same keys,
    /// with the intents that it recorded, and with none, one, two... of its effects recorded.
    /// Everything must be as undisturbed.
    ///
    /// # Errors
    ///
    /// [`TrialError`] names what differs, and in which schedule.
    pub fn repeat_every_effect(&self) -> Result<TrialReport, TrialError> {
        let (report, calm) = self.calm()?;
        let calls = (1..).zip(&calm.calls);
        let schedules = calls.flat_map(|(call, &effects)| {
            (0..=effects).map(move |known| Blow::Repeat { call, known })
        });
        self.play_all(report, schedules, |trace, _| self.compare(trace, &calm, true))
    }

    /// Makes each call of a step fail, before it runs and after it has run: with a retryable
    /// fault, after which everything must be as undisturbed if attempts were left, and with a
    /// permanent one, after which the run must come to an end in which what must
    /// [always](Trial::always) hold does.
    ///
    /// # Errors
    ///
    /// [`TrialError`] names what is wrong, and in which schedule.
    pub fn fail_every_step(&self) -> Result<TrialReport, TrialError> {
        let (report, calm) = self.calm()?;
        let failures = FAILURES
            .iter()
            .flat_map(|(failure, _)| MOMENTS.iter().map(move |(moment, _)| (*failure, *moment)));
        let failures: Vec<_> = failures.collect();
        let schedules = (1..=calm.calls.len()).flat_map(|call| {
            let fail = move |(failure, moment)| Blow::Fail { call, moment, failure };
            failures.clone().into_iter().map(fail)
        });
        self.play_all(report, schedules, |trace, blow| match blow {
            Blow::Fail { failure: Failure::Retryable, .. } if trace.is_mended(&calm) => {
                self.compare(trace, &calm, false)
            }
            _ => Ok(()),
        })
    }

    /// Asks the run to stop in each call of a step, before its work and after it, and whenever
    /// everything waits. The run must come to an end in which what must [always](Trial::always)
    /// hold does.
    ///
    /// # Errors
    ///
    /// [`TrialError`] names what is wrong, and in which schedule.
    pub fn cancel_every_step(&self) -> Result<TrialReport, TrialError> {
        let (report, calm) = self.calm()?;
        let calls = (1..=calm.calls.len()).flat_map(|call| {
            MOMENTS.iter().map(move |(moment, _)| Blow::Cancel { call, moment: *moment })
        });
        let waits = (1..=calm.waits).map(|wait| Blow::CancelWait { wait });
        self.play_all(report, calls.chain(waits), |_, _| Ok(()))
    }

    /// All of it: crashes, repeated effects, failures and cancels.
    ///
    /// # Errors
    ///
    /// [`TrialError`] of the first schedule that goes wrong.
    pub fn everything(&self) -> Result<TrialReport, TrialError> {
        let mut report = self.crash_everywhere()?;
        report.add(&self.repeat_every_effect()?);
        report.add(&self.fail_every_step()?);
        report.add(&self.cancel_every_step()?);
        Ok(report)
    }

    /// Plays one schedule, as a [`TrialError`] names it, and compares what can be compared.
    ///
    /// # Errors
    ///
    /// [`TrialError`], as when the schedule was one of many.
    pub fn replay(&self, schedule: &str) -> Result<TrialReport, TrialError> {
        let (mut report, calm) = self.calm()?;
        let schedule: Schedule = schedule.parse().map_err(|why: String| {
            TrialError::new(TrialErrorKind::Setup, why).of(
                &self.machine,
                &Schedule::default(),
                None,
            )
        })?;
        let trace = Play::play(self, &schedule)?;
        if trace.deaths < schedule.crashes().count() {
            let what = "the play ends before all of the schedule has happened";
            return Err(TrialError::new(TrialErrorKind::Setup, what).of(
                &self.machine,
                &schedule,
                self.seed,
            ));
        }
        let compared = match schedule.on_step() {
            Some(Blow::Cancel { .. } | Blow::CancelWait { .. }) => Ok(()),
            Some(Blow::Fail { failure: Failure::Permanent, .. }) => Ok(()),
            Some(Blow::Fail { .. }) if !trace.is_mended(&calm) => Ok(()),
            Some(Blow::Fail { .. }) => self.compare(&trace, &calm, false),
            Some(Blow::Repeat { .. } | Blow::Crash { .. }) | None => {
                self.compare(&trace, &calm, true)
            }
        };
        compared.map_err(|error| error.of(&self.machine, &schedule, self.seed))?;
        report.there_are(1);
        report.played(&trace);
        Ok(report)
    }

    /// The run that is started.
    pub(super) fn root(&self) -> RunId {
        RunId::new("trial").unwrap_or_else(|error| unreachable!("a word names a run: {error}"))
    }

    fn calm(&self) -> Result<(TrialReport, Trace), TrialError> {
        let calm = Play::play(self, &Schedule::default())?;
        if let Some(fault) = calm.end.fault.as_ref().filter(|_| !self.may_fail) {
            let End { ending, state, .. } = &calm.end;
            let (ending, what) = (ending.as_str(), "the run fails although nothing disturbs it");
            return Err(TrialError::new(TrialErrorKind::Setup, what)
                .detail("found", format!("{ending} in `{state}`: {fault}"))
                .detail("advice", "mend the machine or the trial, or say `.may_fail()`")
                .of(&self.machine, &Schedule::default(), self.seed));
        }
        // A run that differs from itself would be told to differ because of what disturbs it.
        self.same_as(&calm, &Schedule::default())?;
        Ok((TrialReport::new(&self.machine, &calm), calm))
    }

    fn same_as(&self, calm: &Trace, schedule: &Schedule) -> Result<Trace, TrialError> {
        let trace = Play::play(self, schedule)?;
        let compared = self.compare(&trace, calm, true);
        compared.map_err(|error| error.of(&self.machine, schedule, self.seed))?;
        Ok(trace)
    }

    fn play_all(
        &self,
        mut report: TrialReport,
        blows: impl Iterator<Item = Blow>,
        judge: impl Fn(&Trace, Blow) -> Result<(), TrialError>,
    ) -> Result<TrialReport, TrialError> {
        let blows: Vec<_> = blows.collect();
        report.there_are(blows.len());
        for &blow in self.sample(&blows) {
            let schedule = Schedule(vec![blow]);
            let trace = Play::play(self, &schedule)?;
            judge(&trace, blow).map_err(|error| error.of(&self.machine, &schedule, self.seed))?;
            report.played(&trace);
        }
        Ok(report)
    }

    fn compare(&self, trace: &Trace, calm: &Trace, attempts: bool) -> Result<(), TrialError> {
        trace.compare(calm, &self.alike, attempts).map_err(|difference| {
            TrialError::new(TrialErrorKind::Different, difference.what)
                .detail("expected", difference.expected)
                .detail("found", difference.found)
        })
    }

    /// No more of `all` than the author wants: one from each of as many equal parts.
    fn sample<'a, T>(&self, all: &'a [T]) -> impl Iterator<Item = &'a T> {
        let (count, all_count) = (self.at_most.min(all.len()), all.len());
        let mut draw = Draw::of(self.seed.unwrap_or_default(), 3);
        (0..count).map(move |part| {
            let (from, to) = (part * all_count / count, (part + 1) * all_count / count);
            &all[from + draw.below(to - from)]
        })
    }
}

/// What asks for no world is right for any.
fn of_any<W: 'static, T: 'static>(all: Vec<Of<(), T>>) -> Vec<Of<W, T>> {
    all.into_iter().map(|of| Box::new(move |_: &W| of(&())) as Of<W, T>).collect()
}

fn of_any_end<W: 'static>(of: OfEnd<()>) -> OfEnd<W> {
    Box::new(move |_: &W, end| of(&(), end))
}

/// `before`, and then a crash at each of `writes` writes.
fn crashes(before: &[Blow], writes: usize) -> Vec<Schedule> {
    let deaths = DEATHS.iter().map(|(death, _)| *death);
    let blows =
        deaths.flat_map(|death| (1..=writes).map(move |write| Blow::Crash { write, death }));
    blows.map(|blow| Schedule([before, &[blow]].concat())).collect()
}

impl<W> Debug for Trial<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").field("machine", &self.machine).field("seed", &self.seed).finish()
    }
}
