//! What a pause means over the death of a process: a step that was not at work when the run began
//! to wait for its operator was not interrupted.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::time::Duration;

use fsm_core::{Retry, StepKind};

use self::support::{
    desk::Prepare,
    id, lying,
    medium::Medium,
    process::Process,
    world::{Act, Work, World, transient},
};

on_each_journal! {
    what_comes_while_a_wait_is_paused_is_no_interruption
    a_pause_when_no_attempt_is_left_is_no_interruption
    a_state_that_is_entered_while_paused_is_not_interrupted
    an_attempt_that_fails_while_paused_is_not_interrupted
    a_step_that_dies_while_paused_is_interrupted
}

fn pause(process: &Process) {
    process.block_on(process.runtime.pause(&id("r"), "a test asks")).unwrap();
}

/// The process dies, and the next one begins when whatever the run waited for is over.
fn next(medium: &Medium, process: Process, world: &World) -> Process {
    let environment = process.die();
    environment.advance(Duration::from_secs(3_600));
    Process::full_at(medium, environment, world)
}

/// The states that the run went through, once this process has taken it up and an operator has let
/// it go on.
fn path(process: &Process) -> Vec<String> {
    process.block_on(process.runtime.recover()).unwrap();
    assert_eq!(process.inspect("r").status.as_str(), "paused");
    let run = process.block_on(process.runtime.resume(&id("r"))).unwrap();
    process.end_in_time(&run);
    process.states("r")
}

fn what_comes_while_a_wait_is_paused_is_no_interruption(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &Prepare::Watchful);
    process.until_in("r", "await");
    pause(&process);
    process.order("r", 1);
    let process = next(&medium, process, &world);
    assert_eq!(path(&process), ["prepare", "await", "served"]);
}

fn a_state_that_is_entered_while_paused_is_not_interrupted(medium: Medium) {
    let world = World::script([Act::Held]);
    let process = Process::full(&medium, &world);
    process.begin("r", "job", &Work { rest_secs: Some(60), ..Work::default() });
    process.until(|| world.said("work 1") == 1);
    pause(&process);
    world.let_go();
    process.until_in("r", "rest");
    let process = next(&medium, process, &world);
    assert_eq!(path(&process), ["work", "rest", "done"]);
}

fn a_step_that_dies_while_paused_is_interrupted(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::full(&medium, &world);
    process.begin("r", "job", &Work { look_when_interrupted: true, ..Work::default() });
    process.until(|| world.said("work 1") == 1);
    pause(&process);
    let process = next(&medium, process, &world);
    assert_eq!(path(&process), ["work", "look", "done"]);
}

/// A machine whose step fails `failures` times, and whose edge for an interruption leads to
/// `other`.
fn failing(process: &Process, failures: u32) {
    let mut machine = lying::Lying::new("work", move |call, before| match call.kind {
        StepKind::Interrupted => lying::to("other"),
        StepKind::Run if call.state == "work" && before < failures => transient().into(),
        _ => lying::to("done"),
    });
    machine.graph.states[0].retry = Retry::times(1).or_pause();
    process.runtime.register(machine, "tests 1").unwrap();
}

fn a_pause_when_no_attempt_is_left_is_no_interruption(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    failing(&process, 1);
    process.begin("r", "lying", &());
    process.until(|| process.kinds("r").contains(&"pause"));
    let process = next(&medium, process, &world);
    failing(&process, 0);
    assert_eq!(path(&process), ["work", "done"]);
}

fn an_attempt_that_fails_while_paused_is_not_interrupted(medium: Medium) {
    let fault = transient().retry_after(Duration::from_secs(60));
    let world = World::script([Act::HeldThenFault(fault)]);
    let process = Process::full(&medium, &world);
    process.begin("r", "job", &Work { look_when_interrupted: true, ..Work::default() });
    process.until(|| world.said("work 1") == 1);
    pause(&process);
    world.let_go();
    process.until(|| process.kinds("r").contains(&"attempt"));
    let process = next(&medium, process, &world);
    assert_eq!(path(&process), ["work", "done"]);
}
