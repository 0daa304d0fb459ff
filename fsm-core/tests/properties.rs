//! Random machines that do random things at random times, in processes that die at random: the
//! history is always sound.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fsm_core::{
    AnyMachine, Body, Cancel, Data, EffectLog, Fault, Graph, Journal, MemoryJournal, Outcome, Port,
    Record, Retry, RunSnapshot, Runtime, StepCall, StepKind, Timestamp, Verdict,
    testing::{Intercepted, ManualEnvironment},
};
use futures::{
    FutureExt,
    future::{BoxFuture, Either, select},
};
use proptest::prelude::*;

use self::support::{
    id,
    lying::{graph, state},
    process::breathe,
};

/// What a step does.
#[derive(Clone, Debug)]
enum Act {
    /// Moves to a successor, perhaps not at once.
    Go {
        which: usize,
        wait_secs: Option<u64>,
    },
    /// Moves to a state of the machine, declared or not.
    Stray(usize),
    Retryable,
    Permanent,
    Interrupted,
    /// Stops although nobody asked.
    Stops,
    Panic,
    /// Does not answer before the attempt's time is up.
    Hang,
    /// Records an intent, and moves to a successor.
    Intent,
    Again,
}

/// What happens to the process.
#[derive(Clone, Debug)]
enum Blow {
    /// Tasks run for a while.
    Work,
    /// Time passes, until the first who waits for it wakes.
    Time,
    Cancel,
    Crash,
    Stop,
    Pause,
    Unpause,
    /// Somebody tells it something that no state takes.
    Signal,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0usize..8, prop::option::of(1u64..5_000))
            .prop_map(|(which, wait_secs)| Act::Go { which, wait_secs }),
        1 => (0usize..8).prop_map(Act::Stray),
        6 => Just(Act::Retryable),
        1 => Just(Act::Permanent),
        2 => Just(Act::Interrupted),
        1 => Just(Act::Stops),
        1 => Just(Act::Panic),
        1 => Just(Act::Hang),
        2 => Just(Act::Intent),
        1 => Just(Act::Again),
    ]
}

fn blow() -> impl Strategy<Value = Blow> {
    prop_oneof![
        6 => Just(Blow::Work),
        4 => Just(Blow::Time),
        1 => Just(Blow::Cancel),
        4 => Just(Blow::Crash),
        1 => Just(Blow::Stop),
        1 => Just(Blow::Pause),
        2 => Just(Blow::Unpause),
        1 => Just(Blow::Signal),
    ]
}

/// A sound graph: each state leads to the next one, and to others by chance; the last one ends.
fn machine() -> impl Strategy<Value = Graph> {
    let one = (prop::collection::btree_set(0usize..6, 0..3), 1u32..4, any::<bool>(), any::<bool>());
    prop::collection::vec(one, 1..6).prop_map(|described| {
        let last = described.len();
        let mut states = Vec::new();
        for (index, (others, attempts, defers, pauses)) in described.into_iter().enumerate() {
            let mut next = vec![index + 1];
            next.extend(others.into_iter().filter(|other| *other <= last && *other != index + 1));
            let next: Vec<_> = next.into_iter().map(|index| format!("s{index}")).collect();
            let next: Vec<_> = next.iter().map(String::as_str).collect();
            let mut state = state(&format!("s{index}"), &next);
            state.cancel = if defers { Cancel::Defer } else { Cancel::Deliver };
            let retry = Retry::times(attempts).attempt_timeout(Duration::from_secs(100));
            state.retry = if pauses { retry.or_pause() } else { retry };
            states.push(state);
        }
        states.push(state(&format!("s{last}"), &[]));
        graph("s0", states)
    })
}

/// A journal whose records take a moment to land.
fn slow(journal: &MemoryJournal) -> Intercepted {
    Intercepted::new(journal.clone(), |journal, records| async move {
        breathe().await;
        journal.append(records).await
    })
}

fn history(journal: &MemoryJournal) -> Vec<Record> {
    journal.history(&id("r")).now_or_never().unwrap().unwrap()
}

/// Plays a script, over all processes, and writes down what is wrong with how it is called.
#[derive(Clone)]
struct Scripted {
    graph: Graph,
    script: Arc<Vec<Act>>,
    next: Arc<AtomicUsize>,
    journal: MemoryJournal,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// Looks at a call as the journal and the clock have it.
    fn judge(&self, call: &StepCall, now: Timestamp) {
        let wrong = |what: &str| {
            self.wrong.lock().unwrap().push(format!("{what}: {call:?} at {now}"));
        };
        let snapshot = RunSnapshot::fold(history(&self.journal)).unwrap();
        if (snapshot.entry, &snapshot.state) != (call.entry, &call.state) {
            return wrong("the state is not durable");
        }
        if call.kind != StepKind::Run {
            return;
        }
        if snapshot.wake_at.is_some_and(|wake_at| now < wake_at) {
            wrong("too soon");
        }
        if call.attempt != snapshot.attempts + 1 {
            wrong("miscounted");
        }
        let policy = self.graph.state(&call.state).unwrap().retry;
        if call.attempt > policy.attempts() {
            wrong("one attempt too many");
        }
    }
}

impl AnyMachine for Scripted {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn step(&self, call: StepCall, port: Arc<dyn Port>) -> BoxFuture<'_, Outcome> {
        self.judge(&call, port.now());
        let act = self.script.get(self.next.fetch_add(1, Ordering::SeqCst)).cloned();
        let successors = self.graph.state(&call.state).unwrap().next.clone();
        let intents = Arc::clone(&port);
        let go = move |which: usize, wait_secs: Option<u64>| {
            let mut outcome = Outcome::from(Verdict::Go {
                state: successors[which % successors.len()].clone(),
                data: Data::default(),
                wake_at: wait_secs.map(|secs| port.now() + Duration::from_secs(secs)),
            });
            outcome.effects =
                vec![EffectLog { name: "e".to_owned(), result: Some(Data::default()) }];
            outcome
        };
        Box::pin(async move {
            match act {
                // Always forward, so that each run comes to its end.
                None => go(0, None),
                Some(Act::Go { which, wait_secs }) => go(which, wait_secs),
                Some(Act::Stray(index)) => {
                    let state = format!("s{index}");
                    let verdict = Verdict::Go { state, data: Data::default(), wake_at: None };
                    Outcome::from(verdict)
                }
                Some(Act::Retryable) => Fault::retryable("test.transient", "not now").into(),
                Some(Act::Permanent) => Fault::permanent("test.gone", "gone").into(),
                Some(Act::Interrupted) => Fault::interrupted("the child died").into(),
                Some(Act::Stops) => Fault::cancelled().into(),
                Some(Act::Panic) => std::panic::resume_unwind(Box::new("as the script says")),
                Some(Act::Hang) => futures::future::pending().await,
                Some(Act::Intent) => match intents.intent("e").await {
                    Ok(()) => go(0, None),
                    Err(fault) => fault.into(),
                },
                Some(Act::Again) => Verdict::Again.into(),
            }
        })
    }

    fn migrate(
        &self,
        _: u32,
        state: String,
        data: Data,
    ) -> BoxFuture<'_, Result<(String, Data), Fault>> {
        Box::pin(async { Ok((state, data)) })
    }
}

fn process(machine: &Scripted, environment: &ManualEnvironment) -> Runtime {
    let runtime = Runtime::builder(slow(&machine.journal), environment.clone()).build();
    runtime.register(machine.clone(), "tests 1").unwrap();
    runtime
}

/// Lets a run suffer `blows`, and then come to its end in peace.
fn suffer(machine: &Scripted, blows: &[Blow]) {
    let environment = ManualEnvironment::default();
    let mut runtime = process(machine, &environment);
    let run = id("r");
    let pass_time = || {
        environment.advance_to_next();
    };
    environment.block_on(runtime.start(run.clone(), "lying", Data::default())).unwrap();
    for (number, blow) in blows.iter().enumerate() {
        match blow {
            Blow::Work => environment.block_on(breathe()),
            Blow::Time => pass_time(),
            Blow::Cancel => drop(environment.block_on(runtime.cancel(&run, "a test")).unwrap()),
            // It may have ended.
            Blow::Pause => drop(environment.block_on(runtime.pause(&run, "a test"))),
            Blow::Signal => {
                // Now and then the same one again.
                let signal = format!("s{}", number / 4);
                let told = runtime.signal(&run, &signal, "gossip", Data::default());
                drop(environment.block_on(told));
            }
            Blow::Unpause => drop(environment.block_on(runtime.resume(&run)).unwrap()),
            Blow::Stop => environment.block_on(runtime.stop()),
            Blow::Crash => {}
        }
        if let Blow::Crash | Blow::Stop = blow {
            environment.drop_tasks();
            runtime = process(machine, &environment);
            environment.block_on(runtime.recover()).unwrap();
        }
    }
    environment.block_on(async {
        let handle = runtime.attach(&run).await.unwrap();
        let mut end = Box::pin(handle.end());
        for _ in 0..10_000 {
            match select(end, Box::pin(breathe())).await {
                Either::Left((ended, _)) => return drop(ended.unwrap()),
                Either::Right(((), unfinished)) => end = unfinished,
            }
            pass_time();
            let paused = runtime.inspect(&run).await.unwrap().unwrap().status;
            if paused.as_str() == "paused" {
                runtime.resume(&run).await.unwrap();
            }
        }
        panic!("the run comes to no end");
    });
    environment.drop_tasks();
}

/// What is wrong with a history.
fn flaws(graph: &Graph, records: &[Record]) -> Vec<String> {
    let mut flaws = Vec::new();
    let mut at: Option<String> = None;
    let (mut attempts, mut heard) = (BTreeMap::new(), BTreeSet::new());
    let (mut entered, mut ends) = (0, 0);
    for (record, expected) in records.iter().zip(1..) {
        if record.seq != expected {
            flaws.push(format!("record {} in place {expected}", record.seq));
        }
        if ends > 0 {
            flaws.push(format!("record {} after the end", record.seq));
        }
        match &record.body {
            Body::Enter { state, entry, .. } => {
                entered += 1;
                let allowed = match &at {
                    None => *state == graph.initial,
                    Some(from) => graph.allows(from, state),
                };
                if !allowed || *entry != entered {
                    flaws.push(format!("entered {state} from {at:?} as number {entry}"));
                }
                at = Some(state.clone());
                attempts.clear();
            }
            Body::Attempt { attempt, .. } => {
                let count = attempts.entry(entered).or_insert(0);
                *count += 1;
                let policy = at.as_deref().and_then(|state| graph.state(state)).unwrap().retry;
                if attempt != count || *attempt >= policy.attempts() {
                    flaws.push(format!("attempt {attempt} is number {count} of {policy:?}"));
                }
            }
            Body::Resume => attempts.clear(),
            Body::Signal(signal) if !heard.insert(&signal.id) => {
                flaws.push(format!("signal {} twice", signal.id));
            }
            Body::End { .. } => ends += 1,
            _ => {}
        }
    }
    if ends != 1 {
        flaws.push(format!("{ends} ends"));
    }
    flaws
}

/// 512 cases, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..Default::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 512;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_history_is_sound_whatever_happens(
        graph in machine(),
        script in prop::collection::vec(act(), 0..24),
        blows in prop::collection::vec(blow(), 0..24),
    ) {
        let machine = Scripted {
            graph,
            script: Arc::new(script),
            next: Arc::default(),
            journal: MemoryJournal::new(),
            wrong: Arc::default(),
        };
        suffer(&machine, &blows);
        let records = history(&machine.journal);
        let flaws = flaws(&machine.graph, &records);
        prop_assert!(flaws.is_empty(), "{flaws:#?}\n{records:#?}");
        let wrong = machine.wrong.lock().unwrap();
        prop_assert!(wrong.is_empty(), "{wrong:#?}\n{records:#?}");
    }
}
