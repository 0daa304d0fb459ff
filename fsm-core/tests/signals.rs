//! What a run is told: when it counts as told, who takes it, and how often.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fsm_core::{
    Body, Carried, Data, Ending, Fault, Hosted, Journal, MemoryJournal, Outcome, RunEvent, Runtime,
    RuntimeErrorKind, StepKind, testing::Intercepted, testing::ManualEnvironment,
};
use futures::{FutureExt, channel::oneshot};

use self::support::{
    desk::{Desk, Gossip, Order, Prepare},
    id, lying,
    medium::Medium,
    process::Process,
    telling::kind,
    world::{Act, World, transient},
};

on_each_journal! {
    told_before_the_state_that_takes_it_it_is_kept
    told_while_the_run_waits_for_it_it_wakes_the_run
    told_during_the_step_that_takes_another_it_is_kept_for_the_next
    told_after_the_end_it_is_refused
    the_oldest_is_taken_first
    the_same_id_twice_is_one_signal
    the_same_id_before_and_after_a_restart_is_one_signal
    the_same_id_of_an_ended_run_is_still_known
    what_no_state_takes_is_kept_to_the_end
    a_step_that_fails_finds_what_it_took_again
    a_step_that_dies_finds_what_it_took_again
    a_failed_step_finds_what_it_took_again_after_a_restart
    what_is_no_signal_of_the_type_is_a_fault_of_its_run_alone
    a_wait_ends_without_a_signal_when_its_time_is_over
    a_wait_whose_time_passed_while_the_process_was_dead_is_over
    a_signal_in_time_ends_a_wait_for_good
    a_run_that_nobody_recovered_hears_it
    a_wait_that_a_signal_ends_in_another_process_was_not_interrupted
    an_unknown_run_is_a_typed_error
    it_is_told_once_to_whoever_watches
    a_paused_run_hears_it_and_does_not_move
}

fn serve(orders: usize) -> Prepare {
    Prepare::Serve { orders }
}

fn told_before_the_state_that_takes_it_it_is_kept(medium: Medium) {
    let world = World::script([Act::Held]);
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &serve(1));
    process.until(|| world.said("prepare") == 1);
    process.order("r", 1);
    world.let_go();
    assert_eq!(process.ended("r"), r#"completed {"orders":[1]}"#);
    assert_eq!(process.kinds("r"), ["enter", "signal", "enter", "enter", "end"]);
    assert!(process.inspect("r").carried.signals.is_empty());
}

fn told_while_the_run_waits_for_it_it_wakes_the_run(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &serve(1));
    process.until_in("r", "await");
    assert_eq!(world.log(), ["prepare"]);
    process.order("r", 1);
    assert_eq!(process.ended("r"), r#"completed {"orders":[1]}"#);
    assert_eq!(process.kinds("r"), ["enter", "enter", "signal", "enter", "end"]);
}

fn told_during_the_step_that_takes_another_it_is_kept_for_the_next(medium: Medium) {
    let world = World::script([Act::Wait(0), Act::Held]);
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &serve(2));
    process.order("r", 1);
    process.until(|| world.said("order 1") == 1);
    process.order("r", 2);
    assert_eq!(world.said("order 2"), 0, "the first step is still at work");
    world.let_go();
    assert_eq!(process.ended("r"), r#"completed {"orders":[1,2]}"#);
}

fn told_after_the_end_it_is_refused(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.end(&process.begin("r", "desk", &Prepare::Nothing));
    let before = process.kinds("r");
    let told = process.tell("r", "late", &Order(1));
    assert_eq!(kind(told), Some(RuntimeErrorKind::Ended));
    assert_eq!(process.kinds("r"), before);
}

fn the_oldest_is_taken_first(medium: Medium) {
    let world = World::script([Act::Held]);
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &serve(5));
    for number in [3, 1, 5, 2, 4] {
        process.order("r", number);
    }
    world.let_go();
    assert_eq!(process.ended("r"), r#"completed {"orders":[3,1,5,2,4]}"#);
}

fn the_same_id_twice_is_one_signal(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("r", "desk", &serve(2));
    for _ in 0..3 {
        process.order("r", 1);
    }
    process.rest();
    assert_eq!(process.inspect("r").state, "await", "one order is not two");
    process.order("r", 1);
    process.order("r", 2);
    assert_eq!(process.ended("r"), r#"completed {"orders":[1,2]}"#);
}

fn the_same_id_before_and_after_a_restart_is_one_signal(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &serve(2));
    process.order("r", 1);
    process.until(|| process.states("r").len() == 3);
    let environment = process.die();

    let process = Process::again(&medium, environment, &world);
    process.order("r", 1);
    process.order("r", 2);
    assert_eq!(process.ended("r"), r#"completed {"orders":[1,2]}"#);
    assert_eq!(world.said("order 1"), 1);
}

fn the_same_id_of_an_ended_run_is_still_known(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("r", "desk", &serve(1));
    process.end(&process.order("r", 1));
    process.order("r", 1);
    assert_eq!(process.kinds("r").iter().filter(|kind| **kind == "signal").count(), 1);
}

fn what_no_state_takes_is_kept_to_the_end(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("r", "desk", &serve(1));
    process.tell("r", "g", &Gossip).unwrap();
    process.until_in("r", "await");
    process.order("r", 1);
    process.ended("r");
    let left: Vec<_> =
        process.inspect("r").carried.signals.into_iter().map(|signal| signal.name).collect();
    assert_eq!(left, ["gossip"]);
}

fn a_step_that_fails_finds_what_it_took_again(medium: Medium) {
    let fail = || Act::Fault(transient());
    let world = World::script([Act::Wait(0), fail(), fail()]);
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &serve(2));
    process.order("r", 1);
    let run = process.order("r", 2);
    assert_eq!(process.end_in_time(&run).data.as_text(), Some(r#"{"orders":[1,2]}"#));
    assert_eq!((world.said("order 1"), world.said("order 2")), (3, 1));
}

fn a_step_that_dies_finds_what_it_took_again(medium: Medium) {
    let world = World::script([Act::Wait(0), Act::Hang]);
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &serve(1));
    process.order("r", 1);
    process.until(|| world.said("order 1") == 1);
    let environment = process.die();

    let process = Process::again(&medium, environment, &world);
    assert_eq!(process.ended("r"), r#"completed {"orders":[1]}"#);
    assert_eq!(world.said("order 1"), 2);
}

fn a_failed_step_finds_what_it_took_again_after_a_restart(medium: Medium) {
    let later = transient().retry_after(Duration::from_secs(60));
    let world = World::script([Act::Wait(0), Act::Fault(later)]);
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &serve(1));
    process.order("r", 1);
    process.until(|| process.kinds("r").contains(&"attempt"));
    let environment = process.die();

    let process = Process::again(&medium, environment, &world);
    let run = process.attach("r").unwrap();
    assert_eq!(process.end_in_time(&run).data.as_text(), Some(r#"{"orders":[1]}"#));
    assert_eq!(world.said("order 1"), 2);
}

fn what_is_no_signal_of_the_type_is_a_fault_of_its_run_alone(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("bad", "desk", &serve(1));
    process.begin("good", "desk", &serve(1));
    let rubbish = Data::encode(&"no number").unwrap();
    let told = process.block_on(process.runtime.signal(&id("bad"), "s", "order", rubbish));
    let end = process.end(&told.unwrap());
    assert_eq!(end.fault.as_ref().map(Fault::code), Some("signal.decode"));
    process.order("good", 1);
    assert_eq!(process.ended("good"), r#"completed {"orders":[1]}"#);
}

fn a_wait_ends_without_a_signal_when_its_time_is_over(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &Prepare::Timed);
    process.until_in("r", "timed");
    process.until_asleep();
    process.environment.advance(Duration::from_millis(59_999));
    process.rest();
    assert_eq!(world.said("nobody came"), 0);
    process.environment.advance(Duration::from_millis(1));
    assert_eq!(process.ended("r"), r#"completed {"orders":[]}"#);
    assert_eq!(world.said("nobody came"), 1);
}

fn a_wait_whose_time_passed_while_the_process_was_dead_is_over(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &Prepare::Timed);
    process.until_in("r", "timed");
    let environment = process.die();
    environment.advance(Duration::from_secs(3_600));

    let process = Process::again(&medium, environment, &world);
    assert_eq!(process.ended("r"), r#"completed {"orders":[]}"#);
    assert_eq!(world.said("nobody came"), 1);
}

fn a_signal_in_time_ends_a_wait_for_good(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &Prepare::Timed);
    process.until_in("r", "timed");
    process.until_asleep();
    process.environment.advance(Duration::from_secs(59));
    process.order("r", 1);
    assert_eq!(process.ended("r"), r#"completed {"orders":[1]}"#);
    process.environment.advance(Duration::from_secs(60));
    process.rest();
    assert_eq!(world.log(), ["prepare", "somebody came"]);
}

fn a_run_that_nobody_recovered_hears_it(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &serve(1));
    process.until_in("r", "await");
    let environment = process.die();

    let process = Process::full_at(&medium, environment, &world);
    process.order("r", 1);
    assert_eq!(process.ended("r"), r#"completed {"orders":[1]}"#);
}

fn a_wait_that_a_signal_ends_in_another_process_was_not_interrupted(medium: Medium) {
    let world = World::default();
    for (run, recovers) in [("recovered", true), ("found", false)] {
        let process = Process::full(&medium, &world);
        process.begin(run, "desk", &Prepare::Watchful);
        process.until_in(run, "await");
        let environment = process.die();

        let process = Process::full_at(&medium, environment, &world);
        if recovers {
            process.block_on(process.runtime.recover()).unwrap();
        }
        process.order(run, 1);
        process.ended(run);
        assert_eq!(process.states(run), ["prepare", "await", "served"], "{run}");
    }
}

fn an_unknown_run_is_a_typed_error(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    let told = process.tell("nobody", "s", &Order(1));
    assert_eq!(kind(told), Some(RuntimeErrorKind::UnknownRun));
    assert!(process.history("nobody").is_empty());
}

fn it_is_told_once_to_whoever_watches(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("r", "desk", &serve(2));
    process.order("r", 1);
    process.order("r", 1);
    process.rest();
    let told = process.events.count(
        |event| matches!(event, RunEvent::Signalled { id, name } if id == "order-1" && name == "order"),
    );
    assert_eq!(told, 1);
}

fn a_paused_run_hears_it_and_does_not_move(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &serve(1));
    process.until_in("r", "await");
    process.block_on(process.runtime.pause(&id("r"), "a test asks")).unwrap();
    process.order("r", 1);
    process.rest();
    assert_eq!(world.said("order 1"), 0);
    process.block_on(process.runtime.resume(&id("r"))).unwrap();
    assert_eq!(process.ended("r"), r#"completed {"orders":[1]}"#);
}

#[test]
fn what_a_step_took_that_gave_up_is_left_for_the_next_state() {
    let found = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&found);
    let machine = lying::Lying::new("work", move |call, _| {
        let names: Vec<_> = call.signals.iter().map(|signal| signal.name.clone()).collect();
        seen.lock().unwrap().push((call.state.clone(), names));
        match (call.state.as_str(), call.kind) {
            ("work", StepKind::Run) => {
                let mut outcome = Outcome::from(Fault::permanent("test.gone", "it is gone"));
                outcome.taken = call.signals.into_iter().map(|signal| signal.id).collect();
                outcome
            }
            ("work", _) => lying::to("other"),
            _ => lying::to("done"),
        }
    });
    let process = Process::start(&Medium::memory());
    process.runtime.register(machine, "tests 1").unwrap();
    process.begin("r", "lying", &());
    process.end(&process.tell("r", "s", &Gossip).unwrap());
    let gossip = || vec!["gossip".to_owned()];
    let states = ["work", "work", "other"].map(|state| (state.to_owned(), gossip()));
    assert_eq!(*found.lock().unwrap(), states);
}

#[test]
fn it_is_not_acknowledged_before_it_is_durable() {
    let (release, released) = oneshot::channel::<()>();
    let released = Arc::new(Mutex::new(Some(released)));
    let memory = MemoryJournal::new();
    let journal = Intercepted::new(memory.clone(), move |journal, records| {
        let is_signal = records.iter().any(|record| matches!(record.body, Body::Signal(_)));
        let held = is_signal.then(|| released.lock().unwrap().take()).flatten();
        async move {
            if let Some(held) = held {
                let _ = held.await;
            }
            journal.append(records).await
        }
    });
    let environment = ManualEnvironment::default();
    let runtime = Runtime::builder(journal, environment.clone()).build();
    runtime.register(Hosted::new(Desk, World::default()), "tests 1").unwrap();
    let (run, input) = (id("r"), Data::encode(&serve(1)).unwrap());
    environment.block_on(runtime.start(run.clone(), "desk", input)).unwrap();
    environment.run_until_stalled();
    let mut told = Box::pin(runtime.tell(&run, "s", &Order(1)));
    assert!(told.as_mut().now_or_never().is_none());
    environment.run_until_stalled();
    assert!(told.as_mut().now_or_never().is_none(), "it is on its way to the journal");
    release.send(()).unwrap();
    let handle = environment.block_on(told).unwrap();
    let written = memory.history(&run).now_or_never().unwrap().unwrap();
    assert!(written.iter().any(|record| matches!(record.body, Body::Signal(_))));
    environment.block_on(handle.end()).unwrap();
}

#[test]
fn an_id_is_remembered_over_so_many_others_and_as_long_as_the_signal_waits() {
    let process = Process::full(&Medium::memory(), &World::default());
    process.begin("r", "desk", &serve(2));
    process.order("r", 1);
    process.tell("r", "waiting", &Gossip).unwrap();
    let heard = || process.kinds("r").iter().filter(|kind| **kind == "signal").count();
    let others = Carried::HEARD_MAX - 2;
    for number in 0..others {
        process.tell("r", &format!("other-{number}"), &Gossip).unwrap();
    }
    process.order("r", 1);
    assert_eq!(heard(), others + 2, "it is still known");
    process.tell("r", "one more", &Gossip).unwrap();
    assert_eq!(process.inspect("r").carried.heard.len(), Carried::HEARD_MAX);
    process.tell("r", "and another", &Gossip).unwrap();
    process.tell("r", "waiting", &Gossip).unwrap();
    assert_eq!(heard(), others + 4, "what waits is known for ever");
    process.order("r", 1);
    assert_eq!(process.ended("r"), r#"completed {"orders":[1,1]}"#, "and what is gone is not");
}

#[test]
fn no_more_signals_wait_than_a_run_holds_until_one_is_taken() {
    let process = Process::full(&Medium::memory(), &World::default());
    process.begin("r", "desk", &serve(2));
    for number in 0..Carried::SIGNALS_MAX {
        process.tell("r", &format!("{number}"), &Gossip).unwrap();
    }
    let tell = |id: &str| kind(process.tell("r", id, &Order(1)));
    assert_eq!(tell("one more"), Some(RuntimeErrorKind::TooManySignals));
    process.tell("r", "0", &Gossip).unwrap();
    assert_eq!(process.inspect("r").carried.signals.len(), Carried::SIGNALS_MAX);
    assert_eq!(process.end(&process.cancel("r")).ending, Ending::Cancelled, "it goes on");
}
