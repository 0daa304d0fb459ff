//! The life of a request: polled, cancelled, dropped, panicking.
#![cfg(all(feature = "host", target_os = "linux"))]

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use bytes::Bytes;
use common::{Services, ask, both, until, until_called};
use futures::executor::block_on;
use plugin_sdk::abi::{BoxFuture, Call, Cancellation, Entry, Instance, Place, Reply, TaskFault};
use plugin_sdk::host::{Library, PluginInstance, Task};

fn start(plugin: &PluginInstance, request: &'static str) -> Task {
    plugin.start(request, Services::new())
}

#[derive(Default)]
struct Count(AtomicUsize);
impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[track_caller]
fn panics(plugin: &PluginInstance, request: &'static str, text: &str) {
    let fault = block_on(start(plugin, request)).expect_err("a panic");
    assert_eq!(fault, TaskFault::Panicked(text.to_owned()), "{request}");
}

#[test]
fn a_panic_ends_its_request_and_nothing_else() {
    for (_, plugin) in both() {
        panics(&plugin, "panic", "bug at row 7");
        panics(&plugin, "panic inline", "bug at row 7");
        panics(&plugin, "panic in start", "before there is a job");
        panics(&plugin, "panic badly", "a panic whose payload is not text");
        drop(start(&plugin, "panic in drop"));
        assert_eq!(ask(&plugin, "echo:still here"), "+still here");
    }
}

#[test]
fn a_panic_of_the_host_is_the_plugins_to_handle() {
    for (_, plugin) in both() {
        assert_eq!(ask(&plugin, "call:panic"), "-Panicked(\"the host's bug\")");
    }
}

#[test]
fn cancelling_before_the_first_poll_between_polls_twice_and_after_the_end() {
    for (_, plugin) in both() {
        let task = start(&plugin, "until cancelled");
        task.cancel();
        task.cancel();
        assert_eq!(block_on(task).expect("a reply").result, Err("cancelled".into()));

        let mut task = pin!(start(&plugin, "until cancelled"));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(task.as_mut().poll(&mut cx).is_pending());
        task.cancel();
        assert_eq!(block_on(&mut task).expect("a reply").result, Err("cancelled".into()));
        task.cancel();
        assert_eq!(block_on(task).expect_err("it has ended"), TaskFault::Finished);

        assert_eq!(ask(&plugin, "drops"), "+2", "what the jobs held is gone");
    }
}

#[test]
fn a_task_is_cancelled_from_elsewhere_while_it_is_awaited() {
    for (_, plugin) in both() {
        let task = start(&plugin, "until cancelled");
        let canceller = task.canceller();
        let awaited = std::thread::spawn(move || block_on(task));
        canceller.cancel();
        let reply = awaited.join().expect("the thread ends").expect("a reply");
        assert_eq!(reply.result, Err("cancelled".into()));
        canceller.cancel();
    }
}

#[test]
fn dropping_without_cancel_drops_what_the_job_holds() {
    for (_, plugin) in both() {
        // Perhaps before the job has begun, and then it holds nothing.
        drop(start(&plugin, "hold"));
        let before: usize = ask(&plugin, "drops")[1..].parse().expect("a number");

        let host = Services::new();
        let mut task = plugin.start("hold", host.clone());
        until_called(&host, &mut task);
        drop(task);
        let dropped = || ask(&plugin, "drops")[1..].parse::<usize>().expect("a number");
        while dropped() <= before {
            std::thread::yield_now();
        }
    }
}

#[test]
fn an_abandoned_job_that_blocks_is_told_and_its_calls_are_refused() {
    for (_, plugin) in both() {
        let host = Services::new();
        let mut task = plugin.start("block until cancelled", host.clone());
        // A job that is dropped before it began would hold nothing, and could not be told.
        until_called(&host, &mut task);
        drop(task);
        until(&plugin, "drops", "+1");
        assert_eq!(*host.calls.lock().expect("no panic under the lock"), ["blocking"]);
    }
}

#[test]
fn a_job_that_blocks_its_thread_does_not_block_another() {
    for (_, plugin) in both() {
        let task = start(&plugin, "block until cancelled");
        assert_eq!(ask(&plugin, "echo:meanwhile"), "+meanwhile");
        task.cancel();
        assert_eq!(block_on(task).expect("a reply").result, Ok("Ok(())".into()));
    }
}

#[cfg_attr(miri, ignore = "Miri gives one table of a waker several addresses")]
#[test]
fn a_hundred_polls_clone_the_waker_once() {
    for (_, plugin) in both() {
        assert_eq!(ask(&plugin, "polls"), "+1");
    }
}

#[test]
fn a_waker_is_woken_after_its_task_is_gone_from_another_thread() {
    for (_, plugin) in both() {
        let count = Arc::new(Count::default());
        let mut task = Box::pin(start(&plugin, "keep the waker"));
        let waker = Waker::from(count.clone());
        assert!(task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(task);
        drop(waker);
        assert_eq!(ask(&plugin, "wake it"), "+woken");
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        assert_eq!(Arc::strong_count(&count), 1, "no reference leaks");
    }
}

#[test]
fn an_instance_outlives_its_handles_while_a_request_is_under_way() {
    for (_, plugin) in both() {
        let task = start(&plugin, "until cancelled");
        drop(plugin);
        task.cancel();
        assert_eq!(block_on(task).expect("a reply").result, Err("cancelled".into()));
    }
}

/// Answers no request, and shows its token to whoever asks.
struct Inline;

static TOKEN: Mutex<Option<Cancellation>> = Mutex::new(None);

impl Entry for Inline {
    fn manifest() -> Vec<u8> {
        Vec::new()
    }
    fn init(_: Bytes) -> Result<Box<dyn Instance>, Vec<u8>> {
        Ok(Box::new(Self))
    }
}

impl Instance for Inline {
    fn start(&self, call: Call) -> BoxFuture<Reply> {
        *TOKEN.lock().expect("no panic under the lock") = Some(call.cancel);
        Box::pin(std::future::pending())
    }
    fn place(&self, _: &Bytes) -> Place {
        Place::Inline
    }
}

#[test]
fn an_abandoned_inline_job_raises_its_token_too() {
    let plugin = Library::linked::<Inline>().init("").expect("an instance");
    let task = start(&plugin, "");
    let token = TOKEN.lock().expect("no panic under the lock").take().expect("it was started");
    assert!(!token.is_requested());
    drop(task);
    assert!(token.is_requested());
}
