//! A machine between the runtime and the one under test: it watches each step, and disturbs one.
//!
//! **How.** It works on [`StepCall`], [`Outcome`] and [`Port`], so that it does not matter whether
//! the machine is typed and here or behind a boundary.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{channel::oneshot, future::BoxFuture};

use super::{
    schedule::{Blow, Failure, Moment},
    trace::Key,
};
use crate::{
    AnyMachine, Cancellation, Data, EffectLog, Fault, Graph, Outcome, Port, Progress, RunId,
    StepCall, StepKind, Timestamp,
};

/// What the meddlers of one play know and do together, over all of its processes.
#[derive(Default)]
pub(super) struct Meddling {
    blow: Option<Blow>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
pub(super) struct Seen {
    /// For each call of a step, how many effects its outcome had.
    pub(super) calls: Vec<usize>,
    /// The keys of all effects that were asked for, recorded or not.
    pub(super) keys: BTreeSet<Key>,
    /// How many effects have run again under a key that had run.
    pub(super) repeated: usize,
    ran: BTreeSet<Key>,
    /// How many steps have run again after they had come to their end.
    pub(super) steps_repeated: usize,
    /// The run and the entry of each step that has come to its end.
    steps_ran: BTreeSet<(RunId, u64)>,
    /// Whether the blow has fallen.
    pub(super) struck: bool,
    /// How many states were given up.
    pub(super) given_up: usize,
    /// A step waits until its run was asked to stop.
    stop: Option<(RunId, oneshot::Sender<()>)>,
}

/// The machine under test, watched and disturbed.
pub(super) struct Meddler {
    machine: Box<dyn AnyMachine>,
    meddling: Arc<Meddling>,
}

impl Meddling {
    pub(super) fn new(blow: Option<Blow>) -> Self {
        Meddling { blow, seen: Mutex::default() }
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run that a step wants to be asked to stop; the sender is used once it was.
    pub(super) fn stop_wanted(&self) -> Option<(RunId, oneshot::Sender<()>)> {
        self.seen().stop.take()
    }

    /// Notes a call, and answers with what is to go wrong in it.
    fn begin(&self, call: &StepCall) -> (usize, Option<Blow>) {
        let mut seen = self.seen();
        if let StepKind::Exhausted(_) = call.kind {
            seen.given_up += 1;
        }
        if call.kind != StepKind::Run {
            return (0, None);
        }
        seen.calls.push(0);
        let number = seen.calls.len();
        let blow = self.blow.filter(|blow| match *blow {
            Blow::Repeat { call, .. } | Blow::Fail { call, .. } | Blow::Cancel { call, .. } => {
                call == number
            }
            Blow::Crash { .. } | Blow::CancelWait { .. } => false,
        });
        seen.struck |= blow.is_some();
        (number, blow)
    }

    fn ran(&self, number: usize, call: &StepCall, outcome: &Outcome) {
        let mut seen = self.seen();
        if !seen.steps_ran.insert((call.run.clone(), call.entry)) {
            seen.steps_repeated += 1;
        }
        for effect in &outcome.effects {
            let key = key(call, &effect.name);
            if !seen.ran.insert(key.clone()) {
                seen.repeated += 1;
            }
            seen.keys.insert(key);
        }
        if let Some(effects) = number.checked_sub(1).and_then(|place| seen.calls.get_mut(place)) {
            *effects = outcome.effects.len();
        }
    }

    /// Waits until `run` was asked to stop.
    async fn stop(&self, run: &RunId) {
        let (done, asked) = oneshot::channel();
        self.seen().stop = Some((run.clone(), done));
        // Nobody answers in a process that is about to die.
        let _ = asked.await;
    }
}

fn key(call: &StepCall, effect: &str) -> Key {
    Key { run: call.run.clone(), entry: call.entry, effect: effect.to_owned() }
}

impl Meddler {
    pub(super) fn new(machine: Box<dyn AnyMachine>, meddling: Arc<Meddling>) -> Self {
        Meddler { machine, meddling }
    }

    /// Runs the machine's step. Answers with the intents that it recorded, too.
    async fn run(
        &self,
        number: usize,
        call: StepCall,
        port: &Arc<dyn Port>,
    ) -> (Outcome, Vec<String>) {
        let watching = Arc::new(Watching {
            port: Arc::clone(port),
            meddling: Arc::clone(&self.meddling),
            call: call.clone(),
            intents: Mutex::default(),
        });
        let port: Arc<dyn Port> = Arc::clone(&watching) as _;
        let outcome = self.machine.step(call.clone(), port).await;
        self.meddling.ran(number, &call, &outcome);
        let intents = std::mem::take(&mut *watching.intents());
        (outcome, intents)
    }

    /// Runs the step, forgets its outcome but for the first `known` effects, and runs it again.
    async fn run_again(
        &self,
        number: usize,
        call: StepCall,
        port: &Arc<dyn Port>,
        known: usize,
    ) -> Outcome {
        let (first, intents) = self.run(number, call.clone(), port).await;
        let mut recorded = first.effects;
        recorded.truncate(known);
        let mut effects: BTreeMap<String, EffectLog> = BTreeMap::new();
        let intended = intents.into_iter().map(|name| EffectLog { name, result: None });
        for effect in call.effects.iter().cloned().chain(intended).chain(recorded.clone()) {
            effects.insert(effect.name.clone(), effect);
        }
        let again = StepCall { effects: effects.into_values().collect(), ..call };
        let (mut second, _) = self.run(number, again, port).await;
        recorded.append(&mut second.effects);
        second.effects = recorded;
        second
    }

    async fn disturbed(
        &self,
        (number, blow): (usize, Option<Blow>),
        call: StepCall,
        port: Arc<dyn Port>,
    ) -> Outcome {
        let run = call.run.clone();
        match blow {
            Some(Blow::Repeat { known, .. }) => self.run_again(number, call, &port, known).await,
            Some(Blow::Fail { moment, failure, .. }) => {
                if moment == Moment::After {
                    self.run(number, call, &port).await;
                }
                fault(failure).into()
            }
            Some(Blow::Cancel { moment: Moment::Before, .. }) => {
                self.meddling.stop(&run).await;
                self.run(number, call, &port).await.0
            }
            Some(Blow::Cancel { moment: Moment::After, .. }) => {
                let (outcome, _) = self.run(number, call, &port).await;
                self.meddling.stop(&run).await;
                outcome
            }
            _ => self.run(number, call, &port).await.0,
        }
    }
}

fn fault(failure: Failure) -> Fault {
    match failure {
        Failure::Retryable => Fault::retryable("trial.busy", "the trial makes this step fail once"),
        Failure::Permanent => Fault::permanent("trial.gone", "the trial makes this step fail"),
    }
}

impl AnyMachine for Meddler {
    fn graph(&self) -> &Graph {
        self.machine.graph()
    }

    fn step(&self, call: StepCall, port: Arc<dyn Port>) -> BoxFuture<'_, Outcome> {
        let begun = self.meddling.begin(&call);
        if call.kind != StepKind::Run {
            return self.machine.step(call, port);
        }
        Box::pin(self.disturbed(begun, call, port))
    }

    fn migrate(
        &self,
        from: u32,
        state: String,
        data: Data,
    ) -> BoxFuture<'_, Result<(String, Data), Fault>> {
        self.machine.migrate(from, state, data)
    }
}

/// The port of a watched step.
struct Watching {
    port: Arc<dyn Port>,
    meddling: Arc<Meddling>,
    call: StepCall,
    /// Those that are durable.
    intents: Mutex<Vec<String>>,
}

impl Watching {
    fn intents(&self) -> MutexGuard<'_, Vec<String>> {
        self.intents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port for Watching {
    fn intent<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Fault>> {
        self.meddling.seen().keys.insert(key(&self.call, name));
        Box::pin(async move {
            self.port.intent(name).await?;
            self.intents().push(name.to_owned());
            Ok(())
        })
    }

    fn progress(&self, progress: Progress) {
        self.port.progress(progress);
    }

    fn now(&self) -> Timestamp {
        self.port.now()
    }

    fn cancellation(&self) -> Cancellation {
        self.port.cancellation()
    }
}
