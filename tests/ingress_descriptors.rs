//! A call that a step has taken leaves no descriptor in the host.
//!
//! The test counts this program's descriptors, so it is alone in its program.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "support/called.rs"]
mod called;
#[path = "support/caller.rs"]
mod caller;
mod support;

use std::{fs, time::Duration};

use mercury::Phase;
use serde_json::json;

use caller::{BOTH, Program, Where, called, gate, start};
use support::{World, ended, has_progressed, plugin_processes, soon, until};

/// The descriptors of this process that are sockets of the kind that callers use.
fn sockets() -> usize {
    let sockets = fs::read_dir("/proc/self/fd").unwrap().filter(|entry| {
        // One of them is the directory's own, and is gone by now.
        let target = entry.as_ref().map(|entry| fs::read_link(entry.path()));
        matches!(target, Ok(Ok(target)) if target.to_string_lossy().starts_with("socket:"))
    });
    sockets.count()
}

/// Waits until as many are left.
async fn settles(expected: usize) {
    soon(async {
        while sockets() != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_a_step_has_taken_leaves_no_descriptor_in_the_host() {
    for place in BOTH {
        let world = World::new();
        let engine = start(&world, place).await;
        let mut events = engine.subscribe();
        let before = sockets();
        let wish = json!({ "do": "other", "item": "lingers" });
        let mut program = Program::wish(&world, &wish);
        let other = called(&engine, &mut events).await;
        until(&mut events, |event| has_progressed(event, other.id().as_str())).await;
        // The program's end, and the step's, which is in another process if that has one of its
        // own: that process is at the end of one more.
        settles(before + 2).await;
        program.say(b"hello");
        program.done();
        // The step has hung up, and goes on: nobody else had the connection.
        assert_eq!(program.hear(), "HELLO");
        assert_eq!(other.status().await.unwrap().phase, Phase::Running);
        settles(before + usize::from(place == Where::Apart)).await;
        fs::write(gate(&world), "").unwrap();
        ended(&other).await.unwrap();
        settles(before).await;
        soon(engine.shutdown(Duration::from_secs(30))).await;
        drop(engine);
        soon(async {
            while !plugin_processes().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}
