//! A run from its start to its end: results, retries, faults, time.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::time::Duration;

use fsm_core::{Body, Class, Data, Ending, Fault, RunEvent, RuntimeErrorKind, Status};

use self::support::{
    id,
    medium::Medium,
    process::Process,
    world::{Act, Job, Work, World, transient},
};

on_each_journal! {
    a_run_goes_from_state_to_state_to_its_end
    the_result_is_the_last_states_data
    starting_an_id_twice_is_one_run
    starts_of_one_id_at_the_same_time_are_one_run
    resuming_a_run_that_has_ended_answers_its_end
    an_unknown_run_and_an_unknown_machine_are_typed_errors
    a_retryable_fault_is_tried_again_after_a_journaled_wait
    a_fault_may_ask_for_a_longer_wait
    attempts_survive_a_restart
    a_clock_set_back_does_not_prolong_a_retry
    an_attempt_that_takes_too_long_is_dropped_and_retried
    exhausted_attempts_take_the_edge
    exhausted_attempts_without_an_edge_fail_the_run
    a_permanent_fault_takes_the_edge_at_once
    a_panic_is_a_fault_of_its_run_alone
    a_run_without_attempts_left_pauses_until_an_operator_lets_it_go_on
    a_cancel_ends_a_pause
    repeated_interruptions_wait_longer_and_longer
    an_interrupted_failure_edge_is_asked_again
    stop_leaves_runs_resumable
    a_stopped_runtime_starts_nothing
    many_runs_end_side_by_side
}

fn a_run_goes_from_state_to_state_to_its_end(medium: Medium) {
    let process = Process::start(&medium).with(Job, &World::default());
    let run = process.begin("r", "job", &Work { patient: true, ..Work::default() });
    assert_eq!(process.end(&run).ending, Ending::Completed);
    assert_eq!(process.states("r"), ["work", "patient", "done"]);
    assert_eq!(process.kinds("r"), ["enter", "enter", "enter", "end"]);
    assert_eq!(process.events.count(|event| matches!(event, RunEvent::Ended(_))), 1);
}

fn the_result_is_the_last_states_data(medium: Medium) {
    let process = Process::start(&medium).with(Job, &World::default());
    let run = process.begin("r", "job", &Work::default());
    let end = process.end(&run);
    assert_eq!((end.state.as_str(), end.data.as_text()), ("done", Some(r#"{"attempts":1}"#)));
    assert_eq!(process.inspect("r").data, end.data);
}

fn starting_an_id_twice_is_one_run(medium: Medium) {
    let world = World::default();
    let process = Process::start(&medium).with(Job, &world);
    let first = process.begin("r", "job", &Work::default());
    let second = process.begin("r", "job", &Work { patient: true, ..Work::default() });
    assert_eq!(process.end(&first), process.end(&second));
    let third = process.begin("r", "job", &Work::default());
    assert_eq!(process.end(&first), process.end(&third));
    assert_eq!(world.log(), ["work 1"]);
}

fn starts_of_one_id_at_the_same_time_are_one_run(medium: Medium) {
    let world = World::default();
    let process = Process::start(&medium).with(Job, &world);
    let start = || async {
        let input = Data::encode(&Work::default()).unwrap();
        process.runtime.start(id("r"), "job", input).await.unwrap().end().await.unwrap()
    };
    let ends = process.block_on(futures::future::join_all((0..8).map(|_| start())));
    assert!(ends.iter().all(|end| *end == ends[0]));
    assert_eq!(world.log(), ["work 1"]);
}

fn resuming_a_run_that_has_ended_answers_its_end(medium: Medium) {
    let process = Process::start(&medium).with(Job, &World::default());
    let end = process.end(&process.begin("r", "job", &Work::default()));
    process.die();
    let process = Process::start(&medium);
    assert_eq!(process.end(&process.attach("r").unwrap()), end);
    assert_eq!(process.end(&process.cancel("r")), end, "a cancel comes too late");
}

fn an_unknown_run_and_an_unknown_machine_are_typed_errors(medium: Medium) {
    let process = Process::start(&medium);
    assert_eq!(process.attach("r").unwrap_err().kind(), RuntimeErrorKind::UnknownRun);
    let started = process.block_on(process.runtime.start(id("r"), "job", Data::default()));
    assert_eq!(started.unwrap_err().kind(), RuntimeErrorKind::UnknownMachine);
    assert!(process.history("r").is_empty());
}

fn a_retryable_fault_is_tried_again_after_a_journaled_wait(medium: Medium) {
    let world = World::script([Act::Fault(transient()), Act::Fault(transient())]);
    let process = Process::start(&medium).with(Job, &world);
    let run = process.begin("r", "job", &Work::default());
    for attempt in 1..=2 {
        process.until_asleep();
        let snapshot = process.inspect("r");
        let wake_at = snapshot.wake_at.unwrap();
        assert_eq!(snapshot.attempts, attempt);
        assert_eq!(process.environment.next_wake(), Some(wake_at));
        let wait = wake_at.since(snapshot.at);
        assert!(wait <= Duration::from_secs(10 << (attempt - 1)), "{wait:?}");
        assert!(!wait.is_zero(), "the seed draws no zero here");
        process.environment.advance(wait - Duration::from_millis(1));
        process.block_on(support::process::breathe());
        assert_eq!(world.log().len(), attempt as usize, "not a moment too soon");
        process.environment.advance(Duration::from_millis(1));
        process.until(|| world.log().len() == attempt as usize + 1);
    }
    assert_eq!(process.end(&run).data.as_text(), Some(r#"{"attempts":3}"#));
    assert_eq!(process.kinds("r"), ["enter", "attempt", "attempt", "enter", "end"]);
}

fn a_fault_may_ask_for_a_longer_wait(medium: Medium) {
    let fault = transient().retry_after(Duration::from_secs(3_600));
    let process = Process::start(&medium).with(Job, &World::script([Act::Fault(fault)]));
    process.begin("r", "job", &Work::default());
    process.until_asleep();
    let snapshot = process.inspect("r");
    assert_eq!(snapshot.wake_at.unwrap().since(snapshot.at), Duration::from_secs(3_600));
}

fn attempts_survive_a_restart(medium: Medium) {
    let world = World::script((0..3).map(|_| Act::Fault(transient())));
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work::default());
    process.until_asleep();
    let wake_at = process.inspect("r").wake_at;
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(Job, &world);
    let run = process.attach("r").unwrap();
    process.until_asleep();
    assert_eq!(process.environment.next_wake(), wake_at, "the wait is the journaled one");
    let end = process.end_in_time(&run);
    assert_eq!(end.ending, Ending::Failed);
    assert_eq!(world.log(), ["work 1", "work 2", "work 3"]);
}

fn a_clock_set_back_does_not_prolong_a_retry(medium: Medium) {
    let world = World::script([Act::Fault(transient())]);
    let process = Process::start(&medium).with(Job, &world);
    let run = process.begin("r", "job", &Work::default());
    process.until_asleep();
    process.environment.set_back(Duration::from_secs(3_600));
    assert_eq!(process.end(&run).ending, Ending::Completed);
    assert_eq!(world.log(), ["work 1", "work 2"]);
}

fn an_attempt_that_takes_too_long_is_dropped_and_retried(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::start(&medium).with(Job, &world);
    let run = process.begin("r", "job", &Work::default());
    process.until(|| world.said("work 1") == 1);
    process.until_asleep();
    process.environment.advance(Duration::from_secs(599));
    process.block_on(support::process::breathe());
    assert_eq!(world.said("dropped"), 0);
    process.environment.advance(Duration::from_secs(1));
    process.until(|| world.said("dropped") == 1);
    assert_eq!(process.end_in_time(&run).data.as_text(), Some(r#"{"attempts":2}"#));
    let history = process.history("r");
    let Body::Attempt { fault, .. } = &history[1].body else { panic!("{history:?}") };
    assert_eq!((fault.code(), fault.class()), ("attempt.timeout", Class::Retryable));
}

fn exhausted_attempts_take_the_edge(medium: Medium) {
    let world = World::script((0..3).map(|_| Act::Fault(transient())));
    let process = Process::start(&medium).with(Job, &world);
    let run = process.begin("r", "job", &Work { undo_when_exhausted: true, ..Work::default() });
    let end = process.end_in_time(&run);
    assert_eq!(end.data.as_text(), Some(r#"{"code":"test.transient"}"#));
    assert_eq!(process.states("r"), ["work", "undo", "failed"]);
}

fn exhausted_attempts_without_an_edge_fail_the_run(medium: Medium) {
    let world = World::script((0..3).map(|_| Act::Fault(transient())));
    let process = Process::start(&medium).with(Job, &world);
    let run = process.begin("r", "job", &Work::default());
    let end = process.end_in_time(&run);
    assert_eq!((end.ending, end.state.as_str()), (Ending::Failed, "work"));
    assert_eq!(end.fault, Some(transient()));
    assert_eq!(process.inspect("r").status, Status::Ended(Ending::Failed, Some(transient())));
}

fn a_permanent_fault_takes_the_edge_at_once(medium: Medium) {
    let world = World::script([Act::Fault(Fault::permanent("test.gone", "it is gone"))]);
    let process = Process::start(&medium).with(Job, &world);
    let run = process.begin("r", "job", &Work { undo_when_exhausted: true, ..Work::default() });
    assert_eq!(process.end(&run).data.as_text(), Some(r#"{"code":"test.gone"}"#));
    assert_eq!(world.log(), ["work 1", "undo"]);
}

fn a_panic_is_a_fault_of_its_run_alone(medium: Medium) {
    let world = World::script([Act::Panic]);
    let process = Process::start(&medium).with(Job, &world);
    let unlucky = process.begin("unlucky", "job", &Work::default());
    let end = process.end(&unlucky);
    let fault = end.fault.unwrap();
    assert_eq!((fault.class(), fault.code()), (Class::Bug, "step.panicked"));
    assert!(fault.message().contains("as the script says"), "{fault}");
    let other = process.begin("other", "job", &Work::default());
    assert_eq!(process.end(&other).ending, Ending::Completed);
}

fn a_run_without_attempts_left_pauses_until_an_operator_lets_it_go_on(medium: Medium) {
    let world = World::script([
        Act::Wait(0),
        Act::Fault(transient()),
        Act::Fault(transient()),
        Act::Fault(transient()),
    ]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work { patient: true, ..Work::default() });
    process.until_asleep();
    process.environment.advance(Duration::from_secs(1));
    process.until(|| process.events.count(|event| matches!(event, RunEvent::Paused(_))) == 1);
    assert_eq!(process.inspect("r").status, Status::Paused(transient()));
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(Job, &world);
    assert!(process.block_on(process.runtime.recover()).unwrap().quarantined.is_empty());
    process.block_on(support::process::breathe());
    assert_eq!(world.log(), ["work 1", "patient 1", "patient 2"], "a restart ends no pause");
    let run = process.block_on(process.runtime.resume(&id("r"))).unwrap();
    assert_eq!(process.end_in_time(&run).ending, Ending::Completed);
    assert_eq!(world.log()[3..], ["patient 1", "patient 2"], "with all its attempts");
    assert_eq!(process.states("r"), ["work", "patient", "done"]);
}

fn a_cancel_ends_a_pause(medium: Medium) {
    let world = World::script([Act::Wait(0), Act::Fault(transient()), Act::Fault(transient())]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work { patient: true, ..Work::default() });
    process.until_asleep();
    process.environment.advance(Duration::from_secs(1));
    process.until(|| process.events.count(|event| matches!(event, RunEvent::Paused(_))) == 1);
    let run = process.cancel("r");
    assert_eq!(process.end(&run).ending, Ending::Cancelled);
}

fn repeated_interruptions_wait_longer_and_longer(medium: Medium) {
    let died = || Act::Fault(Fault::interrupted("the child died"));
    let world = World::script((0..9).map(|_| died()));
    let process = Process::start(&medium).with(Job, &world);
    let run = process.begin("r", "job", &Work::default());
    let mut waits = Vec::new();
    for interruption in 1..=9 {
        process.until(|| world.said("work 1") == interruption);
        // An attempt that runs sleeps too, until its time limit.
        process.until(|| {
            let now = fsm_core::Environment::now(&process.environment);
            let wait = process.environment.next_wake().map(|at| at.since(now));
            wait.is_some_and(|wait| wait <= Duration::from_secs(60))
        });
        let now = fsm_core::Environment::now(&process.environment);
        let wait = process.environment.next_wake().unwrap().since(now);
        waits.push(wait.as_secs());
        process.environment.advance(wait);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(process.end(&run).data.as_text(), Some(r#"{"attempts":1}"#), "no attempt is used");
}

fn an_interrupted_failure_edge_is_asked_again(medium: Medium) {
    let machine = support::lying::Lying::new("work", |call, before| {
        use fsm_core::StepKind::{Exhausted, Run};
        match (&call.kind, call.state.as_str()) {
            (Run, "work") => Fault::permanent("test.gone", "it is gone").into(),
            (Exhausted(_), "work") if before == 0 => Fault::interrupted("died").into(),
            (Exhausted(_), "work") => support::lying::to("done"),
            _ => unreachable!("{call:?}"),
        }
    });
    let process = Process::start(&medium);
    process.runtime.register(machine, "tests 1").unwrap();
    let run = process.begin("r", "lying", &());
    assert_eq!(process.end_in_time(&run).ending, Ending::Completed);
    assert_eq!(process.states("r"), ["work", "done"]);
}

fn stop_leaves_runs_resumable(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::start(&medium).with(Job, &world);
    let running = process.begin("running", "job", &Work::default());
    process.until(|| world.said("work 1") == 1);
    let rest = Work { rest_secs: Some(60), ..Work::default() };
    let waiting = process.begin("waiting", "job", &rest);
    process.until(|| process.events.count(|e| matches!(e, RunEvent::Entered { .. })) == 1);
    process.block_on(process.runtime.stop());
    for handle in [running, waiting] {
        let error = process.block_on(handle.end()).unwrap_err();
        assert_eq!(error.kind(), RuntimeErrorKind::Stopped);
    }
    assert_eq!(world.said("dropped"), 1);
    assert_eq!(process.kinds("running"), ["enter"], "a stop leaves no trace");
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(Job, &world);
    assert!(process.block_on(process.runtime.recover()).unwrap().quarantined.is_empty());
    for run in ["running", "waiting"] {
        let handle = process.attach(run).unwrap();
        assert_eq!(process.end_in_time(&handle).ending, Ending::Completed);
    }
}

fn a_stopped_runtime_starts_nothing(medium: Medium) {
    let world = World::default();
    let process = Process::start(&medium).with(Job, &world);
    process.block_on(process.runtime.stop());
    let input = Data::encode(&Work::default()).unwrap();
    let started = process.block_on(process.runtime.start(id("r"), "job", input));
    assert_eq!(started.unwrap_err().kind(), RuntimeErrorKind::Stopped);
    assert!(world.log().is_empty());
    assert!(process.history("r").is_empty());
}

fn many_runs_end_side_by_side(medium: Medium) {
    let world = World::default();
    let process = Process::start(&medium).with(Job, &world);
    let input = Data::encode(&Work { effects: true, ..Work::default() }).unwrap();
    let runs = (0..100).map(|n| {
        let (runtime, input) = (process.runtime.clone(), input.clone());
        async move {
            let run = runtime.start(id(&format!("r{n}")), "job", input).await.unwrap();
            run.end().await.unwrap().ending
        }
    });
    let endings = process.block_on(futures::future::join_all(runs));
    assert!(endings.iter().all(|ending| *ending == Ending::Completed));
}
