//! When things happen: appointments, waits between attempts, limits and deadlines, on a clock that
//! stands still, runs on without the process, or is set back.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::time::Duration;

use fsm_core::{
    Body, Class, Context, Data, Ending, Environment, Fault, Machine, Retry, RunEvent, RunHandle,
    State, Step, check, go,
};
use serde::{Deserialize, Serialize};

use self::support::{
    desk::Prepare,
    id,
    medium::Medium,
    process::Process,
    world::{Act, Work, World, transient},
};

on_each_journal! {
    an_appointment_is_kept_to_the_millisecond
    an_appointment_missed_by_a_dead_process_is_kept_once
    a_clock_set_back_does_not_keep_an_appointment_early
    a_clock_set_back_behind_a_sleeping_clock_does_not_prolong_a_retry
    a_signal_after_the_clock_was_set_back_does_not_prolong_a_retry
    a_clock_set_back_in_an_attempt_does_not_time_it_out
    all_attempts_are_counted_over_restarts
    the_time_of_the_next_attempt_is_kept_over_a_restart
    a_wait_is_drawn_from_chance_and_bounded
    all_attempts_together_take_no_longer_than_their_limit
    no_attempt_begins_after_a_limit_that_passed_while_the_process_was_dead
    a_first_attempt_has_its_time_however_late_it_begins
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

fn full(medium: &Medium, world: &World) -> Process {
    Process::full(medium, world).with(Punctual, world)
}

fn again(medium: &Medium, process: Process, world: &World) -> Process {
    let process = Process::full_at(medium, process.die(), world).with(Punctual, world);
    process.block_on(process.runtime.recover()).unwrap();
    process
}

fn resting(process: &Process, run: &str, secs: u64) {
    process.begin(run, "job", &Work { rest_secs: Some(secs), ..Work::default() });
    process.until_in(run, "rest");
}

fn an_appointment_is_kept_to_the_millisecond(medium: Medium) {
    let world = World::default();
    let process = full(&medium, &world);
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
    let process = full(&medium, &world);
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
    let process = full(&medium, &world);
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

fn a_clock_set_back_behind_a_sleeping_clock_does_not_prolong_a_retry(medium: Medium) {
    let world = World::script([Act::Wait(0)]);
    let process = full(&medium, &world);
    // The clock goes to sleep for long, and is not woken by the run that waits for longer.
    resting(&process, "long", 20_000);
    process.until_asleep();
    process.environment.advance(HOUR * 5);
    world.add([Act::Fault(transient().retry_after(HOUR))]);
    let run = process.begin("r", "job", &Work::default());
    process.until(|| process.kinds("r").contains(&"attempt"));
    process.rest();
    process.environment.advance(MINUTE);
    process.environment.set_back(HOUR);
    assert_eq!(process.end(&run).ending, Ending::Completed, "at once, and not two hours later");
}

fn a_signal_after_the_clock_was_set_back_does_not_prolong_a_retry(medium: Medium) {
    let world = World::script([Act::Fault(transient().retry_after(MINUTE))]);
    let process = full(&medium, &world);
    let run = process.begin("r", "job", &Work::default());
    process.until(|| process.kinds("r").contains(&"attempt"));
    process.until_asleep();
    let environment = process.die();
    environment.set_back(HOUR);

    let process = Process::full_at(&medium, environment, &world);
    process.order("r", 1);
    assert_eq!(process.end(&process.attach("r").unwrap()).ending, Ending::Completed);
    drop(run);
}

fn a_clock_set_back_in_an_attempt_does_not_time_it_out(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = full(&medium, &world);
    process.begin("r", "job", &Work::default());
    process.until(|| world.said("work 1") == 1);
    process.until_asleep();
    process.environment.advance(Duration::from_secs(300));
    process.environment.set_back(HOUR);
    process.rest();
    process.environment.advance(Duration::from_secs(599));
    process.rest();
    assert_eq!(world.said("dropped"), 0);
    process.environment.advance(Duration::from_secs(1));
    process.until(|| world.said("dropped") == 1);
}

fn attempts(process: &Process, run: &str) -> Vec<(u32, Duration)> {
    let wait = |record: fsm_core::Record| match record.body {
        Body::Attempt { attempt, next_at, .. } => Some((attempt, next_at.since(record.at))),
        _ => None,
    };
    process.history(run).into_iter().filter_map(wait).collect()
}

fn all_attempts_are_counted_over_restarts(medium: Medium) {
    let world = World::script((0..9).map(|_| Act::Fault(transient())));
    let mut process = full(&medium, &world);
    process.begin("s", "punctual", &Punctuality::Patient);
    for attempt in 1..5 {
        process.until(|| attempts(&process, "s").len() == attempt);
        process = again(&medium, process, &world);
        process.environment.advance(HOUR);
    }
    let end = process.end(&process.attach("s").unwrap());
    assert_eq!((end.ending, end.fault.unwrap().code()), (Ending::Failed, "test.transient"));
    let made: Vec<_> = attempts(&process, "s").into_iter().map(|(attempt, _)| attempt).collect();
    assert_eq!(made, [1, 2, 3, 4], "the fifth is the last");
    assert_eq!(world.said("patient 5"), 1);
}

fn the_time_of_the_next_attempt_is_kept_over_a_restart(medium: Medium) {
    let world = World::script([Act::Fault(transient().retry_after(HOUR))]);
    let process = full(&medium, &world);
    process.begin("r", "job", &Work::default());
    process.until(|| process.kinds("r").contains(&"attempt"));
    let wake_at = process.inspect("r").wake_at.unwrap();
    assert!(wake_at.since(process.environment.now()) >= HOUR, "what the fault asks for counts");
    process.environment.advance(MINUTE);
    let process = again(&medium, process, &world);
    process.rest();
    assert_eq!(world.said("work 2"), 0);
    process.environment.advance(HOUR - MINUTE);
    process.ended("r");
    assert_eq!(world.said("work 2"), 1);
}

fn a_wait_is_drawn_from_chance_and_bounded(medium: Medium) {
    let drawn = |medium: &Medium, run: &str, seed: u64| {
        let world = World::script((0..4).map(|_| Act::Fault(transient())));
        let environment = fsm_core::testing::ManualEnvironment::seeded(seed);
        let process = Process::start_at(medium, environment).with(Punctual, &world);
        process.end_in_time(&process.begin(run, "punctual", &Punctuality::Patient));
        let drawn = attempts(&process, run);
        process.die();
        drawn
    };
    let (first, same) = (drawn(&medium, "a", 1), drawn(&medium, "b", 1));
    assert_eq!(first, same, "the same seed draws the same waits");
    assert_ne!(first, drawn(&medium, "c", 2));
    for (attempt, wait) in first {
        assert!(wait <= Duration::from_secs(10 << (attempt - 1)), "{attempt}: {wait:?}");
    }
}

fn all_attempts_together_take_no_longer_than_their_limit(medium: Medium) {
    let faults = || Act::Fault(transient().retry_after(Duration::from_secs(50)));
    let world = World::script([faults(), Act::Hang]);
    let process = full(&medium, &world);
    let run = process.begin("r", "punctual", &Punctuality::Hasty);
    let began = process.environment.now();
    let end = process.end_in_time(&run);
    assert_eq!(end.fault.as_ref().map(Fault::code), Some("state.timeout"));
    assert_eq!(process.environment.now().since(began), MINUTE);
    assert_eq!(world.said("dropped"), 1);
}

fn no_attempt_begins_after_a_limit_that_passed_while_the_process_was_dead(medium: Medium) {
    let world = World::script([Act::Fault(transient().retry_after(Duration::from_secs(30)))]);
    let process = full(&medium, &world);
    process.begin("r", "punctual", &Punctuality::Hasty);
    process.until(|| process.kinds("r").contains(&"attempt"));
    let environment = process.die();
    environment.advance(MINUTE);

    let process = Process::start_at(&medium, environment).with(Punctual, &world);
    let end = process.end(&process.attach("r").unwrap());
    assert_eq!(end.fault.as_ref().map(Fault::code), Some("state.timeout"));
    assert_eq!(world.log(), ["hasty 1"]);
}

fn a_first_attempt_has_its_time_however_late_it_begins(medium: Medium) {
    let world = World::script([Act::Hang, Act::Hang]);
    let process = full(&medium, &world);
    process.begin("r", "punctual", &Punctuality::Hasty);
    process.until(|| world.said("hasty 1") == 1);
    process.environment.advance(Duration::from_secs(59));
    let environment = process.die();
    environment.advance(HOUR);

    let process = Process::start_at(&medium, environment).with(Punctual, &world);
    process.attach("r").unwrap();
    process.until(|| world.said("hasty 1") == 2);
    process.until_asleep();
    process.environment.advance(MINUTE - Duration::from_millis(1));
    process.rest();
    assert!(!process.has_ended("r"));
    process.environment.advance(Duration::from_millis(1));
    let end = process.end(&process.attach("r").unwrap());
    assert_eq!(end.fault.as_ref().map(Fault::code), Some("state.timeout"), "and no longer");
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
    let process = full(&medium, &world);
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
    let process = full(&medium, &World::default());
    let run = begin_by(&process, "desk", &Prepare::Serve { orders: 1 });
    process.until_in("r", "await");
    process.until_asleep();
    process.environment.advance(MINUTE);
    let end = process.end(&run);
    assert_eq!((end.state.as_str(), end.fault), ("await", Some(missed())));
}

fn a_deadline_ends_a_pause(medium: Medium) {
    let world = World::script([Act::Wait(20)]);
    let process = full(&medium, &world);
    let run = begin_by(&process, "desk", &Prepare::Serve { orders: 1 });
    process.block_on(process.runtime.pause(&id("r"), "a test asks")).unwrap();
    process.until_asleep();
    process.environment.advance(MINUTE);
    assert_eq!(process.end(&run).fault, Some(missed()));
}

fn a_deadline_waits_for_a_state_that_defers(medium: Medium) {
    let gone = Fault::permanent("test.gone", "it is gone");
    let world = World::script([Act::Fault(gone), Act::Hang]);
    let process = full(&medium, &world);
    let run = begin_by(&process, "job", &Work { undo_when_exhausted: true, ..Work::default() });
    process.until(|| world.said("undo") == 1);
    process.until_asleep();
    process.environment.advance(MINUTE);
    process.until(|| process.kinds("r").contains(&"deadline"));
    process.environment.advance(HOUR);
    process.rest();
    assert_eq!((world.said("dropped"), times(&process, "deadline")), (0, 1));
    drop(run);

    let process = again(&medium, process, &world);
    assert_eq!(process.end(&process.attach("r").unwrap()).ending, Ending::Failed);
    assert_eq!(process.states("r"), ["work", "undo", "failed"]);
}

fn a_deadline_that_passed_while_the_process_was_dead_is_met_at_once(medium: Medium) {
    let world = World::default();
    let process = full(&medium, &world);
    begin_by(&process, "desk", &Prepare::Serve { orders: 1 });
    process.until_in("r", "await");
    let environment = process.die();
    environment.advance(HOUR);
    let process = Process::again(&medium, environment, &world);
    assert_eq!(process.end(&process.attach("r").unwrap()).fault, Some(missed()));
}

fn a_deadline_is_met_once_over_restarts(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = full(&medium, &world);
    begin_by(&process, "job", &Work { undo_when_cancelled: true, ..Work::default() });
    process.until(|| world.said("work 1") == 1);
    process.until_asleep();
    process.environment.advance(MINUTE);
    process.until(|| process.kinds("r").contains(&"deadline"));
    let process = again(&medium, process, &world);
    process.environment.advance(HOUR);
    process.end(&process.attach("r").unwrap());
    assert_eq!(process.states("r"), ["work", "undo", "failed"]);
    assert_eq!((times(&process, "deadline"), times(&process, "cancel")), (1, 0));
}

fn a_run_that_ends_in_time_hears_nothing_of_its_deadline(medium: Medium) {
    let process = full(&medium, &World::default());
    assert_eq!(process.end(&begin_by(&process, "job", &Work::default())).ending, Ending::Completed);
    process.environment.advance(HOUR);
    process.rest();
    assert_eq!(times(&process, "deadline"), 0);
    assert_eq!(process.environment.next_wake(), None);
}

fn a_step_sees_its_deadline(medium: Medium) {
    let world = World::default();
    let process = full(&medium, &world);
    let deadline = process.environment.now() + MINUTE;
    process.end(&begin_by(&process, "punctual", &Punctuality::Tells));
    assert_eq!(world.log(), [format!("{deadline}")]);
}

/// A machine that is tried often, or not for long.
struct Punctual;

impl Machine for Punctual {
    const NAME: &'static str = "punctual";
    type Host = World;
    type Initial = Punctuality;
    type States = (Punctuality, Patient, Hasty, There);
}
check!(Punctual);

#[derive(Serialize, Deserialize)]
enum Punctuality {
    Patient,
    Hasty,
    Tells,
}

impl State<Punctual> for Punctuality {
    const NAME: &'static str = "punctuality";
    type Next = (Patient, Hasty, There);

    async fn run(self, _: &Punctual, cx: &mut Context<'_, Punctual>) -> Step<Self> {
        match self {
            Punctuality::Patient => go(Patient),
            Punctuality::Hasty => go(Hasty),
            Punctuality::Tells => {
                cx.host().say(cx.deadline().map_or_else(String::new, |at| at.to_string()));
                go(There)
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Patient;

impl State<Punctual> for Patient {
    const NAME: &'static str = "patient";
    const RETRY: Retry = Retry::times(5).backoff(Duration::from_secs(10), 2.0);
    type Next = (There,);

    async fn run(self, _: &Punctual, cx: &mut Context<'_, Punctual>) -> Step<Self> {
        cx.host().say(format!("patient {}", cx.attempt()));
        cx.host().act(cx).await?;
        go(There)
    }
}

#[derive(Serialize, Deserialize)]
struct Hasty;

impl State<Punctual> for Hasty {
    const NAME: &'static str = "hasty";
    const RETRY: Retry = Retry::times(5).backoff(Duration::from_secs(1), 1.0).total_timeout(MINUTE);
    type Next = (There,);

    async fn run(self, _: &Punctual, cx: &mut Context<'_, Punctual>) -> Step<Self> {
        cx.host().say(format!("hasty {}", cx.attempt()));
        cx.host().act(cx).await?;
        go(There)
    }
}

#[derive(Serialize, Deserialize)]
struct There;

impl State<Punctual> for There {
    const NAME: &'static str = "there";
    type Next = ();
}
