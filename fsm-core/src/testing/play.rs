//! One play of a trial: as many processes as it takes, the first of which die as the schedule says.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::pending;

use super::{
    Intercepted, ManualEnvironment, Trial, TrialError, TrialErrorKind,
    meddler::{Meddler, Meddling},
    process::Process,
    schedule::{Blow, Death, Schedule},
    trace::{RunTrace, Trace},
    trial::{Of, Open},
};
use crate::{
    Body, Graph, Journal, JournalError, JournalErrorKind, Pending, Record, RunId, RunSnapshot,
    Status,
};

/// A process that polls more often than this, or a play that moves more often, has no end.
const POLLS_MAX: usize = 100_000;
const MOVES_MAX: usize = 10_000;
/// How long a journal may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// When the journal of one process dies, and how; and how often it was written to.
struct Fate {
    dies: Option<(usize, Death)>,
    writes: AtomicUsize,
    dead: AtomicBool,
}

impl Fate {
    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Dead, and nobody was told.
    fn is_silent(&self) -> bool {
        self.is_dead() && matches!(self.dies, Some((_, Death::Before | Death::After)))
    }

    async fn append(
        &self,
        journal: Arc<dyn Journal>,
        records: Vec<Record>,
    ) -> Result<(), JournalError> {
        if self.is_dead() {
            return pending().await;
        }
        let write = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        let Some((_, death)) = self.dies.filter(|(at, _)| *at == write) else {
            return journal.append(records).await;
        };
        if let Death::After | Death::ErrorAfter = death {
            journal.append(records).await?;
        }
        self.dead.store(true, Ordering::SeqCst);
        match death {
            Death::Before | Death::After => pending().await,
            Death::ErrorBefore | Death::ErrorAfter => {
                Err(JournalError::new(JournalErrorKind::Storage, "the trial's journal"))
            }
        }
    }
}

/// How a process comes to its end.
enum Fin {
    Died,
    /// Every run has ended.
    Done,
}

pub(super) struct Play<'t, W> {
    trial: &'t Trial<W>,
    blow: Option<Blow>,
    environment: ManualEnvironment,
    world: W,
    meddling: Arc<Meddling>,
    graphs: Vec<Graph>,
    root: RunId,
    /// Whom each signal was told.
    told: Vec<Option<RunId>>,
    writes: Vec<usize>,
    waits: usize,
    moves: usize,
    deaths: usize,
}

impl<'t, W: 'static> Play<'t, W> {
    /// Plays `schedule` to its end.
    pub(super) fn play(trial: &'t Trial<W>, schedule: &Schedule) -> Result<Trace, TrialError> {
        let world = (trial.world)();
        let mut play = Play {
            trial,
            blow: schedule.on_step(),
            environment: trial.seed.map_or_else(Default::default, ManualEnvironment::seeded),
            meddling: Arc::new(Meddling::new(schedule.on_step())),
            graphs: Vec::new(),
            root: trial.root(),
            told: vec![None; trial.signals.len()],
            writes: Vec::new(),
            waits: 0,
            moves: 0,
            deaths: 0,
            world,
        };
        let open = (trial.journal)();
        let traced = play.live(schedule, &open).and_then(|()| play.trace(&*open()));
        // A task holds the environment that holds the task.
        play.environment.drop_tasks();
        traced.map_err(|error| error.of(&trial.machine, schedule, trial.seed))
    }

    /// Lives through all processes.
    fn live(&mut self, schedule: &Schedule, open: &Open) -> Result<(), TrialError> {
        let mut crashes = schedule.crashes();
        loop {
            let fin = self.process(open(), crashes.next())?;
            self.environment.drop_tasks();
            self.holds(&self.trial.throughout)?;
            match fin {
                Fin::Died => self.deaths += 1,
                Fin::Done => return Ok(()),
            }
        }
    }

    fn process(
        &mut self,
        journal: Arc<dyn Journal>,
        dies: Option<(usize, Death)>,
    ) -> Result<Fin, TrialError> {
        let fate =
            Arc::new(Fate { dies, writes: AtomicUsize::new(0), dead: AtomicBool::new(false) });
        let mortal = {
            let fate = Arc::clone(&fate);
            Intercepted::over(Arc::clone(&journal), move |journal, records| {
                let fate = Arc::clone(&fate);
                async move { fate.append(journal, records).await }
            })
        };
        let process = Process::new(mortal.clone(), &self.environment);
        self.graphs.clear();
        for machine in &self.trial.machines {
            let machine = machine(&self.world);
            self.graphs.push(machine.graph().clone());
            let meddler = Meddler::new(machine, Arc::clone(&self.meddling));
            process.register(meddler).map_err(|error| setup(&error))?;
        }
        let input = self.trial.input.clone().map_err(|error| setup(&error))?;
        let told = self.told.iter().zip(&self.trial.signals);
        let told = told.filter_map(|(run, signal)| Some((run.clone()?, signal.clone())));
        process.begin(self.root.clone(), &self.trial.machine, input, told.collect());
        let fin = self.run(&process, &*journal, &mortal, &fate);
        self.writes.push(fate.writes.load(Ordering::SeqCst));
        fin
    }

    fn run(
        &mut self,
        process: &Process,
        journal: &dyn Journal,
        mortal: &Intercepted,
        fate: &Fate,
    ) -> Result<Fin, TrialError> {
        let mut polls = 0;
        loop {
            self.environment.run_while(|| {
                polls += 1;
                polls < POLLS_MAX && !fate.is_silent()
            });
            if fate.is_dead() {
                return Ok(Fin::Died);
            }
            if polls >= POLLS_MAX || self.moves >= MOVES_MAX {
                return Err(self.stuck(TrialErrorKind::Endless, process, journal));
            }
            if mortal.unanswered() > 0 {
                // Another thread is to answer.
                if !self.environment.wait_for_others(PATIENCE) {
                    let error = TrialError::new(TrialErrorKind::Standstill, "");
                    return Err(error.detail("because", "the journal does not answer"));
                }
                continue;
            }
            let unfinished = self.unfinished(journal)?;
            if unfinished.is_empty() && self.loads(journal, &self.root)?.is_some() {
                return Ok(Fin::Done);
            }
            self.moves += 1;
            if !self.go_on(process, &unfinished) {
                return Err(self.stuck(TrialErrorKind::Standstill, process, journal));
            }
        }
    }

    /// Everything stands still: does what lets somebody go on. False if nothing does.
    fn go_on(&mut self, process: &Process, unfinished: &[RunSnapshot]) -> bool {
        if let Some((run, done)) = self.meddling.stop_wanted() {
            process.cancel(run, Some(done));
            return true;
        }
        if let Some((signal, run)) = self.due_signal(unfinished) {
            self.told[signal] = Some(run.clone());
            process.tell(run, self.trial.signals[signal].clone());
            return true;
        }
        self.waits += 1;
        if self.blow == Some(Blow::CancelWait { wait: self.waits }) {
            process.cancel(self.root.clone(), None);
            return true;
        }
        if self.environment.advance_to_next() {
            return true;
        }
        let paused = unfinished.iter().filter(|run| matches!(run.status, Status::Paused(_)));
        let paused: Vec<_> = paused.map(|snapshot| snapshot.run.clone()).collect();
        for run in &paused {
            process.unpause(run.clone());
        }
        !paused.is_empty()
    }

    /// The first signal that was not told yet and that a run waits for.
    fn due_signal(&self, unfinished: &[RunSnapshot]) -> Option<(usize, RunId)> {
        let untold = self.told.iter().enumerate().filter(|(_, told)| told.is_none());
        untold.map(|(index, _)| index).find_map(|index| {
            let signal: &Pending = &self.trial.signals[index];
            let waits = |snapshot: &&RunSnapshot| {
                let graph = self.graphs.iter().find(|graph| graph.machine == snapshot.machine);
                let wait = graph
                    .and_then(|graph| graph.state(&snapshot.state))
                    .and_then(|state| state.wait.as_ref());
                wait.is_some_and(|wait| wait.signals.contains(&signal.name))
            };
            unfinished.iter().find(waits).map(|snapshot| (index, snapshot.run.clone()))
        })
    }

    /// The error of a play that does not come to its end, and where its runs stand.
    fn stuck(&self, kind: TrialErrorKind, process: &Process, journal: &dyn Journal) -> TrialError {
        let mut error = TrialError::new(kind, "");
        for run in self.unfinished(journal).into_iter().flatten() {
            let (name, state, status) = (&run.run, &run.state, run.status.as_str());
            let effects = run.effects.len();
            error = error.detail(
                "run",
                format!(
                    "`{name}` is {status} in `{state}`, entry {}, {effects} effects",
                    run.entry
                ),
            );
            if let Status::Paused(fault) = &run.status {
                error = error.detail("because", fault.to_string());
            }
        }
        for trouble in process.troubles() {
            error = error.detail("because", trouble);
        }
        let untold = self.told.iter().zip(&self.trial.signals).filter(|(told, _)| told.is_none());
        for (_, signal) in untold {
            error = error.detail("untold", format!("signal `{}` ({})", signal.id, signal.name));
        }
        error
    }

    fn unfinished(&self, journal: &dyn Journal) -> Result<Vec<RunSnapshot>, TrialError> {
        let runs = self.environment.block_on(journal.unfinished(None, usize::MAX));
        let runs = runs.map_err(|error| unsound("the journal", error.to_string()))?;
        let read = runs
            .into_iter()
            .map(|loaded| loaded.snapshot.map_err(|why| unsound(format!("`{}`", loaded.run), why)));
        read.collect()
    }

    fn loads(&self, journal: &dyn Journal, run: &RunId) -> Result<Option<RunSnapshot>, TrialError> {
        let loaded = self.environment.block_on(journal.load(run));
        loaded.map_err(|error| unsound(format!("`{run}`"), error.to_string()))
    }

    /// Checks the world as the last process has left it.
    fn holds(&self, all: &[Of<W, Result<(), String>>]) -> Result<(), TrialError> {
        let checked = all.iter().try_for_each(|holds| holds(&self.world));
        checked.map_err(|why| TrialError::new(TrialErrorKind::Broken, why))
    }

    /// What the play has left.
    fn trace(&self, journal: &dyn Journal) -> Result<Trace, TrialError> {
        let (mut runs, mut histories) = (BTreeMap::new(), Vec::new());
        let mut found = vec![self.root.clone()];
        while let Some(run) = found.pop() {
            let records = self.environment.block_on(journal.history(&run));
            let records =
                records.map_err(|error| unsound(format!("`{run}`"), error.to_string()))?;
            let trace = RunTrace::of(&records).map_err(|why| unsound(format!("`{run}`"), why))?;
            for child in records.iter().flat_map(children) {
                if !runs.contains_key(&child) && !found.contains(&child) && child != run {
                    found.push(child);
                }
            }
            runs.insert(run, trace);
            histories.push(records);
        }
        let end = runs.get(&self.root).map(|run: &RunTrace| run.end.clone());
        let seen = self.meddling.seen();
        let end =
            end.ok_or_else(|| unsound(format!("`{}`", self.root), "it is gone".to_owned()))?;
        let mut always = self.trial.always.iter();
        let checked = always.try_for_each(|holds| holds(&self.world, &end));
        checked.map_err(|why| TrialError::new(TrialErrorKind::Broken, why))?;
        Ok(Trace {
            root: self.root.clone(),
            end,
            runs,
            histories,
            graphs: self.graphs.clone(),
            keys: seen.keys.clone(),
            observed: self.trial.observe.iter().map(|observe| observe(&self.world)).collect(),
            writes: self.writes.clone(),
            calls: seen.calls.clone(),
            waits: self.waits,
            deaths: self.deaths,
            steps_repeated: seen.steps_repeated,
            repeated: seen.repeated,
            given_up: seen.given_up,
        })
    }
}

/// The children that the run had when `record` was written.
fn children(record: &Record) -> Vec<RunId> {
    match &record.body {
        Body::Enter { carried, .. } => {
            carried.children.iter().map(|child| child.run.clone()).collect()
        }
        _ => Vec::new(),
    }
}

fn setup(error: &dyn std::error::Error) -> TrialError {
    TrialError::new(TrialErrorKind::Setup, error.to_string())
}

fn unsound(subject: impl Into<String>, why: String) -> TrialError {
    TrialError::new(TrialErrorKind::Unsound, subject).detail("because", why)
}
