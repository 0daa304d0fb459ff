//! Callers that nobody asked for or that do not behave, and workloads that answer what they should
//! not: each is refused for its own reason, and the agent lives on.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "support/called.rs"]
mod called;
#[path = "support/caller.rs"]
mod caller;
mod support;

use std::{
    fs,
    io::{IoSlice, Read},
    mem::MaybeUninit,
    os::fd::AsFd,
    time::Duration,
};

use mercury::{Engine, Phase};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

use caller::{BOTH, Program, Where, builder, called, framed, gate, item, refused, start};
use support::{World, ended, has_progressed, in_phase, lab, operation, soon, time::Driven, until};

/// The agent serves a call as ever.
async fn serves(world: &World, engine: &Engine) {
    let mut events = engine.subscribe();
    let program = Program::wish(world, &json!({ "do": "other", "item": "db" }));
    let other = called(engine, &mut events).await;
    program.done();
    assert_eq!(program.hear(), "");
    ended(&other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_call_is_hung_up_on_before_it_has_said_anything() {
    for place in BOTH {
        let world = World::new();
        let engine = start(&world, place).await;
        let mut events = engine.subscribe();
        assert_eq!(Program::silent(&world, "others").hear(), "");
        refused(&mut events, "ingress.peer").await;
        // Nor does it help to say something.
        for _ in 0..100 {
            let program = Program::silent(&world, "others");
            // It may have been hung up on already.
            let wish = json!({ "do": "other", "item": "db" }).to_string();
            let _ = std::io::Write::write_all(&mut &program.0, &framed(wish.as_bytes()));
            assert_eq!(program.hear(), "");
        }
        serves(&world, &engine).await;
        let operations = engine.operations().await.unwrap();
        assert_eq!(operations.len(), 1, "{operations:?}");
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_message_that_is_too_long_or_not_whole_is_refused() {
    let world = World::new();
    let engine = start(&world, Where::Here).await;
    let mut events = engine.subscribe();
    for length in [65_u32, 1 << 20, u32::MAX] {
        let mut program = Program::silent(&world, "narrow");
        program.say(&length.to_be_bytes());
        assert_eq!(program.hear(), "");
        refused(&mut events, "ingress.too_long").await;
    }
    // As long as may be, and read whole; and none of these.
    assert_eq!(Program::call(&world, "narrow", &[b'x'; 64]).hear(), "what is that?");
    refused(&mut events, "called.unread").await;
    for said in [&b""[..], b"\0\0", b"\0\0\0\x05hell"] {
        let mut program = Program::silent(&world, "door");
        program.say(said);
        program.done();
        assert_eq!(program.hear(), "");
        refused(&mut events, "ingress.ended").await;
    }
    serves(&world, &engine).await;
    soon(engine.shutdown(Duration::from_secs(30))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_too_long_to_say_what_it_wants_is_refused() {
    let world = World::new();
    let time = Driven::new();
    let engine = builder(&world, Where::Here).environment(time.clone()).start().await.unwrap();
    for said in [&b""[..], b"\0", b"\0\0\0\x05hell"] {
        let mut events = engine.subscribe();
        let mut program = Program::silent(&world, "narrow");
        program.say(said);
        let begun = mercury::Environment::now(&time);
        let step = Duration::from_secs(1);
        let is_late = |event: &mercury::Event| matches!(event, mercury::Event::CallRefused { code, .. } if code == "ingress.late");
        time.until(&mut events, step, is_late).await;
        assert!(mercury::Environment::now(&time).since(begun) >= Duration::from_secs(20));
        assert_eq!(program.hear(), "");
    }
    soon(engine.shutdown(Duration::ZERO)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_calls_wait_than_may() {
    let world = World::new();
    let engine = start(&world, Where::Here).await;
    let mut events = engine.subscribe();
    // One that says nothing, and one that waits for a step.
    let silent = Program::silent(&world, "narrow");
    engine.backup(&item("1")).id("nightly").submit().await.unwrap();
    until(&mut events, |event| in_phase(event, "nightly", Phase::Running)).await;
    let attach = br#"{"do":"attach","operation":"nightly"}"#;
    let first = Program::call(&world, "door", attach);
    until(&mut events, |event| has_progressed(event, "nightly")).await;
    let waits = Program::call(&world, "narrow", attach);
    until(
        &mut events,
        |event| matches!(event, mercury::Event::Called { endpoint, .. } if endpoint == "narrow"),
    )
    .await;
    for _ in 0..3 {
        assert_eq!(Program::silent(&world, "narrow").hear(), "");
        refused(&mut events, "ingress.full").await;
    }
    // Other endpoints have places of their own.
    serves(&world, &engine).await;
    // Who leaves makes room.
    drop(silent);
    refused(&mut events, "ingress.ended").await;
    soon(async {
        // Its place is free a moment after it was told of.
        while Program::call(&world, "narrow", b"x").hear() != "what is that?" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    first.done();
    assert_eq!((first.hear().as_str(), waits.hear().as_str()), ("saved 0\n", ""));
    soon(engine.shutdown(Duration::from_secs(30))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_listen_to_its_refusal_is_hung_up_on() {
    let world = World::new();
    let time = Driven::new();
    let engine = builder(&world, Where::Here).environment(time.clone()).start().await.unwrap();
    let mut events = engine.subscribe();
    let wish = json!({ "do": "refuse at length", "item": "db" });
    let mut program = Program::wish(&world, &wish);
    refused(&mut events, "called.refused").await;
    // What fits is on its way, and then the host waits for it to be read.
    let mut first = [0; 1];
    program.0.read_exact(&mut first).unwrap();
    let (hung_up, mut is_hung_up) = tokio::sync::oneshot::channel();
    let listening = std::thread::spawn({
        let stream = program.0.try_clone().unwrap();
        move || {
            let mut look = [rustix::event::PollFd::new(&stream, rustix::event::PollFlags::empty())];
            rustix::event::poll(&mut look, None).unwrap();
            let _ = hung_up.send(());
        }
    });
    soon(async {
        while is_hung_up.try_recv().is_err() {
            time.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    listening.join().unwrap();
    assert!(program.hear().len() < (1 << 20) - 1, "it was not waited for until it had read all");
    soon(engine.shutdown(Duration::ZERO)).await;
}

async fn is_refused(world: &World, engine: &Engine, wish: &Value, code: &str) {
    let mut events = engine.subscribe();
    let before = engine.operations().await.unwrap();
    let heard = Program::wish(world, wish).hear();
    refused(&mut events, code).await;
    // The words are those of the workload's answer, if it gave one.
    let expected = wish["refusal"].as_str().unwrap_or_default();
    assert_eq!(heard, expected, "{wish}");
    assert_eq!(engine.operations().await.unwrap(), before, "{wish}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_that_lies_about_a_call_is_not_believed() {
    for place in BOTH {
        let world = World::new();
        let plugin = lab::plugin::<false>(&world, "16");
        let engine = builder(&world, place).plugin(plugin).start().await.unwrap();
        let mut events = engine.subscribe();
        lab::full(&engine, "plain", "of-the-lab").await;
        until(&mut events, |event| has_progressed(event, "of-the-lab")).await;
        engine.backup(&item("1")).id("live").submit().await.unwrap();
        let wish = json!({ "do": "other", "item": "db", "operation": "ended" });
        let program = Program::wish(&world, &wish);
        program.done();
        program.hear();
        ended(&engine.operation(&operation("ended")).await.unwrap()).await.unwrap();

        for wish in [
            json!({ "do": "foreign item", "item": "plain" }),
            json!({ "do": "attach", "operation": "of-the-lab" }),
            json!({ "do": "backup", "operation": "ended" }),
            json!({ "do": "backup", "operation": "live" }),
            json!({ "do": "backup", "operation": "of-the-lab" }),
            json!({ "do": "backup", "operation": "a/b" }),
            json!({ "do": "backup", "operation": "" }),
            json!({ "do": "backup", "operation": "x".repeat(200) }),
            json!({ "do": "machine", "operation": "new" }),
        ] {
            let mut wish = wish;
            wish["refusal"] = json!("no");
            wish["item"] = json!(wish["item"].as_str().unwrap_or("db"));
            is_refused(&world, &engine, &wish, "plugin.contract").await;
        }
        serves(&world, &engine).await;
        lab::open(&world, "all");
        ended(&engine.operation(&operation("of-the-lab")).await.unwrap()).await.unwrap();
        engine.cancel(&operation("live")).await.unwrap();
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_that_panics_or_dies_when_it_is_called_costs_that_call() {
    for place in BOTH {
        let world = World::new();
        let engine = start(&world, place).await;
        for _ in 0..3 {
            let wish = json!({ "do": "panic", "item": "db" });
            is_refused(&world, &engine, &wish, "plugin.panicked").await;
        }
        if place == Where::Apart {
            let wish = json!({ "do": "abort", "item": "db" });
            is_refused(&world, &engine, &wish, "plugin.crashed").await;
        }
        serves(&world, &engine).await;
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_that_hangs_when_it_is_called_holds_few_threads_and_nobody_up() {
    let world = World::new();
    let time = Driven::new();
    let engine = builder(&world, Where::Here).environment(time.clone()).start().await.unwrap();
    let mut events = engine.subscribe();
    let hang = json!({ "do": "hang", "item": "db" });
    let late = |event: &mercury::Event| matches!(event, mercury::Event::CallRefused { code, .. } if code == "ingress.route_late");
    let hanging: Vec<_> = (0..12).map(|_| Program::wish(&world, &hang)).collect();
    for program in hanging {
        time.until(&mut events, Duration::from_secs(1), late).await;
        assert_eq!(program.hear(), "");
    }
    // All eight threads are lost to it: it is not asked any more.
    let program = Program::wish(&world, &json!({ "do": "other", "item": "db" }));
    time.until(&mut events, Duration::from_secs(1), late).await;
    assert_eq!(program.hear(), "");
    // What does not depend on its word goes on.
    let backup = engine.backup(&item("0")).submit().await.unwrap();
    ended(&backup).await.unwrap();
    fs::write(gate(&world), "").unwrap();
    soon(async {
        // They come back one by one.
        loop {
            let program = Program::wish(&world, &json!({ "do": "refuse", "refusal": "well" }));
            let hearing = tokio::task::spawn_blocking(move || program.hear());
            tokio::pin!(hearing);
            let heard = loop {
                match tokio::time::timeout(Duration::from_millis(20), &mut hearing).await {
                    Ok(heard) => break heard.unwrap(),
                    Err(_) => time.advance(Duration::from_secs(1)),
                }
            };
            if heard == "well" {
                return;
            }
        }
    })
    .await;
    soon(engine.shutdown(Duration::ZERO)).await;
}

/// Says `bytes` with a descriptor.
fn say_with(program: &Program, bytes: &[u8], descriptor: impl AsFd) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let passed = [descriptor.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
    let sent = sendmsg(&program.0, &[IoSlice::new(bytes)], &mut control, SendFlags::empty());
    assert_eq!(sent.unwrap(), bytes.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_that_come_with_the_first_message_are_closed() {
    let world = World::new();
    let engine = start(&world, Where::Here).await;
    let mut events = engine.subscribe();
    // With its length, with its middle, with all of it.
    for (id, cut) in [("length", 0..4), ("middle", 10..20), ("all", 0..usize::MAX)] {
        engine.backup(&item("1")).id(id).submit().await.unwrap();
        let attach = json!({ "do": "attach", "operation": id });
        let first = Program::wish(&world, &attach);
        until(&mut events, |event| has_progressed(event, id)).await;
        let whole = framed(attach.to_string().as_bytes());
        let (from, to) = (cut.start, cut.end.min(whole.len()));
        let mut program = Program::silent(&world, "door");
        let (mut reader, writer) = std::io::pipe().unwrap();
        program.say(&whole[..from]);
        say_with(&program, &whole[from..to], &writer);
        program.say(&whole[to..]);
        drop(writer);
        // Whoever had the other end would keep this waiting. The call itself waits as ever.
        let mut nothing = Vec::new();
        let read = tokio::task::spawn_blocking(move || reader.read_to_end(&mut nothing));
        assert_eq!(soon(read).await.unwrap().unwrap(), 0);
        first.done();
        assert_eq!(first.hear(), "saved 0\n");
        assert_eq!(program.hear(), "");
        ended(&engine.operation(&operation(id)).await.unwrap()).await.unwrap();
    }
    soon(engine.shutdown(Duration::from_secs(30))).await;
}
