//! Appointments and deadlines, by a clock that runs on without the process, or is set back.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::time::Duration;

use fsm_core::{Class, Data, Ending, Environment, Fault, RunEvent, RunHandle};
use serde::Serialize;

use self::support::{
    desk::Prepare,
    id,
    medium::Medium,
    process::Process,
    punctual::Punctuality,
    world::{Act, Work, World},
};

on_each_journal! {
    an_appointment_is_kept_to_the_millisecond
    an_appointment_missed_by_a_dead_process_is_kept_once
    a_clock_set_back_does_not_keep_an_appointment_early
    a_deadline_stops_a_step
    a_deadline_ends_a_wait
    a_deadline_ends_a_pause
    a_deadline_waits_for_a_state_that_defers
    a_deadline_that_passed_while_the_process_was_dead_is_met_at_once
    a_deadline_is_met_once_over_restarts
    a_run_that_ends_in_time_hears_nothing_of_its_deadline
    a_step_sees_its_deadline
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn resting(process: &Process, run: &str, secs: u64) {
    process.begin(run, "job", &Work { rest_secs: Some(secs), ..Work::default() });
    process.until_in(run, "rest");
}

fn an_appointment_is_kept_to_the_millisecond(medium: Medium) {
    let world = World::default();
    let process = Process::punctual(&medium, &world);
    resting(&process, "r", 60);
    process.until_asleep();
    process.environment.advance(MINUTE - Duration::from_millis(1));
    process.rest();
    assert_eq!(world.said("rested"), 0);
    process.environment.advance(Duration::from_millis(1));
    process.ended("r");
    assert_eq!(world.said("rested"), 1);
}

fn an_appointment_missed_by_a_dead_process_is_kept_once(medium: Medium) {
    let world = World::default();
    let process = Process::punctual(&medium, &world);
    resting(&process, "r", 60);
    process.environment.advance(MINUTE - Duration::from_secs(1));
    let environment = process.die();
    environment.advance(Duration::from_secs(61));

    let process = Process::full_at(&medium, environment, &world);
    process.block_on(process.runtime.recover()).unwrap();
    process.block_on(process.runtime.recover()).unwrap();
    process.ended("r");
    process.environment.advance(HOUR);
    process.rest();
    // Nobody knows whether the process lived until then, so the state counts as interrupted.
    assert_eq!(process.states("r"), ["work", "rest", "look", "done"]);
    assert_eq!(world.said("look"), 1);
}

fn a_clock_set_back_does_not_keep_an_appointment_early(medium: Medium) {
    let world = World::default();
    let process = Process::punctual(&medium, &world);
    resting(&process, "r", 60);
    process.until_asleep();
    process.environment.set_back(HOUR);
    process.rest();
    process.until_asleep();
    process.environment.advance(HOUR + MINUTE - Duration::from_millis(1));
    process.rest();
    assert_eq!(world.said("rested"), 0);
    process.environment.advance(Duration::from_millis(1));
    process.ended("r");
    assert_eq!(world.said("rested"), 1);
}

/// Starts `machine` with a minute to end.
fn begin_by(process: &Process, machine: &str, input: &impl Serialize) -> RunHandle {
    let deadline = process.environment.now() + MINUTE;
    let input = Data::encode(input).unwrap();
    process.block_on(process.runtime.start_by(id("r"), machine, input, deadline)).unwrap()
}

fn missed() -> Fault {
    Fault::new(Class::Cancelled, "cancelled", "its deadline has passed")
}

fn times(process: &Process, kind: &str) -> usize {
    process.kinds("r").iter().filter(|other| **other == kind).count()
}

fn a_deadline_stops_a_step(medium: Medium) {
    let world = World::script([Act::Heed]);
    let process = Process::punctual(&medium, &world);
    let run = begin_by(&process, "job", &Work::default());
    process.until(|| world.said("work 1") == 1);
    process.until_asleep();
    process.environment.advance(MINUTE - Duration::from_millis(1));
    process.rest();
    assert_eq!(world.said("heeded"), 0);
    process.environment.advance(Duration::from_millis(1));
    let end = process.end(&run);
    assert_eq!((end.ending, end.fault), (Ending::Cancelled, Some(missed())));
    assert_eq!(process.kinds("r"), ["enter", "deadline", "end"]);
    let told = |event: &RunEvent| matches!(event, RunEvent::CancelRequested(reason) if reason == "its deadline has passed");
    assert_eq!(process.events.count(told), 1);
}

fn a_deadline_ends_a_wait(medium: Medium) {
    let process = Process::punctual(&medium, &World::default());
    let run = begin_by(&process, "desk", &Prepare::Serve { orders: 1 });
    process.until_in("r", "await");
    process.until_asleep();
    process.environment.advance(MINUTE);
    let end = process.end(&run);
    assert_eq!((end.state.as_str(), end.fault), ("await", Some(missed())));
}

fn a_deadline_ends_a_pause(medium: Medium) {
    let world = World::script([Act::Held]);
    let process = Process::punctual(&medium, &world);
    let run = begin_by(&process, "desk", &Prepare::Serve { orders: 1 });
    process.block_on(process.runtime.pause(&id("r"), "a test asks")).unwrap();
    world.let_go();
    process.until_asleep();
    process.environment.advance(MINUTE);
    assert_eq!(process.end(&run).fault, Some(missed()));
}

fn a_deadline_waits_for_a_state_that_defers(medium: Medium) {
    let gone = Fault::permanent("test.gone", "it is gone");
    let world = World::script([Act::Fault(gone), Act::Hang]);
    let process = Process::punctual(&medium, &world);
    let run = begin_by(&process, "job", &Work { undo_when_exhausted: true, ..Work::default() });
    process.until(|| world.said("undo") == 1);
    process.until_asleep();
    process.environment.advance(MINUTE);
    process.until(|| process.kinds("r").contains(&"deadline"));
    process.environment.advance(HOUR);
    process.rest();
    assert_eq!((world.said("dropped"), times(&process, "deadline")), (0, 1));
    drop(run);

    let process = process.restarted(&medium, &world);
    assert_eq!(process.end(&process.attach("r").unwrap()).ending, Ending::Failed);
    assert_eq!(process.states("r"), ["work", "undo", "failed"]);
}

fn a_deadline_that_passed_while_the_process_was_dead_is_met_at_once(medium: Medium) {
    let world = World::default();
    let process = Process::punctual(&medium, &world);
    begin_by(&process, "desk", &Prepare::Serve { orders: 1 });
    process.until_in("r", "await");
    let environment = process.die();
    environment.advance(HOUR);
    let process = Process::again(&medium, environment, &world);
    assert_eq!(process.end(&process.attach("r").unwrap()).fault, Some(missed()));
}

fn a_deadline_is_met_once_over_restarts(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::punctual(&medium, &world);
    begin_by(&process, "job", &Work { undo_when_cancelled: true, ..Work::default() });
    process.until(|| world.said("work 1") == 1);
    process.until_asleep();
    process.environment.advance(MINUTE);
    process.until(|| process.kinds("r").contains(&"deadline"));
    let process = process.restarted(&medium, &world);
    process.environment.advance(HOUR);
    process.end(&process.attach("r").unwrap());
    assert_eq!(process.states("r"), ["work", "undo", "failed"]);
    assert_eq!((times(&process, "deadline"), times(&process, "cancel")), (1, 0));
}

fn a_run_that_ends_in_time_hears_nothing_of_its_deadline(medium: Medium) {
    let process = Process::punctual(&medium, &World::default());
    assert_eq!(process.end(&begin_by(&process, "job", &Work::default())).ending, Ending::Completed);
    process.environment.advance(HOUR);
    process.rest();
    assert_eq!(times(&process, "deadline"), 0);
    assert_eq!(process.environment.next_wake(), None);
}

fn a_step_sees_its_deadline(medium: Medium) {
    let world = World::default();
    let process = Process::punctual(&medium, &world);
    let deadline = process.environment.now() + MINUTE;
    process.end(&begin_by(&process, "punctual", &Punctuality::Tells));
    assert_eq!(world.log(), [format!("{deadline}")]);
}
