//! A record that the journal has no room for is its step's fault, and nobody else's.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::sync::{Arc, Mutex};

use fsm_core::{
    Data, EffectLog, End, Ending, Fault, Hosted, JournalError, JournalErrorKind, MemoryJournal,
    Outcome, Retry, RunHandle, Runtime, RuntimeError, RuntimeErrorKind, Signal, Spawn, StepCall,
    StepKind, Verdict,
    testing::{Intercepted, ManualEnvironment},
};

use self::support::{
    desk::{Desk, Order, Prepare},
    id, lying,
    telling::kind,
    world::World,
};

/// The longest body that the test's journal takes.
const BYTES_MAX: usize = 4_096;

/// Processes over a journal that takes no long record.
struct Shelf {
    environment: ManualEnvironment,
    runtime: Runtime,
    /// How often each was called: the state, and what for.
    calls: Arc<Mutex<Vec<String>>>,
}

fn long() -> String {
    "x".repeat(BYTES_MAX + 1)
}

impl Shelf {
    /// A machine that is tried three times in `work`, where `answer` says what a step does.
    fn new(answer: impl Fn() -> Outcome + Send + Sync + 'static) -> Self {
        let journal = Intercepted::new(MemoryJournal::new(), |journal, records| {
            let lengths =
                records.iter().map(|record| serde_json::to_string(&record.body).unwrap().len());
            let longest = lengths.max().unwrap_or(0);
            async move {
                match longest > BYTES_MAX {
                    true => Err(JournalError::new(JournalErrorKind::TooLong, "the test's shelf")),
                    false => journal.append(records).await,
                }
            }
        });
        let environment = ManualEnvironment::default();
        let runtime = Runtime::builder(journal, environment.clone()).build();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let called = Arc::clone(&calls);
        let mut machine = lying::Lying::new("work", move |call: StepCall, _| {
            let what = match &call.kind {
                StepKind::Run => "run".to_owned(),
                StepKind::Exhausted(fault) => fault.code().to_owned(),
                other => format!("{other:?}"),
            };
            called.lock().unwrap().push(format!("{} {what}", call.state));
            match (call.state.as_str(), call.kind) {
                ("work", StepKind::Run) => answer(),
                ("work", StepKind::Exhausted(_)) => lying::to("other"),
                _ => lying::to("done"),
            }
        });
        machine.graph.states[0].retry = Retry::times(3);
        runtime.register(machine, "tests 1").unwrap();
        runtime.register(Hosted::new(Desk, World::default()), "tests 1").unwrap();
        Shelf { environment, runtime, calls }
    }

    fn begin(&self, run: &str, machine: &str, input: &impl serde::Serialize) -> RunHandle {
        let input = Data::encode(input).unwrap();
        let run = self.environment.block_on(self.runtime.start(id(run), machine, input)).unwrap();
        self.environment.run_until_stalled();
        run
    }

    fn tell(&self, run: &str, signal: &impl Signal) -> Result<RunHandle, RuntimeError> {
        let run = id(run);
        self.environment.block_on(self.runtime.tell(&run, "once", signal))
    }

    fn end(&self, run: &RunHandle) -> End {
        self.environment.block_on(run.end()).unwrap()
    }
}

/// The step ends as a fault, once, and its run goes on along the edge for that.
#[track_caller]
fn check_faults(answer: impl Fn() -> Outcome + Send + Sync + 'static) {
    let shelf = Shelf::new(answer);
    let neighbour = shelf.begin("neighbour", "desk", &Prepare::Serve { orders: 1 });
    let run = shelf.begin("r", "lying", &());
    assert_eq!(shelf.end(&run).ending, Ending::Completed);
    assert_eq!(*shelf.calls.lock().unwrap(), ["work run", "work record.too_long", "other run"]);
    shelf.tell("neighbour", &Order(1)).unwrap();
    assert_eq!(shelf.end(&neighbour).ending, Ending::Completed);
}

fn result(data: String) -> EffectLog {
    EffectLog { name: "fetch".to_owned(), result: Some(Data::encode(&data).unwrap()) }
}

#[test]
fn the_data_of_a_state_that_are_too_long_are_its_steps_fault() {
    check_faults(|| {
        let data = Data::encode(&long()).unwrap();
        Verdict::Go { state: "done".to_owned(), data, wake_at: None }.into()
    });
}

#[test]
fn a_result_that_is_too_long_is_its_steps_fault() {
    check_faults(|| {
        let mut outcome = lying::to("done");
        outcome.effects.push(result(long()));
        outcome
    });
    check_faults(|| {
        let mut outcome = Outcome::from(support::world::transient());
        outcome.effects.push(result(long()));
        outcome
    });
}

#[test]
fn a_fault_that_is_too_long_is_told_in_short() {
    check_faults(|| Fault::retryable("test.long", long()).into());
}

#[test]
fn the_input_of_a_child_that_is_too_long_is_the_fault_of_the_step_that_spawns_it() {
    check_faults(|| {
        let mut outcome = lying::to("done");
        let (key, run) = ("a".to_owned(), id("r/1/a"));
        let input = Data::encode(&long()).unwrap();
        outcome.spawned.push(Spawn { key, run, machine: "lying".to_owned(), input });
        outcome
    });
}

#[test]
fn a_fault_that_is_too_long_and_has_no_edge_ends_its_run() {
    let shelf = Shelf::new(|| lying::to("done"));
    let mut machine = lying::Lying::new("work", |_, _| Fault::permanent("x", long()).into());
    machine.graph.machine = "shouting".to_owned();
    shelf.runtime.register(machine, "tests 1").unwrap();
    let end = shelf.end(&shelf.begin("s", "shouting", &()));
    assert_eq!(end.ending, Ending::Failed);
    assert_eq!(end.fault.as_ref().map(Fault::code), Some("record.too_long"));
}

#[test]
fn a_signal_that_is_too_long_is_refused_and_its_run_goes_on() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Long(String);
    impl Signal for Long {
        const NAME: &'static str = "gossip";
    }

    let shelf = Shelf::new(|| lying::to("done"));
    let run = shelf.begin("r", "desk", &Prepare::Serve { orders: 1 });
    let refused = kind(shelf.tell("r", &Long(long())));
    assert_eq!(refused, Some(RuntimeErrorKind::Journal(JournalErrorKind::TooLong)));
    shelf.tell("r", &Order(1)).unwrap();
    assert_eq!(shelf.end(&run).ending, Ending::Completed);
}
