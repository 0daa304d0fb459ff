//! How often, how soon and how long a state is tried: over restarts, and by a clock that is set
//! back.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::time::Duration;

use fsm_core::{Body, Ending, Environment, Fault};

use self::support::{
    medium::Medium,
    process::Process,
    punctual::{Punctual, Punctuality},
    world::{Act, Work, World, transient},
};

on_each_journal! {
    a_clock_set_back_behind_a_sleeping_clock_does_not_prolong_a_retry
    a_signal_after_the_clock_was_set_back_does_not_prolong_a_retry
    a_clock_set_back_in_an_attempt_does_not_time_it_out
    all_attempts_are_counted_over_restarts
    the_time_of_the_next_attempt_is_kept_over_a_restart
    a_wait_is_drawn_from_chance_and_bounded
    all_attempts_together_take_no_longer_than_their_limit
    no_attempt_begins_after_a_limit_that_passed_while_the_process_was_dead
    a_first_attempt_has_its_time_however_late_it_begins
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn a_clock_set_back_behind_a_sleeping_clock_does_not_prolong_a_retry(medium: Medium) {
    let world = World::script([Act::Wait(0)]);
    let process = Process::punctual(&medium, &world);
    // The clock goes to sleep for long, and is not woken by the run that waits for longer.
    let rests = Work { rest_secs: Some(20_000), ..Work::default() };
    process.begin("long", "job", &rests);
    process.until_in("long", "rest");
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
    let process = Process::punctual(&medium, &world);
    let run = process.begin("r", "job", &Work::default());
    process.until(|| process.kinds("r").contains(&"attempt"));
    process.until_asleep();
    let environment = process.die();
    drop(run);
    environment.set_back(HOUR);

    let process = Process::full_at(&medium, environment, &world);
    process.order("r", 1);
    assert_eq!(process.end(&process.attach("r").unwrap()).ending, Ending::Completed);
}

fn a_clock_set_back_in_an_attempt_does_not_time_it_out(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::punctual(&medium, &world);
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
    let mut process = Process::punctual(&medium, &world);
    process.begin("s", "punctual", &Punctuality::Patient);
    for attempt in 1..5 {
        process.until(|| attempts(&process, "s").len() == attempt);
        process = process.restarted(&medium, &world);
        process.environment.advance(HOUR);
    }
    let end = process.end_in_time(&process.attach("s").unwrap());
    assert_eq!((end.ending, end.fault.unwrap().code()), (Ending::Failed, "test.transient"));
    let made: Vec<_> = attempts(&process, "s").into_iter().map(|(attempt, _)| attempt).collect();
    assert_eq!(made, [1, 2, 3, 4], "the fifth is the last");
    assert_eq!(world.said("patient 5"), 1);
}

fn the_time_of_the_next_attempt_is_kept_over_a_restart(medium: Medium) {
    let world = World::script([Act::Fault(transient().retry_after(HOUR))]);
    let process = Process::punctual(&medium, &world);
    process.begin("r", "job", &Work::default());
    process.until(|| process.kinds("r").contains(&"attempt"));
    let wake_at = process.inspect("r").wake_at.unwrap();
    assert!(wake_at.since(process.environment.now()) >= HOUR, "what the fault asks for counts");
    process.environment.advance(MINUTE);
    let process = process.restarted(&medium, &world);
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
    let process = Process::punctual(&medium, &world);
    let run = process.begin("r", "punctual", &Punctuality::Hasty);
    let began = process.environment.now();
    let end = process.end_in_time(&run);
    assert_eq!(end.fault.as_ref().map(Fault::code), Some("state.timeout"));
    assert_eq!(process.environment.now().since(began), MINUTE);
    assert_eq!(world.said("dropped"), 1);
}

fn no_attempt_begins_after_a_limit_that_passed_while_the_process_was_dead(medium: Medium) {
    let world = World::script([Act::Fault(transient().retry_after(Duration::from_secs(30)))]);
    let process = Process::punctual(&medium, &world);
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
    let process = Process::punctual(&medium, &world);
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
