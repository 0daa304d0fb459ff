//! Work that a workload's programs call for, with the plugin in the agent's process and in
//! processes of its own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "support/called.rs"]
mod called;
#[path = "support/caller.rs"]
mod caller;
mod support;

use std::{fs, time::Duration};

use mercury::{Engine, Events, OperationId, Outcome, Phase, PointId, Task};
use serde_json::json;

use caller::{BOTH, Program, Where, builder, called, gate, item, refused, start};
use support::{
    World, check, ended, has_progressed, in_phase, operation, soon, time::Driven, until,
};

async fn phase(engine: &Engine, id: &str) -> Phase {
    engine.operation(&operation(id)).await.unwrap().status().await.unwrap().phase
}

/// Saves `bytes` by a call of its own.
async fn saved(world: &World, engine: &Engine, name: &str, bytes: &[u8]) -> PointId {
    let mut events = engine.subscribe();
    let mut program = Program::wish(world, &json!({ "do": "backup", "item": name }));
    let backup = called(engine, &mut events).await;
    program.say(bytes);
    program.done();
    let heard = program.hear();
    let Outcome::BackedUp { point, stats, .. } = ended(&backup).await.unwrap() else {
        panic!("it backs up")
    };
    assert_eq!(heard, format!("saved {} in {}\n", bytes.len(), point.as_str()));
    assert_eq!(stats.read_bytes, bytes.len() as u64);
    point
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_saves_and_gets_back_what_it_saved() {
    for place in BOTH {
        let world = World::new();
        let engine = start(&world, place).await;
        let bytes = vec![7; 300_000];
        let point = saved(&world, &engine, "db", &bytes).await;
        let points = engine.points(&item("db")).await.unwrap();
        assert_eq!(support::ids(&points), [point.as_str()]);

        let mut events = engine.subscribe();
        let wish = json!({ "do": "restore", "item": "db", "point": point });
        let program = Program::wish(&world, &wish);
        let restore = called(&engine, &mut events).await;
        assert_eq!(program.hear().as_bytes(), bytes);
        let status = restore.status().await.unwrap();
        assert_eq!(status.called_by.unwrap().endpoint, "door");
        let Outcome::Restored { point: restored, report } = ended(&restore).await.unwrap() else {
            panic!("it restores")
        };
        assert_eq!((restored, report["bytes"].as_u64()), (point, Some(300_000)));
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_has_other_work_done_and_a_call_is_taken_once() {
    for place in BOTH {
        let world = World::new();
        let engine = start(&world, place).await;
        let mut events = engine.subscribe();
        let mut program = Program::wish(&world, &json!({ "do": "other", "item": "db" }));
        let other = called(&engine, &mut events).await;
        // Also what was said ahead is for the step.
        program.say(b"which backups are there?");
        program.done();
        assert_eq!(program.hear(), "WHICH BACKUPS ARE THERE?");
        let Outcome::Done { result } = ended(&other).await.unwrap() else { panic!("it is done") };
        assert_eq!(result["said"], "which backups are there?");
        assert_eq!(result["again"], "call.lost");
        assert_eq!(result["pid"], std::process::id());
        let status = other.status().await.unwrap();
        assert!(matches!(status.task, Task::Other { .. }), "{status:?}");
        let peer = status.called_by.unwrap().peer;
        assert_eq!((peer.pid, result["uid"].as_u64()), (std::process::id(), Some(peer.uid.into())));
        assert_eq!(engine.points(&item("db")).await.unwrap(), []);
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_attached_to_the_operation_that_caused_them() {
    for place in BOTH {
        let world = World::new();
        let engine = start(&world, place).await;
        let backup = engine.backup(&item("3")).id("nightly").submit().await.unwrap();
        let attach =
            json!({ "do": "attach", "operation": "nightly", "item": "3", "refusal": "no" });
        // All three wait before the first one is served.
        let mut programs: Vec<_> = (0..3).map(|_| Program::wish(&world, &attach)).collect();
        for (number, program) in programs.iter_mut().enumerate() {
            program.say(&vec![0; number * 1_000]);
            program.done();
        }
        let mut heard: Vec<_> = programs.into_iter().map(Program::hear).collect();
        heard.sort();
        assert_eq!(heard, ["saved 0\n", "saved 1000\n", "saved 2000\n"]);
        let outcome = ended(&backup).await.unwrap();
        assert!(matches!(outcome, Outcome::BackedUp { .. }), "{outcome:?}");
        let points = engine.points(&item("3")).await.unwrap();
        assert_eq!(points[0].streams.len(), 3);

        // It is not under way any more.
        let mut events = engine.subscribe();
        assert_eq!(Program::wish(&world, &attach).hear(), "no");
        refused(&mut events, "ingress.not_under_way").await;
        let mut unknown = attach.clone();
        unknown["operation"] = json!("never heard of");
        assert_eq!(Program::wish(&world, &unknown).hear(), "no");
        refused(&mut events, "ingress.not_under_way").await;
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_no_step_came_for_is_refused_when_its_operation_ends() {
    for place in BOTH {
        let world = World::new();
        let engine = start(&world, place).await;
        let backup = engine.backup(&item("1")).id("nightly").submit().await.unwrap();
        let attach =
            json!({ "do": "attach", "operation": "nightly", "item": "1", "refusal": "no" });
        let mut events = engine.subscribe();
        let first = Program::wish(&world, &attach);
        until(&mut events, |event| has_progressed(event, "nightly")).await;
        let second = Program::wish(&world, &attach);
        called(&engine, &mut events).await;
        first.done();
        assert_eq!(first.hear(), "saved 0\n");
        assert_eq!(second.hear(), "no");
        refused(&mut events, "call.unserved").await;
        ended(&backup).await.unwrap();
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_waits_for_a_call_can_be_asked_to_stop() {
    for place in BOTH {
        let world = World::new();
        let engine = start(&world, place).await;
        let mut events = engine.subscribe();
        let backup = engine.backup(&item("2")).id("nightly").submit().await.unwrap();
        let attach = json!({ "do": "attach", "operation": "nightly", "refusal": "no" });
        let first = Program::wish(&world, &attach);
        until(&mut events, |event| has_progressed(event, "nightly")).await;
        first.done();
        assert_eq!(first.hear(), "saved 0\n");
        backup.cancel().await.unwrap();
        assert_eq!(ended(&backup).await.unwrap_err().kind(), mercury::ErrorKind::Cancelled);
        assert_eq!(Program::wish(&world, &attach).hear(), "no");
        assert_eq!(engine.points(&item("2")).await.unwrap(), []);
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_is_told_why_it_is_refused() {
    for place in BOTH {
        let world = World::new();
        let engine = start(&world, place).await;
        let mut events = engine.subscribe();
        let wish = json!({ "do": "refuse", "refusal": "not today", "item": "db" });
        assert_eq!(Program::wish(&world, &wish).hear(), "not today");
        refused(&mut events, "called.refused").await;
        assert_eq!(Program::call(&world, "door", b"{").hear(), "what is that?");
        refused(&mut events, "called.unread").await;
        // An operation that was made, and cannot be carried out.
        let wish = json!({ "do": "claim", "refusal": "sorry", "item": "db", "operation": "odd" });
        assert_eq!(Program::wish(&world, &wish).hear(), "sorry");
        refused(&mut events, "call.unserved").await;
        let odd = engine.operation(&operation("odd")).await.unwrap();
        assert_eq!(ended(&odd).await.unwrap_err().code(), "throttle.claim");
        let wish = json!({ "do": "restore", "refusal": "gone", "item": "db", "point": "none" });
        assert_eq!(Program::wish(&world, &wish).hear(), "gone");
        let restore = called(&engine, &mut events).await;
        assert_eq!(ended(&restore).await.unwrap_err().code(), "point.unknown");
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_exclude_each_other_are_served_in_turn_and_none_for_another() {
    for place in BOTH {
        let world = World::new();
        let engine = start(&world, place).await;
        let mut events = engine.subscribe();
        let mut wish = json!({ "do": "backup", "item": "db", "operation": "first" });
        let mut first = Program::wish(&world, &wish);
        until(&mut events, |event| has_progressed(event, "first")).await;
        let mut waits = Vec::new();
        for id in ["second", "third"] {
            wish["operation"] = json!(id);
            let mut program = Program::wish(&world, &wish);
            program.say(id.as_bytes());
            program.done();
            until(&mut events, |event| in_phase(event, id, Phase::Queued)).await;
            let operation = engine.operation(&operation(id)).await.unwrap();
            soon(async {
                while operation.status().await.unwrap().waits_for.is_none() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            waits.push((program, operation));
        }
        let behind = waits[0].1.status().await.unwrap().waits_for.unwrap().behind;
        assert_eq!(behind, [OperationId::new("first")]);
        first.say(b"the first one");
        first.done();
        assert_eq!(first.hear(), "saved 13 in first/1\n");
        // The rules would make one of the two that waited; but each has bytes of its own.
        for (program, operation) in waits {
            let id = operation.id();
            let expected = format!("saved {} in {id}/1\n", id.as_str().len());
            assert_eq!(program.hear(), expected);
            ended(&operation).await.unwrap();
        }
        let points = engine.points(&item("db")).await.unwrap();
        assert_eq!(support::ids(&points), ["first/1", "second/1", "third/1"]);
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

/// An operation that has the item to itself, with its program, and one that waits for it.
async fn one_waits(
    world: &World,
    engine: &Engine,
    events: &mut Events,
    patience_ms: Option<u64>,
) -> (Program, Program) {
    let wish = json!({ "do": "backup", "item": "db", "operation": "first" });
    let first = Program::wish(world, &wish);
    until(events, |event| has_progressed(event, "first")).await;
    let mut wish =
        json!({ "do": "backup", "item": "db", "operation": "second", "refusal": "late" });
    wish["patience_ms"] = json!(patience_ms);
    let second = Program::wish(world, &wish);
    until(events, |event| in_phase(event, "second", Phase::Queued)).await;
    assert_eq!(phase(engine, "second").await, Phase::Queued);
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_while_it_waits_has_its_operation_cancelled() {
    for place in BOTH {
        let world = World::new();
        let engine = start(&world, place).await;
        let mut events = engine.subscribe();
        let (first, second) = one_waits(&world, &engine, &mut events, None).await;
        drop(second);
        refused(&mut events, "call.hung_up").await;
        let second = engine.operation(&operation("second")).await.unwrap();
        assert_eq!(ended(&second).await.unwrap_err().code(), "call.hung_up");
        assert_eq!(phase(&engine, "second").await, Phase::Cancelled);
        first.done();
        assert_eq!(first.hear(), "saved 0 in first/1\n", "the other one is not disturbed");
        let left = engine.waiting();
        assert!(left.waiters.is_empty(), "{left}");
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_patience_ends_has_its_operation_cancelled_and_is_told() {
    let world = World::new();
    let time = Driven::new();
    let engine = builder(&world, Where::Here).environment(time.clone()).start().await.unwrap();
    let mut events = engine.subscribe();
    let (first, second) = one_waits(&world, &engine, &mut events, Some(600_000)).await;
    time.advance(Duration::from_secs(599));
    assert_eq!(phase(&engine, "second").await, Phase::Queued);
    let step = Duration::from_secs(1);
    time.until(&mut events, step, |event| in_phase(event, "second", Phase::Cancelled)).await;
    assert_eq!(second.hear(), "late");
    let second = engine.operation(&operation("second")).await.unwrap();
    assert_eq!(ended(&second).await.unwrap_err().code(), "call.impatient");
    first.done();
    assert_eq!(first.hear(), "saved 0 in first/1\n");

    // Once a step has the call, there is all the time in the world.
    let wish = json!({ "do": "backup", "item": "db", "operation": "third", "patience_ms": 1_000 });
    let third = Program::wish(&world, &wish);
    until(&mut events, |event| has_progressed(event, "third")).await;
    time.advance(Duration::from_secs(3_600));
    third.done();
    assert_eq!(third.hear(), "saved 0 in third/1\n");
    soon(engine.shutdown(Duration::ZERO)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_hangs_up_before_the_step_comes_for_it_is_lost_to_the_step() {
    for place in BOTH {
        let world = World::new();
        let engine = start(&world, place).await;
        let mut events = engine.subscribe();
        let wish = json!({ "do": "backup", "item": "slow", "operation": "slow" });
        let program = Program::wish(&world, &wish);
        until(&mut events, |event| has_progressed(event, "slow")).await;
        assert_eq!(phase(&engine, "slow").await, Phase::Running);
        drop(program);
        let slow = engine.operation(&operation("slow")).await.unwrap();
        let error = ended(&slow).await.unwrap_err();
        assert_eq!(error.code(), "call.hung_up");
        assert_eq!(phase(&engine, "slow").await, Phase::Cancelled);
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_restart_a_call_is_lost_and_what_had_begun_goes_on_without_it() {
    for place in BOTH {
        let world = World::new();
        let engine = start(&world, place).await;
        let mut events = engine.subscribe();
        let wish = json!({ "do": "backup", "item": "slow", "operation": "begun", "refusal": "so" });
        let begun = Program::wish(&world, &wish);
        until(&mut events, |event| has_progressed(event, "begun")).await;
        let mut wish = wish;
        wish["operation"] = json!("waits");
        let waits = Program::wish(&world, &wish);
        until(&mut events, |event| in_phase(event, "waits", Phase::Queued)).await;
        soon(engine.shutdown(Duration::ZERO)).await;
        assert_eq!((begun.hear().as_str(), waits.hear().as_str()), ("so", "so"));
        assert!(!caller::socket(&world, "door").exists());
        drop(engine);

        let engine = start(&world, place).await;
        let waits = engine.operation(&operation("waits")).await.unwrap();
        assert_eq!(ended(&waits).await.unwrap_err().code(), "call.lost");
        assert_eq!(phase(&engine, "waits").await, Phase::Cancelled);
        assert_eq!(phase(&engine, "begun").await, Phase::Running, "and waits at its gate");
        fs::write(gate(&world), "").unwrap();
        let begun = engine.operation(&operation("begun")).await.unwrap();
        let error = ended(&begun).await.unwrap_err();
        check(&error, mercury::ErrorKind::Operation, mercury::Class::Permanent, "call.lost");
        assert_eq!(phase(&engine, "begun").await, Phase::Failed);
        // And the door is open again.
        saved(&world, &engine, "db", b"as ever").await;
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_shut_down_or_only_dropped_leaves_no_socket_and_the_next_one_listens() {
    let world = World::new();
    let engine = start(&world, Where::Here).await;
    saved(&world, &engine, "db", b"bytes").await;
    soon(engine.shutdown(Duration::from_secs(30))).await;
    assert!(!caller::socket(&world, "door").exists());
    drop(engine);
    drop(start(&world, Where::Here).await);
    assert!(!caller::socket(&world, "door").exists());
    let engine = start(&world, Where::Here).await;
    saved(&world, &engine, "db", b"bytes").await;
    soon(engine.shutdown(Duration::from_secs(30))).await;
}
