//! The same plugins on hosts with different executors.
#![cfg(all(feature = "host", feature = "tokio", target_os = "linux"))]

mod common;
#[path = "fixtures/on_tokio.rs"]
mod on_tokio;

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use common::{Scratch, Services, ask, built, loaded, trusted, until_called};
use plugin_sdk::host::{Library, PluginInstance, Task};

/// An executor that was written for this test: one future, one thread, nothing of anybody's.
#[derive(Default)]
struct Hand {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Hand {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().expect("no panic under the lock") = true;
        self.changed.notify_one();
    }
}

fn by_hand<F: Future>(future: F) -> F::Output {
    let hand = Arc::new(Hand::default());
    let waker = Waker::from(hand.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let woken = hand.woken.lock().expect("no panic under the lock");
        *hand.changed.wait_while(woken, |woken| !*woken).expect("no panic under the lock") = false;
    }
}

fn by_tokio<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(future)
}

fn plugins() -> [(&'static str, PluginInstance); 2] {
    [("linked", Library::linked::<on_tokio::OnTokio>()), ("loaded", loaded("abi_tokio"))]
        .map(|(how, library)| (how, library.init("").expect("an instance")))
}

fn reply(
    task: Task,
    run: fn(Task) -> Result<plugin_sdk::abi::Reply, plugin_sdk::abi::TaskFault>,
) -> String {
    let reply = run(task).expect("a reply").result;
    let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
    reply.map_or_else(|error| format!("-{}", text(error)), |body| format!("+{}", text(body)))
}

#[test]
fn timers_sockets_and_blocking_tasks_of_a_plugin_work_under_any_executor() {
    let hosts = [
        ("futures", futures::executor::block_on as fn(Task) -> _),
        ("tokio, one thread", by_tokio),
        ("by hand", by_hand),
    ];
    for (how, plugin) in plugins() {
        for (host, run) in hosts {
            for place in ["on", "within"] {
                for (verb, expected) in
                    [("timer", "+ticked"), ("sockets", "+hello"), ("spawn blocking", "+blocked")]
                {
                    let task = plugin.start(format!("{place} {verb}"), Services::new());
                    assert_eq!(reply(task, run), expected, "{verb}, {place}, {host}, {how}");
                }
            }
        }
    }
}

#[test]
fn what_needs_the_runtime_to_be_dropped_has_it() {
    for (how, plugin) in plugins() {
        for (place, dropped) in [("on", 1), ("within", 2)] {
            let host = Services::new();
            let mut task = plugin.start(format!("{place} hold"), host.clone());
            until_called(&host, &mut task);
            drop(task);
            let begun = std::time::Instant::now();
            while ask(&plugin, "on drops") != format!("+{dropped}") {
                assert!(begun.elapsed().as_secs() < 60, "{place}, {how}");
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn the_last_instance_goes_on_a_thread_of_a_runtime_without_waiting() {
    for (_, plugin) in plugins() {
        by_tokio(async move {
            let host = Services::new();
            let task = plugin.start("on hold", host);
            drop(plugin);
            drop(task);
        });
    }
}

#[test]
fn a_step_that_blocks_its_thread_keeps_no_other_plugin_from_working_on_a_host_of_one_thread() {
    let dir = Scratch::new("one-thread");
    let bytes = std::fs::read(built("abi_fixture")).expect("the fixture is readable");
    let other = Library::load(&dir.file("libother.so", &bytes), &trusted()).expect("it loads");
    let [blocks, works] =
        [loaded("abi_fixture"), other].map(|library| library.init("").expect("an instance"));
    by_tokio(async {
        let host = Services::new();
        let mut blocked = plugin_task(&blocks, &host);
        until_called(&host, &mut blocked);
        // The thread of the first one is blocked until it is told, and it is told only now.
        for _ in 0..10 {
            let reply = works.start("echo:meanwhile", Services::new()).await.expect("a reply");
            assert_eq!(reply.result, Ok("meanwhile".into()));
        }
        blocked.cancel();
        assert_eq!(blocked.await.expect("a reply").result, Ok("Ok(())".into()));
    });
}

fn plugin_task(plugin: &PluginInstance, host: &Arc<Services>) -> Task {
    plugin.start("block until cancelled", host.clone())
}
