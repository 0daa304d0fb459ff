//! What a run is after the death of its process.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::time::Duration;

use fsm_core::{
    Context, Data, Ending, Fault, Machine, RunEvent, RuntimeErrorKind, State, Step, check, go,
};
use serde::{Deserialize, Serialize};

use self::support::{
    id, lying,
    medium::Medium,
    process::{Process, breathe},
    world::{Act, Job, Work, World, transient},
};

on_each_journal! {
    a_parked_run_fires_once_after_a_restart
    a_time_that_passed_meanwhile_fires_at_once
    a_crash_in_a_step_takes_the_edge_for_it
    a_crash_in_a_step_without_that_edge_runs_it_again
    a_clean_wait_is_no_interruption
    effects_keep_their_keys_and_intents_say_maybe
    recorded_results_are_not_run_again
    a_missing_machine_quarantines_its_runs_alone
    an_unknown_state_quarantines_its_run_alone
    a_newer_machine_migrates_a_failed_run_that_goes_on
    a_run_that_a_migration_ends_ends_with_what_it_was_translated_to
    a_newer_machine_migrates_its_runs
    a_panic_in_a_migration_quarantines_its_run_alone
    a_task_that_is_dropped_frees_its_run
    an_undeclared_successor_is_a_fault
    asking_for_more_than_an_interruption_allows_is_a_fault
}

fn a_parked_run_fires_once_after_a_restart(medium: Medium) {
    let world = World::default();
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work { rest_secs: Some(60), ..Work::default() });
    process.until(|| process.states("r").len() == 2);
    let wake_at = process.inspect("r").wake_at;
    let environment = process.die();
    environment.advance(Duration::from_secs(30));

    let process = Process::start_at(&medium, environment).with(Job, &world);
    let run = process.attach("r").unwrap();
    process.until_asleep();
    assert_eq!(process.environment.next_wake(), wake_at, "not 60 s from the restart on");
    process.block_on(breathe());
    assert_eq!(world.said("rested"), 0);
    process.environment.advance(Duration::from_secs(30));
    assert_eq!(process.end(&run).ending, Ending::Completed);
    assert_eq!((world.said("rested"), world.said("look")), (1, 0));
}

fn a_time_that_passed_meanwhile_fires_at_once(medium: Medium) {
    let world = World::default();
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work { rest_secs: Some(60), ..Work::default() });
    process.until(|| process.states("r").len() == 2);
    let environment = process.die();
    environment.advance(Duration::from_secs(3_600));

    let process = Process::start_at(&medium, environment).with(Job, &world);
    process.end(&process.attach("r").unwrap());
    // Nobody knows whether the process lived until then, so the state counts as interrupted.
    assert_eq!(process.states("r"), ["work", "rest", "look", "done"]);
}

fn a_crash_in_a_step_takes_the_edge_for_it(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work { look_when_interrupted: true, ..Work::default() });
    process.until(|| world.said("work 1") == 1);
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(Job, &world);
    process.end(&process.attach("r").unwrap());
    assert_eq!(process.states("r"), ["work", "look", "done"]);
}

fn a_crash_in_a_step_without_that_edge_runs_it_again(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work::default());
    process.until(|| world.said("work 1") == 1);
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(Job, &world);
    process.end(&process.attach("r").unwrap());
    assert_eq!(world.log(), ["work 1", "dropped", "work 1"], "no attempt is used");
}

fn a_clean_wait_is_no_interruption(medium: Medium) {
    let world = World::script([Act::Fault(transient().retry_after(Duration::from_secs(60)))]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work { look_when_interrupted: true, ..Work::default() });
    process.until(|| process.kinds("r").contains(&"attempt"));
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(Job, &world);
    process.end_in_time(&process.attach("r").unwrap());
    assert_eq!(world.log(), ["work 1", "work 2"]);
}

fn effects_keep_their_keys_and_intents_say_maybe(medium: Medium) {
    let world = World::script([Act::Hang, Act::Fault(transient()), Act::Wait(0)]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work { effects: true, ..Work::default() });
    process.until(|| world.said("r/1/careful") == 1);
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(Job, &world);
    process.end_in_time(&process.attach("r").unwrap());
    assert_eq!(
        world.log(),
        [
            "work 1",
            "r/1/plain",
            "r/1/careful",
            "dropped",
            "work 1",
            "r/1/plain",
            "r/1/careful again?",
            "work 2",
        ]
    );
}

fn recorded_results_are_not_run_again(medium: Medium) {
    let world = World::script([Act::Fault(transient())]);
    let process = Process::start(&medium).with(Job, &world);
    process.begin("r", "job", &Work { effects: true, ..Work::default() });
    process.until(|| process.kinds("r").contains(&"attempt"));
    assert_eq!(process.kinds("r"), ["enter", "intent", "result", "result", "attempt"]);
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(Job, &world);
    process.end_in_time(&process.attach("r").unwrap());
    assert_eq!(world.log(), ["work 1", "r/1/plain", "r/1/careful", "work 2"]);
}

fn a_missing_machine_quarantines_its_runs_alone(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::start(&medium).with(Job, &world).with(Old, &world);
    process.begin("orphan", "evolving", &Begin { count: 1 });
    process.until(|| world.said("begin") == 1);
    process.begin("other", "job", &Work { rest_secs: Some(60), ..Work::default() });
    process.until(|| process.states("other").len() == 2);
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(Job, &world);
    let quarantined = process.block_on(process.runtime.recover()).unwrap().quarantined;
    assert_eq!(quarantined.len(), 1);
    assert_eq!(quarantined[0].0, id("orphan"));
    assert!(quarantined[0].1.contains("evolving"), "{quarantined:?}");
    assert_eq!(process.events.count(|e| matches!(e, RunEvent::Quarantined(_))), 1);
    assert_eq!(process.attach("orphan").unwrap_err().kind(), RuntimeErrorKind::Quarantined);
    let other = process.attach("other").unwrap();
    assert_eq!(process.end_in_time(&other).ending, Ending::Completed);
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(Old, &world);
    assert_eq!(process.end(&process.attach("orphan").unwrap()).ending, Ending::Completed);
}

fn an_unknown_state_quarantines_its_run_alone(medium: Medium) {
    let hang = |_, _| unreachable!("no step runs");
    let process = Process::start(&medium);
    process.runtime.register(lying::Lying::new("work", hang), "tests 1").unwrap();
    process.begin("r", "lying", &());
    let environment = process.die();

    let process = Process::start_at(&medium, environment);
    let mut machine = lying::Lying::new("work", |_, _| lying::to("done"));
    machine.graph =
        lying::graph("start", vec![lying::state("start", &["done"]), lying::state("done", &[])]);
    process.runtime.register(machine, "tests 2").unwrap();
    let quarantined = process.block_on(process.runtime.recover()).unwrap().quarantined;
    assert!(quarantined[0].1.contains("unknown state `work`"), "{quarantined:?}");
    assert_eq!(process.end(&process.begin("other", "lying", &())).ending, Ending::Completed);
}

fn a_newer_machine_migrates_its_runs(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::start(&medium).with(Old, &world);
    process.begin("r", "evolving", &Begin { count: 41 });
    process.until(|| world.said("begin") == 1);
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(New, &world);
    let end = process.end(&process.attach("r").unwrap());
    assert_eq!(end.data.as_text(), Some(r#"{"total":42}"#));
    assert_eq!(process.states("r"), ["begin", "finished"]);
    assert_eq!(process.inspect("r").version, 2);
}

fn a_newer_machine_migrates_a_failed_run_that_goes_on(medium: Medium) {
    let world = World::script([Act::Fault(Fault::permanent("test.failed", "as the script says"))]);
    let process = Process::start(&medium).with(Old, &world);
    let failed = process.begin("r", "evolving", &Begin { count: 41 });
    assert_eq!(process.end(&failed).ending, Ending::Failed);
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(New, &world);
    let run = process.block_on(process.runtime.redrive(&id("r"))).unwrap();
    assert_eq!(process.end(&run).data.as_text(), Some(r#"{"total":42}"#));
}

fn a_run_that_a_migration_ends_ends_with_what_it_was_translated_to(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::start(&medium).with(Old, &world);
    process.begin("r", "evolving", &Begin { count: 0 });
    process.until(|| world.said("begin") == 1);
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(New, &world);
    let end = process.end(&process.attach("r").unwrap());
    assert_eq!((end.state.as_str(), end.data.as_text()), ("finished", Some(r#"{"total":0}"#)));
    assert_eq!(process.inspect("r").end(), Some(end));
}

fn a_panic_in_a_migration_quarantines_its_run_alone(medium: Medium) {
    let world = World::script([Act::Hang, Act::Hang]);
    let process = Process::start(&medium).with(Old, &world);
    process.begin("bad", "evolving", &Begin { count: 13 });
    process.begin("good", "evolving", &Begin { count: 1 });
    process.until(|| world.said("begin") == 2);
    let environment = process.die();

    let process = Process::start_at(&medium, environment).with(New, &world);
    let quarantined = process.block_on(process.runtime.recover()).unwrap().quarantined;
    assert_eq!(quarantined.len(), 1, "{quarantined:?}");
    assert!(quarantined[0].1.contains("bad luck"), "{quarantined:?}");
    assert_eq!(process.end(&process.attach("good").unwrap()).ending, Ending::Completed);
}

fn a_task_that_is_dropped_frees_its_run(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::start(&medium).with(Job, &world);
    let dropped = process.begin("r", "job", &Work::default());
    process.until(|| world.said("work 1") == 1);
    process.environment.drop_tasks();
    let error = process.block_on(dropped.end()).unwrap_err();
    assert_eq!(error.kind(), RuntimeErrorKind::Stopped);
    assert_eq!(process.end(&process.attach("r").unwrap()).ending, Ending::Completed);

    let unpolled = process.begin("s", "job", &Work::default());
    process.environment.drop_tasks();
    assert!(process.block_on(unpolled.end()).is_err());
    assert_eq!(process.end(&process.attach("s").unwrap()).ending, Ending::Completed);
}

fn an_undeclared_successor_is_a_fault(medium: Medium) {
    let machine = lying::Lying::new("work", |call, _| match call.state.as_str() {
        // It comes here twice only if it may take the way that it does not declare.
        "work" if call.kind == fsm_core::StepKind::Run && call.entry == 1 => lying::to("other"),
        "other" if call.kind == fsm_core::StepKind::Run => lying::to("work"),
        _ => Fault::bug("test.seen", format!("{:?}", call.kind)).into(),
    });
    let process = Process::start(&medium);
    process.runtime.register(machine, "tests 1").unwrap();
    let end = process.end(&process.begin("r", "lying", &()));
    assert_eq!((end.ending, end.state.as_str()), (Ending::Failed, "other"));
    let fault = end.fault.unwrap();
    assert!(fault.message().contains("state.undeclared"), "the edge is told: {fault}");
    assert!(fault.message().contains("`other` does not declare the successor `work`"), "{fault}");
}

fn asking_for_more_than_an_interruption_allows_is_a_fault(medium: Medium) {
    let again = || fsm_core::Outcome::from(fsm_core::Verdict::Again);
    let machine = lying::Lying::new("work", move |_, _| again());
    let process = Process::start(&medium);
    process.runtime.register(machine, "tests 1").unwrap();
    let end = process.end(&process.begin("r", "lying", &()));
    assert_eq!(end.fault.unwrap().code(), "state.again");
}

/// Version 1 of a machine.
struct Old;

impl Machine for Old {
    const NAME: &'static str = "evolving";
    type Host = World;
    type Initial = Begin;
    type States = (Begin, Finished);
}
check!(Old);

#[derive(Serialize, Deserialize)]
struct Begin {
    count: u32,
}

impl State<Old> for Begin {
    const NAME: &'static str = "begin";
    type Next = (Finished,);

    async fn run(self, _: &Old, cx: &mut Context<'_, Old>) -> Step<Self> {
        cx.host().say("begin");
        cx.host().act(cx).await?;
        go(Finished { total: self.count })
    }
}

#[derive(Serialize, Deserialize)]
struct Finished {
    total: u32,
}

impl State<Old> for Finished {
    const NAME: &'static str = "finished";
    type Next = ();
}

/// Version 2, which has renamed the first state and its data.
struct New;

impl Machine for New {
    const NAME: &'static str = "evolving";
    const VERSION: u32 = 2;
    type Host = World;
    type Initial = Commence;
    type States = (Commence, Finished);

    fn migrate(from: u32, state: &str, data: Data) -> Result<(String, Data), Fault> {
        assert_eq!((from, state), (1, "begin"));
        let Begin { count } = data.decode()?;
        assert_ne!(count, 13, "bad luck");
        if count == 0 {
            return Ok(("finished".to_owned(), Data::encode(&Finished { total: 0 })?));
        }
        Ok(("commence".to_owned(), Data::encode(&Commence { so_far: count })?))
    }
}
check!(New);

#[derive(Serialize, Deserialize)]
struct Commence {
    so_far: u32,
}

impl State<New> for Commence {
    const NAME: &'static str = "commence";
    type Next = (Finished,);

    async fn run(self, _: &New, _: &mut Context<'_, New>) -> Step<Self> {
        go(Finished { total: self.so_far + 1 })
    }
}

impl State<New> for Finished {
    const NAME: &'static str = "finished";
    type Next = ();
}
