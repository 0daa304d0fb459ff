//! A request to cancel: when it is delivered, and what it leads to.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fsm_core::{
    Body, Cancel, Class, Data, Ending, Fault, Hosted, Journal, MemoryJournal, Record, Runtime,
    RuntimeErrorKind, StepKind,
    testing::{Intercepted, ManualEnvironment},
};
use futures::FutureExt;

use self::support::{
    id, lying,
    medium::Medium,
    process::{Process, breathe},
    world::{Act, Job, Work, World},
};

on_each_journal! {
    before_the_first_step_it_takes_the_edge
    while_waiting_for_a_time_it_is_delivered_at_once
    a_running_step_sees_it_and_stops
    the_edge_leads_to_a_state_that_undoes
    a_step_that_does_not_stop_is_dropped_after_the_grace
    a_clock_set_back_does_not_prolong_the_grace
    a_state_that_defers_it_finishes_first
    a_deferred_request_is_delivered_in_the_next_state
    a_step_that_moves_on_is_cancelled_in_the_next_state
    a_step_that_ends_the_run_wins
    it_is_recorded_and_settled_once
    it_survives_a_restart
    a_run_that_never_waits_hears_it
    a_run_that_never_waits_can_be_stopped
    an_interrupted_edge_is_asked_again
    a_run_that_does_not_run_here_is_resumed_to_be_cancelled
    a_run_that_never_began_is_revoked_without_a_step_and_no_other_is
}

fn before_the_first_step_it_takes_the_edge(medium: Medium) {
    let world = World::default();
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work::default());
    let end = process.end(&process.cancel("r"));
    assert_eq!((end.ending, end.state.as_str()), (Ending::Cancelled, "work"));
    assert!(world.log().is_empty());
}

fn while_waiting_for_a_time_it_is_delivered_at_once(medium: Medium) {
    let world = World::default();
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work { rest_secs: Some(3_600), ..Work::default() });
    process.until(|| process.environment.next_wake().is_some() && process.states("r").len() == 2);
    let end = process.end(&process.cancel("r"));
    assert_eq!((end.ending, end.state.as_str()), (Ending::Cancelled, "rest"));
    assert_eq!(world.said("rested"), 0);
}

fn a_running_step_sees_it_and_stops(medium: Medium) {
    let world = World::script([Act::Heed]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work::default());
    process.until(|| world.said("work 1") == 1);
    let end = process.end(&process.cancel("r"));
    assert_eq!((end.ending, end.fault), (Ending::Cancelled, Some(asked())));
    assert_eq!(world.said("heeded"), 1);
    assert_eq!(process.kinds("r"), ["enter", "cancel", "end"]);
}

fn the_edge_leads_to_a_state_that_undoes(medium: Medium) {
    let world = World::script([Act::Heed]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work { undo_when_cancelled: true, ..Work::default() });
    process.until(|| world.said("work 1") == 1);
    let end = process.end(&process.cancel("r"));
    assert_eq!(end.data.as_text(), Some(r#"{"code":"cancelled"}"#));
    assert_eq!(process.states("r"), ["work", "undo", "failed"]);
}

fn a_step_that_does_not_stop_is_dropped_after_the_grace(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work::default());
    process.until(|| world.said("work 1") == 1);
    let run = process.cancel("r");
    process.until_asleep();
    process.environment.advance(Duration::from_secs(29));
    process.block_on(breathe());
    assert_eq!(world.said("dropped"), 0);
    process.environment.advance(Duration::from_secs(1));
    assert_eq!(process.end(&run).ending, Ending::Cancelled);
    assert_eq!(world.said("dropped"), 1);
}

fn a_clock_set_back_does_not_prolong_the_grace(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work::default());
    process.until(|| world.said("work 1") == 1);
    let run = process.cancel("r");
    process.until_asleep();
    process.environment.set_back(Duration::from_secs(3_600));
    assert_eq!(process.end(&run).ending, Ending::Cancelled);
}

fn a_state_that_defers_it_finishes_first(medium: Medium) {
    let gone = Fault::permanent("test.gone", "it is gone");
    let world = World::script([Act::Fault(gone), Act::Held]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work { undo_when_exhausted: true, ..Work::default() });
    process.until(|| world.said("undo") == 1);
    let run = process.cancel("r");
    world.let_go();
    let end = process.end(&run);
    assert_eq!((end.ending, end.state.as_str()), (Ending::Failed, "failed"));
    assert_eq!(world.said("undo"), 1);
    assert!(process.kinds("r").contains(&"cancel"));
}

fn a_deferred_request_is_delivered_in_the_next_state(medium: Medium) {
    let mut machine =
        lying::Lying::new("work", |call, _| match (call.state.as_str(), &call.kind) {
            ("work", StepKind::Run) => lying::to("other"),
            ("other", StepKind::Cancel) => lying::to("done"),
            _ => unreachable!("{call:?}"),
        });
    machine.graph.states[0].cancel = Cancel::Defer;
    let process = Process::start(&medium);
    process.runtime.register(machine, "tests 1").unwrap();
    process.begin("r", "lying", &());
    process.end(&process.cancel("r"));
    assert_eq!(process.kinds("r"), ["enter", "cancel", "enter", "enter", "end"]);
}

fn a_step_that_moves_on_is_cancelled_in_the_next_state(medium: Medium) {
    let world = World::script([Act::MoveOnWhenAsked]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work { rest_secs: Some(60), ..Work::default() });
    process.until(|| world.said("work 1") == 1);
    let end = process.end(&process.cancel("r"));
    assert_eq!((end.ending, end.state.as_str()), (Ending::Cancelled, "rest"));
}

fn a_step_that_ends_the_run_wins(medium: Medium) {
    let world = World::script([Act::MoveOnWhenAsked]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work::default());
    process.until(|| world.said("work 1") == 1);
    assert_eq!(process.end(&process.cancel("r")).ending, Ending::Completed);
}

fn it_is_recorded_and_settled_once(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work { undo_when_cancelled: true, ..Work::default() });
    process.until(|| world.said("work 1") == 1);
    process.cancel("r");
    let run = process.cancel("r");
    process.end_in_time(&run);
    let history = process.history("r");
    let requests = history.iter().filter(|r| matches!(r.body, Body::Cancel { .. })).count();
    assert_eq!(requests, 1);
    let unsettled = history
        .iter()
        .filter(|r| matches!(r.body, Body::Enter { ref carried, .. } if carried.cancel.is_some()))
        .count();
    assert_eq!(unsettled, 0, "the edge settles it");
    assert_eq!(world.said("undo"), 1);
}

fn it_survives_a_restart(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work { undo_when_cancelled: true, ..Work::default() });
    process.until(|| world.said("work 1") == 1);
    process.cancel("r");
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(Job, &world);
    process.end(&process.attach("r").unwrap());
    assert_eq!(process.states("r"), ["work", "undo", "failed"]);
    assert_eq!(world.said("work 1"), 1, "the step is not run again");
}

fn restless() -> lying::Lying {
    let mut machine = lying::Lying::new("work", |call, _| match &call.kind {
        StepKind::Run => lying::to("work"),
        _ => Fault::cancelled().into(),
    });
    machine.graph = lying::graph(
        "work",
        vec![lying::state("work", &["work", "done"]), lying::state("done", &[])],
    );
    machine
}

fn a_run_that_never_waits_hears_it(medium: Medium) {
    let process = Process::start(&medium);
    process.runtime.register(restless(), "tests 1").unwrap();
    process.begin("r", "lying", &());
    process.until(|| process.states("r").len() > 5);
    assert_eq!(process.end(&process.cancel("r")).ending, Ending::Cancelled);
}

fn a_run_that_never_waits_can_be_stopped(medium: Medium) {
    let process = Process::start(&medium);
    process.runtime.register(restless(), "tests 1").unwrap();
    let run = process.begin("r", "lying", &());
    process.until(|| process.states("r").len() > 5);
    process.block_on(process.runtime.stop());
    let error = process.block_on(run.end()).unwrap_err();
    assert_eq!(error.kind(), RuntimeErrorKind::Stopped);
}

fn an_interrupted_edge_is_asked_again(medium: Medium) {
    let machine = lying::Lying::new("work", |call, before| match (&call.kind, before) {
        (StepKind::Cancel, 0) => Fault::interrupted("the child died").into(),
        (StepKind::Cancel, _) => lying::to("done"),
        _ => unreachable!("{call:?}"),
    });
    let process = Process::start(&medium);
    process.runtime.register(machine, "tests 1").unwrap();
    process.begin("r", "lying", &());
    let run = process.cancel("r");
    assert_eq!(process.end_in_time(&run).ending, Ending::Completed);
    assert_eq!(process.states("r"), ["work", "done"]);
}

fn a_run_that_does_not_run_here_is_resumed_to_be_cancelled(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work::default());
    process.until(|| world.said("work 1") == 1);
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(Job, &world);
    let end = process.end(&process.cancel("r"));
    assert_eq!(end.ending, Ending::Cancelled);
    let unknown = process.block_on(process.runtime.cancel(&id("nobody"), "a test asks"));
    assert_eq!(unknown.unwrap_err().kind(), RuntimeErrorKind::UnknownRun);
}

fn a_run_that_never_began_is_revoked_without_a_step_and_no_other_is(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::start(&medium).with(Job, &world);
    let input = Data::encode(&Work::default()).unwrap();
    let first = process.runtime.first_record(id("waits"), "job", input).unwrap();
    let environment = process.die();
    let journal = medium.open();
    environment.block_on(journal.append(vec![first])).unwrap();
    drop(journal);

    let process = Process::start_at(&medium, environment).with(Job, &world);
    let revoke = |run: &str| {
        let fault = Fault::user("no.room", "there is no room");
        process.block_on(process.runtime.revoke(&id(run), Ending::Failed, fault)).unwrap()
    };
    let end = revoke("waits").unwrap();
    assert_eq!((end.ending, end.fault.unwrap().code()), (Ending::Failed, "no.room"));
    assert_eq!(process.kinds("waits"), ["enter", "end"]);
    assert_eq!(revoke("waits").unwrap().ending, Ending::Failed, "it is found again");
    assert_eq!(world.said("work 1"), 0, "no step of it ran");

    process.begin("works", "job", &Work::default());
    process.until(|| world.said("work 1") == 1);
    assert_eq!(revoke("works"), None);
}

/// What a run that has no edge for it ends with when a test has asked it to stop.
fn asked() -> Fault {
    Fault::new(Class::Cancelled, "cancelled", "a test asks")
}

#[test]
fn a_run_whose_revocation_is_on_its_way_does_not_begin() {
    let (memory, world, environment) =
        (MemoryJournal::new(), World::default(), ManualEnvironment::default());
    let late: Arc<Mutex<Vec<Record>>> = Arc::default();
    let queue = Arc::clone(&late);
    // The first write lands with the second one, as nobody waits for it any more.
    let journal = Intercepted::new(memory.clone(), move |journal, records| {
        let before = std::mem::take(&mut *queue.lock().unwrap());
        let is_end = records.iter().any(|record| matches!(record.body, Body::End { .. }));
        if before.is_empty() && is_end {
            *queue.lock().unwrap() = records;
            return futures::future::pending().boxed();
        }
        async move {
            if !before.is_empty() {
                journal.append(before).await?;
            }
            journal.append(records).await
        }
        .boxed()
    });
    let runtime = Runtime::builder(journal, environment.clone()).build();
    runtime.register(Hosted::new(Job, world.clone()), "tests 1").unwrap();
    let input = Data::encode(&Work::default()).unwrap();
    let first = runtime.first_record(id("r"), "job", input).unwrap();
    environment.block_on(memory.append(vec![first])).unwrap();
    let run = id("r");
    let fault = Fault::user("no.room", "there is no room");
    assert!(runtime.revoke(&run, Ending::Failed, fault).now_or_never().is_none());
    assert_eq!(late.lock().unwrap().len(), 1, "it is on its way");

    let end = environment.block_on(async { runtime.attach(&run).await?.end().await });
    assert_eq!(end.unwrap().fault.unwrap().code(), "no.room");
    assert_eq!(world.said("work 1"), 0, "no step of it ran");
}
