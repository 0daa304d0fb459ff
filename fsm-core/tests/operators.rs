//! What an operator asks of a run: to wait, to go on, to stop, to be given up.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use fsm_core::{
    Data, End, Ending, Fault, Hosted, MemoryJournal, Observer, RunEvent, RunHandle, RunId, Runtime,
    RuntimeError, RuntimeErrorKind, Status, testing::ManualEnvironment,
};
use futures::FutureExt;

use self::support::{
    desk::{Order, Prepare},
    id, lying,
    medium::Medium,
    process::Process,
    telling::kind,
    world::{Act, Job, Work, World, transient},
};

on_each_journal! {
    a_pause_during_a_step_lets_it_end_and_begins_no_other
    a_pause_holds_a_timer_that_comes_due
    a_pause_before_an_appointment_does_not_bring_it_forward
    a_pause_lasts_over_restarts
    a_run_that_pauses_twice_pauses_once
    a_cancel_ends_a_pause_and_is_delivered
    a_resume_of_a_run_that_does_not_pause_changes_nothing
    a_run_that_is_let_go_on_has_all_its_attempts_and_their_time
    a_pause_of_a_wait_is_no_interruption
    a_failed_run_goes_on_where_it_failed
    a_failed_run_goes_on_with_all_its_attempts
    a_run_that_cannot_go_on_is_not_redriven
    a_redriven_parent_sees_the_children_that_ended_meanwhile
    a_hanging_step_is_given_up_at_once
    a_run_that_waits_is_given_up
    a_run_that_ended_is_not_given_up
    nothing_can_be_asked_of_a_run_that_has_ended
    nothing_can_be_asked_of_a_run_that_is_not_there
}

fn pause(process: &Process, run: &str) -> Result<RunHandle, RuntimeError> {
    process.block_on(process.runtime.pause(&id(run), "a test asks"))
}

fn resume(process: &Process, run: &str) -> RunHandle {
    process.block_on(process.runtime.resume(&id(run))).unwrap()
}

fn redrive(process: &Process, run: &str) -> Result<RunHandle, RuntimeError> {
    process.block_on(process.runtime.redrive(&id(run)))
}

fn abandon(process: &Process, run: &str) -> Result<RunHandle, RuntimeError> {
    process.block_on(process.runtime.abandon(&id(run), "a test asks"))
}

fn gone() -> Act {
    Act::Fault(Fault::permanent("test.gone", "it is gone"))
}

fn a_pause_during_a_step_lets_it_end_and_begins_no_other(medium: Medium) {
    let world = World::script([Act::Held]);
    let process = Process::full(&medium, &world);
    process.begin("r", "job", &Work { patient: true, ..Work::default() });
    process.until(|| world.said("work 1") == 1);
    pause(&process, "r").unwrap();
    world.let_go();
    process.until_in("r", "patient");
    process.rest();
    assert_eq!(world.log(), ["work 1"]);
    let Status::Paused(why) = process.inspect("r").status else { panic!("it does not pause") };
    assert_eq!((why.code(), why.message()), ("run.paused", "a test asks"));
    assert_eq!(process.end(&resume(&process, "r")).ending, Ending::Completed);
    let told = |event: &RunEvent| matches!(event, RunEvent::Paused(_) | RunEvent::Resumed);
    assert_eq!(process.events.count(told), 2);
}

fn a_pause_holds_a_timer_that_comes_due(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("r", "job", &Work { rest_secs: Some(60), ..Work::default() });
    process.until_in("r", "rest");
    pause(&process, "r").unwrap();
    process.environment.advance(Duration::from_secs(3_600));
    process.rest();
    assert_eq!(world.said("rested"), 0);
    process.end(&resume(&process, "r"));
    assert_eq!(world.said("rested"), 1);
}

fn a_pause_before_an_appointment_does_not_bring_it_forward(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("r", "job", &Work { rest_secs: Some(60), ..Work::default() });
    process.until_in("r", "rest");
    pause(&process, "r").unwrap();
    let run = resume(&process, "r");
    process.rest();
    process.environment.advance(Duration::from_millis(59_999));
    process.rest();
    assert_eq!(world.said("rested"), 0);
    process.environment.advance(Duration::from_millis(1));
    process.end(&run);
    assert_eq!(world.said("rested"), 1);
}

fn a_pause_lasts_over_restarts(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("r", "job", &Work { rest_secs: Some(60), ..Work::default() });
    process.until_in("r", "rest");
    pause(&process, "r").unwrap();
    let mut environment = process.die();
    for _ in 0..3 {
        environment.advance(Duration::from_secs(60));
        let process = Process::again(&medium, environment, &world);
        process.rest();
        assert_eq!(process.inspect("r").status.as_str(), "paused");
        environment = process.die();
    }
    let process = Process::again(&medium, environment, &world);
    assert_eq!(process.end(&resume(&process, "r")).ending, Ending::Completed);
    assert_eq!(world.said("work 1"), 1);
}

fn a_run_that_pauses_twice_pauses_once(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("r", "desk", &Prepare::Serve { orders: 1 });
    process.until_in("r", "await");
    pause(&process, "r").unwrap();
    pause(&process, "r").unwrap();
    assert_eq!(process.kinds("r").iter().filter(|kind| **kind == "pause").count(), 1);
}

fn a_cancel_ends_a_pause_and_is_delivered(medium: Medium) {
    let world = World::script([Act::Held]);
    let process = Process::full(&medium, &world);
    process.begin("r", "job", &Work { patient: true, ..Work::default() });
    process.until(|| world.said("work 1") == 1);
    pause(&process, "r").unwrap();
    world.let_go();
    process.until_in("r", "patient");
    let end = process.end(&process.cancel("r"));
    assert_eq!((end.ending, end.state.as_str()), (Ending::Cancelled, "patient"));
    assert_eq!(world.log(), ["work 1"]);
}

fn a_resume_of_a_run_that_does_not_pause_changes_nothing(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("r", "desk", &Prepare::Serve { orders: 1 });
    process.until_in("r", "await");
    let before = process.kinds("r");
    resume(&process, "r");
    assert_eq!(process.kinds("r"), before);
}

fn a_run_that_is_let_go_on_has_all_its_attempts_and_their_time(medium: Medium) {
    let fails = |call: fsm_core::StepCall, _| match call.kind {
        fsm_core::StepKind::Run => transient().retry_after(Duration::from_secs(4)).into(),
        _ => unreachable!("{call:?}"),
    };
    let mut machine = lying::Lying::new("work", fails);
    machine.graph.states[0].retry =
        fsm_core::Retry::times(9).total_timeout(Duration::from_secs(10)).or_pause();
    let process = Process::start(&medium);
    process.runtime.register(machine, "tests 1").unwrap();
    process.begin("r", "lying", &());
    let attempts = || process.kinds("r").iter().filter(|kind| **kind == "attempt").count();
    let exhaust = || {
        process.until(|| {
            if process.inspect("r").status.as_str() != "paused" {
                process.environment.advance_to_next();
            }
            process.inspect("r").status.as_str() == "paused"
        });
    };
    exhaust();
    let before = attempts();
    assert!(before > 0);
    process.environment.advance(Duration::from_secs(3_600));
    resume(&process, "r");
    process.rest();
    exhaust();
    assert_eq!(attempts(), 2 * before, "an hour's pause costs none of its ten seconds");
}

fn a_pause_of_a_wait_is_no_interruption(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &Prepare::Watchful);
    process.until_in("r", "await");
    pause(&process, "r").unwrap();
    let environment = process.die();

    let process = Process::again(&medium, environment, &world);
    process.order("r", 1);
    process.end(&resume(&process, "r"));
    assert_eq!(process.states("r"), ["prepare", "await", "served"]);
}

fn a_failed_run_goes_on_where_it_failed(medium: Medium) {
    let world = World::script([Act::Wait(0), gone()]);
    let process = Process::full(&medium, &world);
    process.begin("r", "desk", &Prepare::Serve { orders: 1 });
    let end = process.end(&process.order("r", 7));
    assert_eq!((end.ending, end.state.as_str()), (Ending::Failed, "await"));
    process.end(&redrive(&process, "r").unwrap());
    assert_eq!(process.ended("r"), r#"completed {"orders":[7]}"#);
    assert_eq!(world.log(), ["prepare", "order 7", "order 7"], "the states before do not run");
    assert_eq!(process.states("r"), ["prepare", "await", "served"]);
}

fn a_failed_run_goes_on_with_all_its_attempts(medium: Medium) {
    let fault = || Act::Fault(transient());
    let world = World::script((0..5).map(|_| fault()));
    let process = Process::full(&medium, &world);
    let run = process.begin("r", "job", &Work::default());
    assert_eq!(process.end_in_time(&run).ending, Ending::Failed);
    let environment = process.die();

    let process = Process::full_at(&medium, environment, &world);
    let run = redrive(&process, "r").unwrap();
    assert_eq!(process.end_in_time(&run).ending, Ending::Completed);
    assert_eq!(world.log(), ["work 1", "work 2", "work 3", "work 1", "work 2", "work 3"]);
}

fn a_run_that_cannot_go_on_is_not_redriven(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.end(&process.begin("completed", "job", &Work::default()));
    process.begin("cancelled", "desk", &Prepare::Serve { orders: 1 });
    process.end(&process.cancel("cancelled"));
    world.add([gone()]);
    let undone = Work { undo_when_exhausted: true, ..Work::default() };
    process.end(&process.begin("terminal", "job", &undone));
    process.begin("abandoned", "desk", &Prepare::Serve { orders: 1 });
    process.end(&abandon(&process, "abandoned").unwrap());
    process.begin("waits", "desk", &Prepare::Serve { orders: 1 });
    for run in ["completed", "cancelled", "terminal", "abandoned", "waits"] {
        let before = process.kinds(run);
        let redriven = redrive(&process, run);
        assert_eq!(kind(redriven), Some(RuntimeErrorKind::NotFailed), "{run}");
        if run != "waits" {
            assert_eq!(process.kinds(run), before);
        }
    }
    process.die();
    let process = Process::start(&medium);
    assert_eq!(kind(redrive(&process, "completed")), Some(RuntimeErrorKind::NotFailed));
}

fn a_redriven_parent_sees_the_children_that_ended_meanwhile(medium: Medium) {
    use support::parent::{Raise, Then};
    let world = World::script([Act::Wait(0), gone()]);
    let process = Process::full(&medium, &world);
    let raise = Raise::new(&[("a", Prepare::Serve { orders: 1 })], Then::Toil);
    let run = process.begin("p", "parent", &raise);
    process.until_in("p/1/a", "await");
    assert_eq!(process.end_in_time(&run).state, "toil");
    process.until(|| process.has_ended("p/1/a"));
    process.end(&redrive(&process, "p").unwrap());
    assert!(process.ended("p").contains("a cancelled"));
}

fn a_hanging_step_is_given_up_at_once(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::full(&medium, &world);
    process.begin("r", "job", &Work { undo_when_cancelled: true, ..Work::default() });
    process.until(|| world.said("work 1") == 1);
    let end = process.end(&abandon(&process, "r").unwrap());
    assert_eq!((end.ending, end.state.as_str()), (Ending::Abandoned, "work"));
    assert_eq!(end.fault.unwrap().message(), "a test asks");
    process.until(|| world.said("dropped") == 1);
    assert_eq!(process.states("r"), ["work"], "nothing is undone");
}

fn a_run_that_waits_is_given_up(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("r", "job", &Work { rest_secs: Some(60), ..Work::default() });
    process.until_in("r", "rest");
    assert_eq!(process.end(&abandon(&process, "r").unwrap()).ending, Ending::Abandoned);
    process.environment.advance(Duration::from_secs(60));
    process.rest();
    assert_eq!(process.kinds("r"), ["enter", "enter", "end"]);
}

fn a_run_that_ended_is_not_given_up(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.end(&process.begin("r", "job", &Work::default()));
    assert_eq!(process.end(&abandon(&process, "r").unwrap()).ending, Ending::Completed);
}

fn nothing_can_be_asked_of_a_run_that_has_ended(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.end(&process.begin("r", "job", &Work::default()));
    let before = process.kinds("r");
    assert_eq!(kind(pause(&process, "r")), Some(RuntimeErrorKind::Ended));
    assert_eq!(kind(process.tell("r", "s", &Order(1))), Some(RuntimeErrorKind::Ended));
    assert_eq!(process.end(&resume(&process, "r")).ending, Ending::Completed);
    assert_eq!(process.end(&process.cancel("r")).ending, Ending::Completed);
    assert_eq!(process.kinds("r"), before);
}

fn nothing_can_be_asked_of_a_run_that_is_not_there(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    let unknown = Some(RuntimeErrorKind::UnknownRun);
    assert_eq!(kind(pause(&process, "r")), unknown);
    assert_eq!(kind(redrive(&process, "r")), unknown);
    assert_eq!(kind(abandon(&process, "r")), unknown);
    assert_eq!(kind(process.block_on(process.runtime.resume(&id("r")))), unknown);
}

/// Redrives a run in the moment in which it is told to have ended.
#[derive(Clone, Default)]
struct Impatient {
    runtime: Arc<OnceLock<Runtime>>,
    asked: Arc<Mutex<Option<Answer>>>,
}

type Answer = futures::future::BoxFuture<'static, Result<RunHandle, RuntimeError>>;

impl Observer for Impatient {
    fn observe(&self, run: &RunId, event: RunEvent) {
        let mut asked = self.asked.lock().unwrap();
        if let (RunEvent::Ended(End { ending: Ending::Failed, .. }), None) = (event, &*asked) {
            let (runtime, run) = (self.runtime.get().unwrap().clone(), run.clone());
            let mut redriven = async move { runtime.redrive(&run).await }.boxed();
            assert!((&mut redriven).now_or_never().is_none());
            *asked = Some(redriven);
        }
    }
}

#[test]
fn what_is_asked_of_a_run_on_its_way_out_is_done() {
    let (environment, impatient) = (ManualEnvironment::default(), Impatient::default());
    let runtime = Runtime::builder(MemoryJournal::new(), environment.clone())
        .observer(impatient.clone())
        .build();
    runtime.register(Hosted::new(Job, World::script([gone()])), "tests 1").unwrap();
    assert!(impatient.runtime.set(runtime.clone()).is_ok());
    let input = Data::encode(&Work::default()).unwrap();
    let start = runtime.start(id("r"), "job", input);
    let run = environment.block_on(start).unwrap();
    assert_eq!(environment.block_on(run.end()).unwrap().ending, Ending::Completed);
    let redriven = impatient.asked.lock().unwrap().take().unwrap();
    environment.block_on(redriven).unwrap();
}
