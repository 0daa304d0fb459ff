//! What operations wait for: priorities, deadlines, equals, what is kept and what is given back.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::{sync::atomic::Ordering, time::Duration};

use mercury::{
    Class, Engine, ErrorKind, Event, Operation, OperationStatus, Outcome, Phase, Priority,
    Shutdown, WaitsFor,
};
use support::{
    World, ended, has_progressed, ids, in_phase, in_state,
    lab::{self, full, item, log, open},
    operation, soon,
    time::Driven,
    until,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Looks at the operation until it is as it is wanted.
#[track_caller]
fn shows<'a>(
    operation: &'a Operation,
    wanted: impl Fn(&OperationStatus) -> bool + 'a,
) -> impl Future<Output = OperationStatus> + 'a {
    soon(async move {
        loop {
            let status = operation.status().await.unwrap();
            if wanted(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

/// Waits until the operation waits for what others have, and says for what.
#[track_caller]
fn waits(operation: &Operation) -> impl Future<Output = WaitsFor> + '_ {
    let shown = shows(operation, |status| {
        status.waits_for.as_ref().is_some_and(|waits| !waits.what.contains("probes"))
    });
    async move { shown.await.waits_for.unwrap() }
}

fn behind(waits: &WaitsFor) -> Vec<&str> {
    waits.behind.iter().map(mercury::OperationId::as_str).collect()
}

/// Waits until the operation writes its stream.
async fn writes(operation: &Operation) {
    shows(operation, |status| status.phase == Phase::Running && status.waits_for.is_none()).await;
}

async fn found(engine: &Engine, id: &str) -> Operation {
    engine.operation(&operation(id)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_whose_deadline_passes_ends_and_names_whom_it_waited_for() {
    let world = World::new();
    let time = Driven::new();
    let engine = lab::builder(&world).streams(1).environment(time.clone()).start().await.unwrap();
    let first = full(&engine, "plain-a", "first").await;
    writes(&first).await;
    let late = engine.backup(&item("plain-b")).id("late").begin_within(MINUTE);
    let late = late.submit().await.unwrap();
    assert_eq!(behind(&waits(&late).await), ["first"]);
    // Nobody asks the admission for anything meanwhile: the engine wakes it by itself.
    time.advance(MINUTE);
    let error = ended(&late).await.unwrap_err();
    support::check(&error, ErrorKind::Operation, Class::Retryable, "throttle.expired");
    assert!(error.is_retryable());
    assert!(error.to_string().contains("waited for first"), "{error}");
    assert_eq!(late.status().await.unwrap().phase, Phase::Failed);

    open(&world, "all");
    ended(&first).await.unwrap();
    // One that could begin at once, but not in time.
    let past =
        engine.backup(&item("plain-b")).id("past").deadline(mercury::Timestamp::from_unix_ms(1));
    let error = ended(&past.submit().await.unwrap()).await.unwrap_err();
    assert_eq!(error.code(), "throttle.expired");
    assert_eq!(engine.points(&item("plain-b")).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_bounds_the_wait_and_not_the_work() {
    let world = World::new();
    let time = Driven::new();
    let engine = lab::builder(&world).environment(time.clone()).start().await.unwrap();
    let backup = engine.backup(&item("plain")).id("slow").begin_within(MINUTE);
    let backup = backup.submit().await.unwrap();
    writes(&backup).await;
    time.advance(MINUTE * 2);
    // Also if the work is interrupted after the deadline.
    soon(engine.shutdown(Duration::ZERO)).await;
    let engine = lab::builder(&world).environment(time).start().await.unwrap();
    open(&world, "all");
    ended(&found(&engine, "slow").await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_priority_and_a_deadline_hold_over_a_restart() {
    let world = World::new();
    let time = Driven::new();
    let start = || lab::builder(&world).streams(1).environment(time.clone()).start();
    let engine = start().await.unwrap();
    let first = full(&engine, "plain-a", "first").await;
    writes(&first).await;
    let low = engine.backup(&item("plain-b")).id("low").priority(Priority::Low);
    let low = low.begin_within(MINUTE * 10).submit().await.unwrap();
    waits(&low).await;
    soon(engine.shutdown(Duration::ZERO)).await;
    drop((engine, first, low));

    time.advance(MINUTE);
    let engine = start().await.unwrap();
    let low = found(&engine, "low").await;
    assert_eq!(behind(&waits(&low).await), ["first"]);
    let status = low.status().await.unwrap();
    assert_eq!(status.priority, Some(Priority::Low));
    assert_eq!(status.deadline, Some(status.created_at + MINUTE * 10));
    // Asked for later, and first all the same.
    let urgent = engine.backup(&item("plain-c")).id("urgent").priority(Priority::Urgent);
    let urgent = urgent.submit().await.unwrap();
    waits(&urgent).await;
    assert_eq!(engine.waiting().waiters[0].owner, "urgent");
    time.advance(MINUTE * 9);
    let error = ended(&low).await.unwrap_err();
    assert_eq!(error.code(), "throttle.expired");
    assert!(error.to_string().contains("waited for first"), "{error}");
    open(&world, "all");
    ended(&urgent).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_that_are_one_end_with_one_outcome() {
    let world = World::new();
    let engine = lab::builder(&world).start().await.unwrap();
    let running = log(&engine, "plain", "running").await;
    writes(&running).await;
    let mut events = engine.subscribe();
    let one = log(&engine, "plain", "one").await;
    waits(&one).await;
    let two = log(&engine, "plain", "two").await;
    assert_eq!(behind(&waits(&two).await), ["running"]);
    open(&world, "running");
    ended(&running).await.unwrap();
    let told = until(&mut events, |event| matches!(event, Event::Coalesced { .. })).await;
    let Event::Coalesced { operation: follower, into } = told else { unreachable!() };
    assert_ne!(follower, into);
    open(&world, "all");
    let (first, second) = (ended(&one).await.unwrap(), ended(&two).await.unwrap());
    assert_eq!(first, second);
    let follower = found(&engine, follower.as_str()).await.status().await.unwrap();
    assert_eq!((follower.phase, follower.follows), (Phase::Succeeded, Some(into.clone())));
    let made = format!("{into}/1");
    assert_eq!(ids(&engine.points(&item("plain")).await.unwrap()), ["running/1", &*made]);
    assert!(engine.waiting().holders.is_empty(), "{}", engine.waiting());
}

/// Two log backups that are one, at work, and the names of who does the work and who follows.
async fn lead_and_follower(world: &World, engine: &Engine) -> (String, String) {
    let running = log(engine, "plain", "running").await;
    writes(&running).await;
    for id in ["one", "two"] {
        waits(&log(engine, "plain", id).await).await;
    }
    let mut events = engine.subscribe();
    open(world, "running");
    let told = until(&mut events, |event| matches!(event, Event::Coalesced { .. })).await;
    let Event::Coalesced { operation, into } = told else { unreachable!() };
    writes(&found(engine, into.as_str()).await).await;
    (into.to_string(), operation.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_follows_over_a_restart() {
    let world = World::new();
    let engine = lab::builder(&world).start().await.unwrap();
    let (lead, follower) = lead_and_follower(&world, &engine).await;
    soon(engine.shutdown(Duration::ZERO)).await;
    drop(engine);
    let engine = lab::builder(&world).start().await.unwrap();
    let status = found(&engine, &follower).await.status().await.unwrap();
    assert_eq!(status.follows.map(|lead| lead.to_string()), Some(lead.clone()));
    open(&world, "all");
    let outcome = ended(&found(&engine, &follower).await).await.unwrap();
    assert_eq!(outcome, ended(&found(&engine, &lead).await).await.unwrap());
    assert_eq!(engine.points(&item("plain")).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_follower_of_a_cancelled_operation_does_the_work_itself() {
    let world = World::new();
    let engine = lab::builder(&world).start().await.unwrap();
    let (lead, follower) = lead_and_follower(&world, &engine).await;
    let lead = found(&engine, &lead).await;
    lead.cancel().await.unwrap();
    assert_eq!(ended(&lead).await.unwrap_err().kind(), ErrorKind::Cancelled);
    open(&world, "all");
    let own = found(&engine, &follower).await;
    let Outcome::BackedUp { point, .. } = ended(&own).await.unwrap() else { panic!() };
    assert_eq!(point.as_str(), format!("{follower}/1"));
    assert_eq!(own.status().await.unwrap().follows, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_follower_of_a_cancelled_operation_does_the_work_for_the_others() {
    let world = World::new();
    let engine = lab::builder(&world).start().await.unwrap();
    let running = log(&engine, "plain", "running").await;
    writes(&running).await;
    let equal = ["one", "two", "three"];
    for id in equal {
        waits(&log(&engine, "plain", id).await).await;
    }
    let mut events = engine.subscribe();
    open(&world, "running");
    for _ in 1..equal.len() {
        until(&mut events, |event| matches!(event, Event::Coalesced { .. })).await;
    }
    let (mut followers, mut leads) = (Vec::new(), Vec::new());
    for id in equal {
        let operation = found(&engine, id).await;
        let follows = operation.status().await.unwrap().follows;
        if follows.is_some() { &mut followers } else { &mut leads }.push(operation);
    }
    assert_eq!((leads.len(), followers.len()), (1, 2));
    writes(&leads[0]).await;
    leads[0].cancel().await.unwrap();
    assert_eq!(ended(&leads[0]).await.unwrap_err().kind(), ErrorKind::Cancelled);
    open(&world, "all");
    let outcomes = [ended(&followers[0]).await.unwrap(), ended(&followers[1]).await.unwrap()];
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(engine.points(&item("plain")).await.unwrap().len(), 2);
    assert!(engine.waiting().holders.is_empty(), "{}", engine.waiting());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_follow_the_version_that_discovery_reports() {
    let world = World::new();
    let engine = lab::builder(&world).start().await.unwrap();
    let data = full(&engine, "plain", "data").await;
    writes(&data).await;
    // Nobody knows the version yet, so the rules for the oldest hold: a log backup waits.
    let early = log(&engine, "plain", "early").await;
    assert_eq!(behind(&waits(&early).await), ["data"]);
    engine.discover().await.unwrap();
    writes(&early).await;
    soon(engine.shutdown(Duration::ZERO)).await;
    drop((engine, data, early));

    // What was found is remembered.
    let engine = lab::builder(&world).start().await.unwrap();
    open(&world, "early");
    ended(&found(&engine, "early").await).await.unwrap();
    writes(&log(&engine, "plain", "next").await).await;

    // And followed when it changes.
    let other = World::new();
    let old = other.bare().plugin(lab::plugin::<false>(&other, "8.0.760")).start().await.unwrap();
    old.discover().await.unwrap();
    writes(&full(&old, "plain", "data").await).await;
    assert_eq!(behind(&waits(&log(&old, "plain", "log").await).await), ["data"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_pauses_gives_its_streams_back_and_keeps_what_it_excludes() {
    let world = World::new();
    let engine = lab::builder(&world).streams(1).start().await.unwrap();
    let mut events = engine.subscribe();
    let paused = full(&engine, "pauses", "paused").await;
    let returned = until(&mut events, |event| matches!(event, Event::CapacityReturned { .. }));
    let returned = returned.await;
    assert!(matches!(&returned, Event::CapacityReturned { operation, .. }
        if operation.as_str() == "paused"));
    let stuck = paused.status().await.unwrap().stuck.unwrap();
    assert!(stuck.contains("it is broken"), "{stuck}");
    let same = full(&engine, "pauses", "same").await;
    assert_eq!(behind(&waits(&same).await), ["paused"], "its item is still its own");
    let other = full(&engine, "plain", "other").await;
    writes(&other).await;

    open(&world, "mended");
    paused.resume().await.unwrap();
    let waiting = waits(&paused).await;
    assert_eq!((waiting.what.as_str(), behind(&waiting)), ("1 streams of node", vec!["other"]));
    let status = paused.status().await.unwrap();
    assert_eq!((status.phase, status.stuck), (Phase::Running, None));
    open(&world, "all");
    until(&mut events, |event| {
        matches!(event, Event::CapacityTaken { operation } if operation.as_str() == "paused")
    })
    .await;
    for backup in [&other, &paused, &same] {
        ended(backup).await.unwrap();
    }
    assert!(engine.waiting().holders.is_empty(), "{}", engine.waiting());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_run_that_is_cancelled_does_not_wait_for_streams() {
    let world = World::new();
    let engine = lab::builder(&world).streams(1).start().await.unwrap();
    let mut events = engine.subscribe();
    let paused = full(&engine, "pauses", "paused").await;
    until(&mut events, |event| matches!(event, Event::CapacityReturned { .. })).await;
    let other = full(&engine, "plain", "other").await;
    writes(&other).await;
    paused.cancel().await.unwrap();
    assert_eq!(ended(&paused).await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(other.status().await.unwrap().phase, Phase::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_parks_for_long_lends_its_streams_until_it_goes_on() {
    let world = World::new();
    let time = Driven::new();
    let engine = lab::builder(&world).streams(1).environment(time.clone()).start().await.unwrap();
    let mut events = engine.subscribe();
    let parked = full(&engine, "parks", "parked").await;
    until(&mut events, |event| in_state(event, "parked", "write")).await;
    let other = full(&engine, "plain", "other").await;
    assert_eq!(behind(&waits(&other).await), ["parked"], "a short wait keeps its streams");
    let is_returned = |event: &Event| matches!(event, Event::CapacityReturned { operation, .. } if operation.as_str() == "parked");
    time.until(&mut events, MINUTE, is_returned).await;
    writes(&other).await;
    let same = full(&engine, "parks", "same").await;
    assert_eq!(behind(&waits(&same).await), ["parked"], "its item is still its own");

    // Its time comes while others have the streams.
    time.advance(Duration::from_secs(30 * 86_400));
    let waiting = waits(&parked).await;
    assert_eq!(behind(&waiting), ["other"]);
    open(&world, "other");
    ended(&other).await.unwrap();
    writes(&parked).await;
    same.cancel().await.unwrap();
    open(&world, "all");
    ended(&parked).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_does_not_stop_keeps_its_exclusion_alone_and_a_shutdown_says_so() {
    let world = World::new();
    let time = Driven::new();
    let start = || lab::builder(&world).streams(1).environment(time.clone()).start();
    let engine = start().await.unwrap();
    let mut events = engine.subscribe();
    let stubborn = full(&engine, "stubborn", "stubborn").await;
    until(&mut events, |event| has_progressed(event, "stubborn")).await;
    time.until(
        &mut events,
        Duration::from_secs(5),
        |event| matches!(event, Event::Stuck { operation, .. } if operation.as_str() == "stubborn"),
    )
    .await;
    let status = stubborn.status().await.unwrap();
    assert!(status.stuck.unwrap().contains("does not stop"));
    let same = full(&engine, "stubborn", "same").await;
    assert_eq!(behind(&waits(&same).await), ["stubborn"]);
    open(&world, "other");
    ended(&full(&engine, "plain", "other").await).await.unwrap();
    for _ in 0..10 {
        // Time for retries, if there were any.
        time.advance(MINUTE);
        stubborn.status().await.unwrap();
    }
    assert_eq!(lab::STUBBORN_ATTEMPTS.load(Ordering::SeqCst), 1);

    let stopping = tokio::spawn({
        let engine = engine.clone();
        async move { engine.shutdown(Duration::ZERO).await }
    });
    let stopped = soon(async {
        while !stopping.is_finished() {
            time.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stopping.await.unwrap()
    })
    .await;
    let at_work = vec![operation("stubborn")];
    let resumable = vec![operation("same"), operation("stubborn")];
    assert_eq!(stopped, Shutdown::Stuck { at_work, resumable });
    let error = start().await.unwrap_err();
    support::check(&error, ErrorKind::InUse, Class::User, "state.in_use");

    open(&world, "all");
    let engine = soon(async {
        loop {
            match start().await {
                Ok(engine) => return engine,
                Err(error) if error.kind() == ErrorKind::InUse => tokio::task::yield_now().await,
                Err(error) => panic!("{error:?}"),
            }
        }
    })
    .await;
    for id in ["stubborn", "same"] {
        ended(&found(&engine, id).await).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_work_has_its_exclusions_back_first_and_queues_at_its_old_place() {
    let world = World::new();
    let time = Driven::new();
    let builder = || lab::builder(&world).environment(time.clone());
    let engine = builder().streams(2).start().await.unwrap();
    for id in ["a", "b", "c"] {
        let backup = full(&engine, &format!("plain-{id}"), id).await;
        time.advance(Duration::from_secs(1));
        if id == "c" {
            waits(&backup).await;
        } else {
            writes(&backup).await;
        }
    }
    soon(engine.shutdown(Duration::ZERO)).await;
    drop(engine);

    let engine = builder().streams(1).start().await.unwrap();
    let excluded: Vec<_> =
        engine.waiting().holders.iter().map(|holder| holder.owner.clone()).collect();
    assert_eq!(excluded, ["a", "b"], "before anything else is asked for");
    let d = full(&engine, "plain-d", "d").await;
    // No time passes, so of the two the one that waits first is the first.
    waits(&d).await;
    let same = full(&engine, "plain-b", "same").await;
    assert_eq!(behind(&waits(&same).await), ["b"]);
    writes(&found(&engine, "a").await).await;
    for id in ["b", "c"] {
        waits(&found(&engine, id).await).await;
    }
    let waiting = engine.waiting();
    let line: Vec<_> = waiting.waiters.iter().map(|waiter| &*waiter.owner).collect();
    assert_eq!(line, ["b", "c", "d", "same"], "{waiting}");
    assert_eq!(engine.lost_exclusions(), []);
    open(&world, "all");
    for id in ["a", "b", "c", "d", "same"] {
        ended(&found(&engine, id).await).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exclusion_that_cannot_be_had_back_is_reported_and_waited_for() {
    let world = World::new();
    let lenient = || world.bare().plugin(lab::plugin::<false>(&world, "16")).start();
    let engine = lenient().await.unwrap();
    engine.discover().await.unwrap();
    for backup in [full(&engine, "plain", "data").await, log(&engine, "plain", "log").await] {
        writes(&backup).await;
    }
    soon(engine.shutdown(Duration::ZERO)).await;
    drop(engine);

    // The next version of the plugin does not allow what went on.
    let strict = world.bare().plugin(lab::plugin::<true>(&world, "16")).start();
    let engine = strict.await.unwrap();
    let lost = engine.lost_exclusions();
    assert_eq!((lost.len(), lost[0].operation.as_str()), (1, "log"));
    assert_eq!(lost[0].held_by, [operation("data")]);
    assert!(lost[0].why.contains("data has it"), "{}", lost[0].why);
    let log = found(&engine, "log").await;
    assert_eq!(behind(&waits(&log).await), ["data"]);
    open(&world, "all");
    ended(&found(&engine, "data").await).await.unwrap();
    ended(&log).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_whom_is_told_in_words() {
    let world = World::new();
    let engine = lab::builder(&world).start().await.unwrap();
    let first = full(&engine, "plain", "first").await;
    writes(&first).await;
    let second = full(&engine, "plain", "second").await;
    let waiting = waits(&second).await;
    assert_eq!(waiting.what, "item lab/one/plain (data)");
    let words = waiting.to_string();
    assert!(
        words.starts_with("second waits for item lab/one/plain (data): first has held it"),
        "{words}"
    );
    let all = engine.waiting().to_string();
    assert!(all.contains("first has held") && all.contains(&words[..40]), "{all}");
    open(&world, "all");
    let mut events = engine.subscribe();
    ended(&first).await.unwrap();
    until(&mut events, |event| in_phase(event, "second", Phase::Succeeded)).await;
    assert_eq!(second.status().await.unwrap().waits_for, None);
}
