//! What a step does to the world: under which key, how often, and what is written of it.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::sync::{Arc, Mutex};

use fsm_core::{
    Context, Ending, Fault, Hosted, Journal, Machine, MemoryJournal, Retry, Runtime, State, Step,
    check, go,
    testing::{Intercepted, ManualEnvironment},
};
use serde::{Deserialize, Serialize};

use self::support::{
    id,
    medium::Medium,
    process::Process,
    world::{Act, World, transient},
};

on_each_journal! {
    keys_name_the_run_the_entry_and_the_effect
    two_effects_of_one_name_are_a_fault
    results_of_effects_before_a_fault_are_kept
    a_fault_inside_an_effect_is_the_steps_and_leaves_the_intent
    an_intent_outlives_the_process
    a_result_of_another_type_is_a_fault
}

fn start(medium: &Medium, world: &World) -> Process {
    Process::full(medium, world).with(Worker, world)
}

fn keys_name_the_run_the_entry_and_the_effect(medium: Medium) {
    let world = World::default();
    let process = start(&medium, &world);
    process.end(&process.begin("r", "worker", &Task::Twice { again: true }));
    assert_eq!(world.log(), ["r/1/a", "got 1", "r/1/b", "r/2/a", "got 1", "r/2/b"]);
}

fn two_effects_of_one_name_are_a_fault(medium: Medium) {
    let world = World::default();
    let process = start(&medium, &world);
    let end = process.end(&process.begin("r", "worker", &Task::SameName));
    assert_eq!(end.fault.as_ref().map(Fault::code), Some("effect.twice"));
    assert_eq!(world.log(), ["r/1/a", "got 1"], "the second one does not run unseen");
}

fn results_of_effects_before_a_fault_are_kept(medium: Medium) {
    let world = World::script([Act::Fault(transient())]);
    let process = start(&medium, &world);
    process.end_in_time(&process.begin("r", "worker", &Task::Twice { again: false }));
    assert_eq!(world.log(), ["r/1/a", "got 1", "got 1", "r/1/b"], "`a` did not run again");
    assert_eq!(process.kinds("r"), ["enter", "result", "attempt", "result", "enter", "end"]);
}

fn a_fault_inside_an_effect_is_the_steps_and_leaves_the_intent(medium: Medium) {
    let world = World::default();
    let process = start(&medium, &world);
    let end = process.end_in_time(&process.begin("r", "worker", &Task::Once { faults: 2 }));
    assert_eq!(end.ending, Ending::Completed);
    assert_eq!(world.log(), ["r/1/c", "r/1/c again?", "r/1/c again?", "got 3"]);
    let intents = process.kinds("r").iter().filter(|kind| **kind == "intent").count();
    assert_eq!(intents, 1, "it is written down once");
}

fn an_intent_outlives_the_process(medium: Medium) {
    let world = World::default();
    let process = start(&medium, &world);
    process.begin("r", "worker", &Task::Hangs);
    process.until(|| world.said("r/1/c") == 1);
    assert_eq!(process.kinds("r"), ["enter", "intent"], "it is durable before it runs");
    let process = Process::full_at(&medium, process.die(), &world).with(Worker, &world);
    process.end(&process.attach("r").unwrap());
    assert_eq!(world.log(), ["r/1/c", "r/1/c again?", "got 3"]);
}

fn a_result_of_another_type_is_a_fault(medium: Medium) {
    let process = start(&medium, &World::default());
    let end = process.end_in_time(&process.begin("r", "worker", &Task::OtherType));
    assert_eq!(end.fault.as_ref().map(Fault::code), Some("effect.decode"));
}

#[test]
fn results_before_a_fault_ride_with_the_record_of_the_attempt() {
    let written = Arc::new(Mutex::new(Vec::new()));
    let journal = {
        let written = Arc::clone(&written);
        Intercepted::new(MemoryJournal::new(), move |journal, records| {
            let kinds: Vec<_> = records.iter().map(|record| record.body.kind()).collect();
            written.lock().unwrap().push(kinds.join(" "));
            journal.append(records)
        })
    };
    let (environment, world) = (ManualEnvironment::default(), World::default());
    let runtime = Runtime::builder(journal, environment.clone()).build();
    runtime.register(Hosted::new(Worker, world.clone()), "tests 1").unwrap();
    runtime.register(Hosted::new(Waiter, world.clone()), "tests 1").unwrap();

    world.add([Act::Fault(transient())]);
    let run = environment.block_on(runtime.begin::<Worker>(id("r"), &Task::Twice { again: false }));
    environment.run_until_stalled();
    environment.advance_to_next();
    environment.block_on(run.unwrap().end()).unwrap();
    let seen = std::mem::take(&mut *written.lock().unwrap());
    assert_eq!(seen, ["enter", "result attempt", "result enter end"], "one write each");

    world.add([Act::Fault(transient())]);
    environment.block_on(runtime.begin::<Waiter>(id("s"), &Patience)).unwrap();
    environment.run_until_stalled();
    assert_eq!(*written.lock().unwrap(), ["enter", "result pause"], "one write each");
}

/// Has one attempt, and an operator for when it fails.
struct Waiter;

impl Machine for Waiter {
    const NAME: &'static str = "waiter";
    type Host = World;
    type Initial = Patience;
    type States = (Patience, Finished);
}
check!(Waiter);

#[derive(Serialize, Deserialize)]
struct Patience;

impl State<Waiter> for Patience {
    const NAME: &'static str = "patience";
    const RETRY: Retry = Retry::times(1).or_pause();
    type Next = (Finished,);

    async fn run(self, _: &Waiter, cx: &mut Context<'_, Waiter>) -> Step<Self> {
        let world = cx.host().clone();
        cx.effect("a", async |_| Ok(1)).await?;
        world.act(cx).await?;
        go(Finished)
    }
}

impl State<Waiter> for Finished {
    const NAME: &'static str = "finished";
    type Next = ();
}

struct Worker;

impl Machine for Worker {
    const NAME: &'static str = "worker";
    type Host = World;
    type Initial = Task;
    type States = (Task, Finished);
}
check!(Worker);

#[derive(Serialize, Deserialize)]
enum Task {
    Twice {
        again: bool,
    },
    SameName,
    /// The effect fails so often.
    Once {
        faults: usize,
    },
    /// The effect hangs once.
    Hangs,
    OtherType,
}

fn touch(world: &World, key: &str, maybe_ran: bool) {
    world.say(format!("{key}{}", if maybe_ran { " again?" } else { "" }));
}

impl State<Worker> for Task {
    const NAME: &'static str = "task";
    const RETRY: Retry = Retry::times(3);
    type Next = (Task, Finished);

    async fn run(self, _: &Worker, cx: &mut Context<'_, Worker>) -> Step<Self> {
        let world = cx.host().clone();
        let one = async |effect: fsm_core::Effect| {
            touch(&world, &effect.key, effect.maybe_ran);
            Ok(1)
        };
        match self {
            Task::Twice { again } => {
                let got: u32 = cx.effect("a", one).await?;
                world.say(format!("got {got}"));
                world.act(cx).await?;
                cx.effect("b", one).await?;
                if again {
                    return go(Task::Twice { again: false });
                }
            }
            Task::SameName => {
                for _ in 0..2 {
                    let got: u32 = cx.effect("a", one).await?;
                    world.say(format!("got {got}"));
                }
            }
            Task::Once { faults } => {
                let fails = world.log().len() < faults;
                let careful = async |effect: fsm_core::Effect| {
                    touch(&world, &effect.key, effect.maybe_ran);
                    if fails { Err(transient()) } else { Ok(3) }
                };
                let got: u32 = cx.once("c", careful).await?;
                world.say(format!("got {got}"));
            }
            Task::Hangs => {
                let hangs = world.log().is_empty();
                let careful = async |effect: fsm_core::Effect| {
                    touch(&world, &effect.key, effect.maybe_ran);
                    if hangs { futures::future::pending().await } else { Ok(3) }
                };
                let got: u32 = cx.once("c", careful).await?;
                world.say(format!("got {got}"));
            }
            Task::OtherType => {
                if cx.attempt() == 1 {
                    cx.effect("a", one).await?;
                    return Err(transient());
                }
                let _: String = cx.effect("a", async |_| Ok(String::new())).await?;
            }
        }
        go(Finished)
    }
}

#[derive(Serialize, Deserialize)]
struct Finished;

impl State<Worker> for Finished {
    const NAME: &'static str = "finished";
    type Next = ();
}
