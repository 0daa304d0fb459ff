//! Whatever dies whenever: the next start finishes what was begun, once.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use fsm_core::{
    Body, Journal, Record, RunId,
    sqlite::{SqliteJournal, Store},
};
use mercury::{Engine, ErrorKind, Event, Phase, PointId, Shutdown};
use support::{
    World, back_up, ended, has_progressed, hash, ids, in_phase, in_state, large, names, operation,
    soon, until,
};

/// Which world a child process works in.
const ROOT: &str = "MERCURY_TEST_ROOT";
/// What it does there.
const TASK: &str = "MERCURY_TEST_TASK";

/// Starts the engine again and lets `nightly` come to its end: then there is exactly its one
/// point, identical to the source, and nothing is held.
async fn finishes(world: &World) {
    let engine = world.start().await;
    let item = world.item("orders.db");
    ended(&engine.operation(&operation("nightly")).await.unwrap()).await.unwrap();
    let points = engine.points(&item).await.unwrap();
    assert_eq!(ids(&points), ["nightly/1"]);
    assert_eq!(engine.operations().await.unwrap().len(), 1);
    let source = hash(&world.database("orders.db"));
    assert_eq!(world.restored(&engine, &item, &points[0].id).await, source);
    let archived = world.archive().await.item(item.as_str()).await.unwrap();
    assert!(archived.holds().await.unwrap().is_empty());
    assert_eq!(engine.shutdown(Duration::ZERO).await, Shutdown::Drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_stopped_in_any_state_is_finished_by_the_next_start() {
    type Moment = fn(&Event) -> bool;
    let moments: [(&str, Moment); 7] = [
        ("queued", |event| in_phase(event, "nightly", Phase::Queued)),
        ("running", |event| in_phase(event, "nightly", Phase::Running)),
        ("inspect", |event| in_state(event, "nightly", "inspect")),
        ("copy", |event| in_state(event, "nightly", "copy")),
        ("half way", |event| has_progressed(event, "nightly")),
        ("seal", |event| in_state(event, "nightly", "seal")),
        ("sealed", |event| in_state(event, "nightly", "sealed")),
    ];
    for (name, moment) in moments {
        let world = World::new();
        large(&world.database("orders.db"), 2);
        let engine = world.start().await;
        let mut events = engine.subscribe();
        let submit = engine.backup(&world.item("orders.db")).id("nightly").submit();
        submit.await.unwrap();
        until(&mut events, moment).await;
        let left = soon(engine.shutdown(Duration::ZERO)).await;
        println!("stopped when {name}: {left:?}");
        finishes(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_stopped_again_and_again_is_finished_once() {
    let world = World::new();
    large(&world.database("orders.db"), 8);
    let mut engine = world.start_slow().await;
    let submit = engine.backup(&world.item("orders.db")).id("nightly").submit();
    submit.await.unwrap();
    for _ in 0..3 {
        let mut events = engine.subscribe();
        until(&mut events, |event| has_progressed(event, "nightly")).await;
        let left = soon(engine.shutdown(Duration::ZERO)).await;
        assert_eq!(left, Shutdown::Resumable(vec![operation("nightly")]));
        engine = world.start_slow().await;
    }
    soon(engine.shutdown(Duration::ZERO)).await;
    finishes(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_stopped_in_any_state_is_finished_by_the_next_start() {
    let world = World::new();
    large(&world.database("orders.db"), 2);
    let item = world.item("orders.db");
    let source = hash(&world.database("orders.db"));
    let mut engine = world.start().await;
    let point = back_up(&engine, &item, "first").await.unwrap();
    for state in ["receive", "publish", "restored"] {
        let target = world.unused("copy.db");
        let mut events = engine.subscribe();
        let restore = engine.restore(&item, &point).id(state).to(target.to_str().unwrap());
        restore.submit().await.unwrap();
        until(&mut events, |event| in_state(event, state, state)).await;
        let left = soon(engine.shutdown(Duration::ZERO)).await;
        println!("stopped in {state}: {left:?}");
        assert!(!target.exists() || hash(&target) == source, "absent or complete");
        engine = world.start().await;
        ended(&engine.operation(&operation(state)).await.unwrap()).await.unwrap();
        assert_eq!(hash(&target), source);
        assert_eq!(names(target.parent().unwrap()), ["copy.db"], "nothing is left beside it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_survives_the_death_of_its_process_at_any_moment() {
    let mut moments = vec!["submitted".to_owned()];
    moments.extend(["inspect", "copy", "seal", "sealed"].map(|state| format!("state {state}")));
    moments.extend([1, 3, 5].map(|megabytes| format!("progress {megabytes}")));
    for moment in moments {
        let world = World::new();
        large(&world.database("orders.db"), 6);
        kill_when(&world, "backup", &moment);
        finishes(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_survives_the_death_of_its_process_at_any_moment() {
    let world = World::new();
    large(&world.database("orders.db"), 6);
    let item = world.item("orders.db");
    let source = hash(&world.database("orders.db"));
    let mut engine = world.start().await;
    back_up(&engine, &item, "first").await.unwrap();
    for (number, moment) in
        ["submitted", "state receive", "progress 2", "progress 5", "state publish"]
            .into_iter()
            .enumerate()
    {
        soon(engine.shutdown(Duration::ZERO)).await;
        drop(engine);
        let target = world.unused("copy.db");
        let id = format!("restore-{number}");
        kill_when(&world, &format!("{id} {}", target.display()), moment);
        assert!(!target.exists() || hash(&target) == source, "absent or complete");
        engine = world.start().await;
        ended(&engine.operation(&operation(&id)).await.unwrap()).await.unwrap();
        assert_eq!(hash(&target), source, "killed at {moment}");
        assert_eq!(names(target.parent().unwrap()), ["copy.db"], "killed at {moment}");
    }
}

/// Lets another process work in `world`, and kills it as soon as it says `moment`.
fn kill_when(world: &World, task: &str, moment: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_is_killed", "--nocapture"])
        .env(ROOT, world.share())
        .env(TASK, task)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reached = lines.map_while(Result::ok).any(|line| {
        let reached = line.ends_with(moment);
        said.push(line);
        reached
    });
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(reached, "it never came to `{moment}`: {said:?}, {status}");
}

/// Not a test of its own: what [`kill_when`] starts, in a process of its own.
#[test]
fn the_process_that_is_killed() {
    let (Ok(root), Ok(task)) = (std::env::var(ROOT), std::env::var(TASK)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(work(&World::of(Path::new(&root)), &task));
}

async fn work(world: &World, task: &str) {
    let rate = std::num::NonZeroU64::new(6 << 20).unwrap();
    let engine = world.builder().bytes_per_second(rate).start().await.unwrap();
    let mut events = engine.subscribe();
    let item = world.item("orders.db");
    match task.split_once(' ') {
        None => drop(engine.backup(&item).id("nightly").submit().await.unwrap()),
        Some((id, target)) => {
            let restore = engine.restore(&item, &PointId::new("first/1"));
            drop(restore.id(id).to(target).submit().await.unwrap());
        }
    }
    say("submitted");
    loop {
        match soon(events.next()).await.unwrap() {
            Event::State { state, .. } => say(&format!("state {state}")),
            Event::Progress { progress, .. } => say(&format!("progress {}", progress.done >> 20)),
            Event::Phase { phase, .. } if phase.is_final() => break,
            _ => {}
        }
    }
    // Nobody has killed it in time: what it said last is still worth a restart.
    std::process::exit(0);
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// A world whose operation `nightly` was stopped in the middle of its copy.
async fn stopped_half_way() -> World {
    let world = World::new();
    large(&world.database("orders.db"), 8);
    let engine = world.start_slow().await;
    let mut events = engine.subscribe();
    let submit = engine.backup(&world.item("orders.db")).id("nightly").submit();
    submit.await.unwrap();
    until(&mut events, |event| has_progressed(event, "nightly")).await;
    soon(engine.shutdown(Duration::ZERO)).await;
    world
}

/// The operation `nightly` has neither ended nor failed: it waits for a start with what it needs.
async fn stands_still(engine: Engine) {
    let left = engine.operation(&operation("nightly")).await.unwrap();
    let error = ended(&left).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
    assert_eq!(left.status().await.unwrap().phase, Phase::Running);
    let stopped = soon(engine.shutdown(Duration::from_secs(30))).await;
    assert_eq!(stopped, Shutdown::Resumable(vec![operation("nightly")]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_whose_plugin_is_missing_waits_for_it() {
    let world = stopped_half_way().await;
    stands_still(world.bare().start().await.unwrap()).await;
    finishes(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_in_a_state_that_its_plugin_does_not_know_waits_for_one_that_does() {
    let world = stopped_half_way().await;
    be_in_state(&world, "copy-of-a-later-version").await;
    stands_still(world.start().await).await;
    be_in_state(&world, "copy").await;
    finishes(&world).await;
}

/// The journal says that the run of `nightly` is in `state`, with the data that it has.
async fn be_in_state(world: &World, state: &str) {
    let store = Store::open(&world.path("state/mercury.db")).unwrap();
    let journal = SqliteJournal::new(store).unwrap();
    let run: RunId = "nightly/1".parse().unwrap();
    let history = journal.history(&run).await.unwrap();
    let seq = history.last().unwrap().seq + 1;
    let entered = history.into_iter().rfind(|r| matches!(r.body, Body::Enter { .. })).unwrap();
    let mut record = Record { seq, ..entered };
    let Body::Enter { state: entered, .. } = &mut record.body else { unreachable!() };
    *entered = state.to_owned();
    journal.append(vec![record]).await.unwrap();
}
