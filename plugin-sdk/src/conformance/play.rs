//! One run of a plugin's machine, played to its end: as many processes as it takes, one of which
//! may die, and one call of which may be disturbed.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use fsm_core::{
    Body, End, Environment, Fault, Graph, Journal, MemoryJournal, Record, RunId, Runtime, Status,
    testing::{Intercepted, ManualEnvironment},
};
use futures::{executor::block_on, future::pending};

use super::{
    archive::MemoryArchive,
    desk::{Blow, Crossing, Desk, Moment},
    floor::{Errand, Floor, Scope},
    streams::{Shape, StreamStats},
    watched::Watched,
};
use crate::{
    ItemId, OperationId, PointId, RunPlan,
    host::{PluginInstance, RemoteMachine, machine_name},
};

/// A play that moves more often than this has no end.
const MOVES_MAX: usize = 10_000;
/// How long a play may take in all, whatever it is that takes so long.
const PLAY_AT_MOST: Duration = Duration::from_secs(120);

/// Something that is done while a step waits for its host, by the same instance.
pub(super) type Meanwhile<'s> = &'s dyn Fn(&PluginInstance) -> Result<(), String>;

/// What is played.
pub(super) struct Script<'s> {
    /// The plugin's graphs, as it gave them.
    pub(super) graphs: &'s [Graph],
    /// Makes the plugin's instance for a process.
    pub(super) instance: &'s dyn Fn() -> Result<PluginInstance, String>,
    pub(super) item: ItemId,
    pub(super) operation: OperationId,
    pub(super) plan: RunPlan,
    pub(super) chain: BTreeSet<PointId>,
    pub(super) shape: Shape,
    pub(super) disturbance: Disturbance,
    /// How long a step may go on after it was asked to stop, or was given up.
    pub(super) grace: Duration,
    /// How long a step may be at work without a word.
    pub(super) patience: Duration,
    /// What is done meanwhile, where the disturbance says so.
    pub(super) meanwhile: Option<Meanwhile<'s>>,
}

/// What goes wrong in a play.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Disturbance {
    Nothing,
    /// A call of a step, counted from 1.
    Call(usize, Blow),
    /// A write of the journal, counted from 1: the process dies.
    Write(usize, Moment),
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = |moment: Moment| match moment {
            Moment::Before => "before it was done",
            Moment::After => "after it was done",
        };
        match self {
            Disturbance::Nothing => f.write_str("undisturbed"),
            Disturbance::Call(call, Blow::Kill(when)) => {
                write!(f, "killed at call {call}, {}", moment(*when))
            }
            Disturbance::Call(call, Blow::Cancel) => write!(f, "asked to stop at call {call}"),
            Disturbance::Call(call, Blow::Fail(when, fault)) => {
                let class = fault.class().as_str();
                write!(f, "call {call} failed ({class}), {}", moment(*when))
            }
            Disturbance::Call(call, Blow::Panic) => write!(f, "the host panicked at call {call}"),
            Disturbance::Call(call, Blow::Meet) => write!(f, "another one at call {call}"),
            Disturbance::Write(write, when) => {
                let landed = match when {
                    Moment::Before => "before it landed",
                    Moment::After => "after it landed",
                };
                write!(f, "killed at journal write {write}, {landed}")
            }
        }
    }
}

/// What a play has left.
pub(super) struct Played {
    /// How the run ended, or why it did not.
    pub(super) end: Result<End, String>,
    pub(super) crossings: Vec<Crossing>,
    /// Journal writes of the first process.
    pub(super) writes: usize,
    pub(super) deaths: usize,
    pub(super) records: Vec<Record>,
    pub(super) stats: Arc<StreamStats>,
    /// What the plugin must never do, and did.
    pub(super) panics: Vec<String>,
    pub(super) overdue: Vec<String>,
    /// How often the disturbed step has asked for something after the blow.
    pub(super) asked_after_blow: usize,
    /// What went wrong meanwhile.
    pub(super) meanwhile: Option<String>,
}

impl Played {
    /// The fault with which the run ended, if it did.
    pub(super) fn fault(&self) -> Option<&Fault> {
        self.end.as_ref().ok()?.fault.as_ref()
    }
}

/// The journal of one process: counts its writes, and dies at one of them.
struct Fate {
    dies: Option<(usize, Moment)>,
    writes: AtomicUsize,
    is_dead: AtomicBool,
}

impl Fate {
    fn over(self: &Arc<Self>, journal: &MemoryJournal) -> Intercepted {
        let fate = Arc::clone(self);
        Intercepted::new(journal.clone(), move |journal, records| {
            let fate = Arc::clone(&fate);
            async move {
                if fate.is_dead.load(SeqCst) {
                    return pending().await;
                }
                let write = fate.writes.fetch_add(1, SeqCst) + 1;
                match fate.dies.filter(|(at, _)| *at == write) {
                    None => journal.append(records).await,
                    Some((_, moment)) => {
                        if moment == Moment::After {
                            journal.append(records).await?;
                        }
                        fate.is_dead.store(true, SeqCst);
                        pending().await
                    }
                }
            }
        })
    }
}

/// How a process comes to its end.
enum Fin {
    Died,
    Done,
    /// The run will not come to its end; why.
    Stuck(String),
}

pub(super) struct Play<'s> {
    script: Script<'s>,
    archive: MemoryArchive,
    journal: MemoryJournal,
    environment: ManualEnvironment,
    desk: Arc<Desk>,
    stats: Arc<StreamStats>,
    run: RunId,
    began: Instant,
    moves: usize,
    resumed: usize,
    writes: Vec<usize>,
    overdue: Vec<String>,
    meanwhile: Option<String>,
}

impl<'s> Play<'s> {
    /// Plays `script` in `archive`.
    pub(super) fn play(script: Script<'s>, archive: &MemoryArchive) -> Result<Played, String> {
        let blow = match &script.disturbance {
            Disturbance::Call(call, blow) => Some((*call, blow.clone())),
            _ => None,
        };
        let run = RunId::new(script.operation.as_str()).map_err(|error| error.to_string())?;
        let mut play = Play {
            script,
            archive: archive.clone(),
            journal: MemoryJournal::new(),
            environment: ManualEnvironment::default(),
            desk: Arc::new(Desk::new(blow)),
            stats: Arc::default(),
            run,
            began: Instant::now(),
            moves: 0,
            resumed: 0,
            writes: Vec::new(),
            overdue: Vec::new(),
            meanwhile: None,
        };
        play.live()
    }

    fn live(&mut self) -> Result<Played, String> {
        let mut deaths = 0;
        let stuck = loop {
            let dies = match self.script.disturbance {
                Disturbance::Write(write, moment) if deaths == 0 => Some((write, moment)),
                _ => None,
            };
            match self.process(dies)? {
                Fin::Died => deaths += 1,
                Fin::Done => break None,
                Fin::Stuck(why) => break Some(why),
            }
        };
        let end = match stuck {
            Some(why) => Err(why),
            None => self.end(),
        };
        let records = block_on(self.journal.history(&self.run)).map_err(|e| e.to_string())?;
        Ok(Played {
            end,
            crossings: self.desk.crossings(),
            writes: self.writes.first().copied().unwrap_or(0),
            deaths,
            records,
            stats: Arc::clone(&self.stats),
            panics: self.desk.panics(),
            overdue: std::mem::take(&mut self.overdue),
            asked_after_blow: self.desk.asked_after_blow(),
            meanwhile: self.meanwhile.take(),
        })
    }

    fn end(&self) -> Result<End, String> {
        let snapshot = block_on(self.journal.load(&self.run)).map_err(|error| error.to_string())?;
        snapshot.and_then(|snapshot| snapshot.end()).ok_or_else(|| "it has no end".to_owned())
    }

    fn process(&mut self, dies: Option<(usize, Moment)>) -> Result<Fin, String> {
        let fate = Arc::new(Fate { dies, writes: AtomicUsize::new(0), is_dead: false.into() });
        let runtime = Runtime::builder(fate.over(&self.journal), self.environment.clone()).build();
        let scope = Scope {
            operation: self.script.operation.clone(),
            item: self.script.item.clone(),
            chain: self.script.chain.clone(),
            shape: self.script.shape,
        };
        let floor = Floor::new(
            self.archive.clone(),
            scope,
            Arc::clone(&self.desk),
            self.environment.clone(),
            Arc::clone(&self.stats),
        );
        let plugin = (self.script.instance)()?;
        let workload = self.script.item.workload();
        for graph in self.script.graphs {
            let hosts = Arc::clone(&floor) as _;
            let machine = RemoteMachine::new(workload, graph.clone(), plugin.clone(), hosts);
            let watched = Watched::new(machine, Arc::clone(&floor), Arc::clone(&self.desk));
            runtime.register(watched, "conformance").map_err(|error| error.to_string())?;
        }
        self.begin(&runtime);
        let fin = self.drive(&runtime, &floor, &fate, &plugin);
        self.writes.push(fate.writes.load(SeqCst));
        // The process ends here. What it left in the plugin has to end, too.
        if matches!(fin, Fin::Died) {
            plugin.kill();
        }
        drop(runtime);
        self.environment.drop_tasks();
        let states = floor.states_at_work();
        if !floor.wait_for_jobs(self.script.grace) {
            let grace = self.script.grace;
            self.overdue.push(format!(
                "a step{} went on for {grace:?} after its host had given it up",
                named(&states)
            ));
        }
        Ok(fin)
    }

    fn begin(&self, runtime: &Runtime) {
        let (runtime, run) = (runtime.clone(), self.run.clone());
        let machine = machine_name(self.script.item.workload(), &self.script.plan.machine);
        let input = self.script.plan.input.clone();
        self.environment.spawn(Box::pin(async move {
            // What cannot be continued or started stands still, and is found like that.
            let _ = runtime.recover().await;
            if let Err(error) = runtime.start(run, &machine, input).await {
                tracing::debug!(%error, "a run was not started");
            }
        }));
    }

    fn drive(
        &mut self,
        runtime: &Runtime,
        floor: &Floor,
        fate: &Fate,
        plugin: &PluginInstance,
    ) -> Fin {
        let mut asked_to_stop: Option<Instant> = None;
        let mut heard = Instant::now();
        loop {
            self.environment.run_until_stalled();
            if fate.is_dead.load(SeqCst) || floor.is_killed() {
                return Fin::Died;
            }
            if let Some((errand, done)) = floor.errand() {
                match errand {
                    Errand::Cancel => {
                        self.cancel(runtime);
                        plugin.await_asked(self.script.grace);
                        asked_to_stop = Some(Instant::now());
                    }
                    Errand::Meet => {
                        let met = self.script.meanwhile.map_or(Ok(()), |meet| meet(plugin));
                        self.meanwhile = met.err();
                    }
                }
                let _ = done.send(());
                heard = Instant::now();
                continue;
            }
            if self.has_ended() {
                return Fin::Done;
            }
            if self.began.elapsed() > PLAY_AT_MOST {
                return Fin::Stuck(format!("the run has not ended after {PLAY_AT_MOST:?}"));
            }
            if floor.is_at_work() {
                let states = floor.states_at_work();
                let (since, limit) = match asked_to_stop {
                    Some(asked) => (asked, self.script.grace),
                    None => (heard, self.script.patience),
                };
                let left = limit.saturating_sub(since.elapsed());
                if left.is_zero() {
                    return Fin::Stuck(match asked_to_stop {
                        Some(_) => {
                            let why = format!(
                                "the step{} went on for {limit:?} after it was asked to stop",
                                named(&states)
                            );
                            self.overdue.push(why.clone());
                            why
                        }
                        None => format!("the step{} was silent for {limit:?}", named(&states)),
                    });
                }
                if self.environment.wait_for_others(left) {
                    heard = Instant::now();
                }
                continue;
            }
            asked_to_stop = None;
            heard = Instant::now();
            self.moves += 1;
            if self.moves > MOVES_MAX {
                return Fin::Stuck(format!("the run has not ended after {MOVES_MAX} moves"));
            }
            if !self.environment.advance_to_next() && !self.resume(runtime) {
                return Fin::Stuck(self.standing());
            }
        }
    }

    fn cancel(&self, runtime: &Runtime) {
        let (runtime, run) = (runtime.clone(), self.run.clone());
        self.environment.spawn(Box::pin(async move {
            let _ = runtime.cancel(&run, "the conformance kit asks").await;
        }));
        self.environment.run_until_stalled();
    }

    /// Lets a run that has paused continue, as an operator does, a few times.
    fn resume(&mut self, runtime: &Runtime) -> bool {
        let snapshot = block_on(self.journal.load(&self.run)).ok().flatten();
        let paused = snapshot.is_some_and(|found| matches!(found.status, Status::Paused(_)));
        if !paused || self.resumed == 3 {
            return false;
        }
        self.resumed += 1;
        let (runtime, run) = (runtime.clone(), self.run.clone());
        self.environment.spawn(Box::pin(async move {
            let _ = runtime.resume(&run).await;
        }));
        true
    }

    fn has_ended(&self) -> bool {
        let snapshot = block_on(self.journal.load(&self.run)).ok().flatten();
        snapshot.is_some_and(|snapshot| matches!(snapshot.status, Status::Ended(..)))
    }

    /// Where a run stands that nothing moves on.
    fn standing(&self) -> String {
        match block_on(self.journal.load(&self.run)).ok().flatten() {
            None => "the run could not be started".to_owned(),
            Some(found) => match &found.status {
                Status::Paused(fault) => {
                    format!("the run pauses in `{}` for good: {fault}", found.state)
                }
                _ => format!("the run stands still in `{}`", found.state),
            },
        }
    }
}

fn named(states: &[String]) -> String {
    match states {
        [] => String::new(),
        [state] => format!(" `{state}`"),
        several => format!("s `{}`", several.join("`, `")),
    }
}

/// Every fault that the run's journal knows.
pub(super) fn faults(records: &[Record]) -> impl Iterator<Item = &Fault> {
    records.iter().filter_map(|record| match &record.body {
        Body::Attempt { fault, .. } | Body::Pause { fault, .. } => Some(fault),
        Body::End { fault, .. } => fault.as_ref(),
        _ => None,
    })
}
