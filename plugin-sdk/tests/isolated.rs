//! A plugin in a process of its own does what it does here; and whatever it does to its process,
//! nothing happens to this one.
#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{CutsShort, Services, Wrong, built, trusted};
use futures::executor::block_on;
use plugin_sdk::abi::{BoxFuture, Crash, Reply, SinkHandle, TaskFault};
use plugin_sdk::host::{
    BufferPool, ChannelSink, ChunkReceiver, HostCalls, Image, InitError, Library, LoadError,
    LoadErrorKind, PluginInstance, Process, Runner,
};

/// Not a wait: how long anything may take before the test is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// One test at a time: they count what this process has open.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let rest = |held: Holdings| held.children.is_empty() && held.attendants == 0;
    until("an earlier test has left a process", || rest(holdings()));
    alone
}

fn process() -> Process {
    Process::new().runner(Runner::at(env!("CARGO_BIN_EXE_plugin-runner")))
}

fn isolated(name: &str) -> PluginInstance {
    isolated_with(name, process())
}

fn isolated_with(name: &str, process: Process) -> PluginInstance {
    library(name, process).expect("it is a plugin").init("{}").expect("an instance")
}

fn library(name: &str, process: Process) -> Result<Library, LoadError> {
    Library::isolated(Image::open(&built(name), &trusted()).expect("a file"), process)
}

#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

fn fault_with(plugin: &PluginInstance, request: &str, host: Arc<Services>) -> TaskFault {
    match block_on(plugin.start(request.to_owned(), host)) {
        Err(fault) => fault,
        Ok(reply) => panic!("{request} was answered: {reply:?}"),
    }
}

fn fault(plugin: &PluginInstance, request: &str) -> TaskFault {
    fault_with(plugin, request, Services::new())
}

#[track_caller]
fn crashed(plugin: &PluginInstance, request: &str) -> Crash {
    crashed_with(plugin, request, Services::new())
}

#[track_caller]
fn crashed_with(plugin: &PluginInstance, request: &str, host: Arc<Services>) -> Crash {
    match fault_with(plugin, request, host) {
        TaskFault::Crashed(crash) => crash,
        other => panic!("{request}: {other:?}"),
    }
}

fn channel() -> (BufferPool, SinkHandle, ChunkReceiver) {
    let pool = BufferPool::new(3, 1 << 20);
    let (sink, receiver) = ChannelSink::new(pool.clone());
    (pool, SinkHandle::serve(sink), receiver)
}

/// What this process has open, and which children.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    children: BTreeSet<String>,
    /// The threads that attend to children.
    attendants: usize,
}

fn holdings() -> Holdings {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("a list").count();
    let (mut children, mut attendants) = (BTreeSet::new(), 0);
    for task in std::fs::read_dir("/proc/self/task").expect("a list").flatten() {
        // A thread may end meanwhile.
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(text.split_whitespace().map(ToOwned::to_owned));
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        attendants += usize::from(name == "plugin-process\n");
    }
    Holdings { descriptors, children, attendants }
}

#[track_caller]
fn back_to(before: &Holdings) {
    let begun = Instant::now();
    while holdings() != *before {
        assert!(begun.elapsed() < PATIENCE, "before: {before:?}, now: {:?}", holdings());
        std::thread::yield_now();
    }
}

#[test]
fn requests_are_answered_from_another_process() {
    let _alone = alone();
    let before = holdings();
    let library = library("abi_fixture", process()).expect("a plugin");
    assert_eq!(library.manifest().expect("a manifest"), r#"{"workload":"fixture"}"#);
    let plugin = library.init("{}").expect("an instance");
    assert_eq!(common::ask(&plugin, "echo:hello"), "+hello");
    assert_eq!(common::ask(&plugin, "refuse:no"), "-no");
    assert_eq!(common::ask(&plugin, "call:anything"), "+from the plugin");
    assert_eq!(common::ask(&plugin, "call:refuse"), "-not allowed");
    assert_eq!(common::ask(&plugin, "call:panic"), "-Panicked(\"the host's bug\")");
    assert_eq!(common::ask(&plugin, "read"), "+23456789");
    assert_eq!(common::ask(&plugin, "polls"), "+1");
    drop((plugin, library));
    back_to(&before);
}

#[test]
fn what_a_child_is_started_with_is_what_it_needs() {
    let _alone = alone();
    // A descriptor that some library in this program forgot to mark.
    let careless = rustix::io::dup(std::io::stderr()).expect("a descriptor");
    let plugin = isolated_with("zoo", process().memory_bytes(1 << 30).files(64));
    let open = common::ask(&plugin, "descriptors");
    let kinds: Vec<_> =
        open[1..].lines().map(|link| link.split(':').next().unwrap_or(link)).collect();
    assert_eq!(kinds, ["/dev/null", "/memfd", "pipe", "pipe", "socket"], "{open}");
    drop(careless);
    let limits = common::ask(&plugin, "limits");
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.contains(name)).unwrap_or_default();
        line.split_whitespace().rev().nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(limit("Max address space"), (1_u64 << 30).to_string());
    assert_eq!(limit("Max open files"), "64");
    assert_eq!(limit("Max core file size"), "0");
    let environment = common::ask(&plugin, "environment");
    assert!(!environment.contains("CARGO"), "{environment}");
    assert_eq!(common::ask(&plugin, "read stdin"), "+Ok(0)");
}

#[test]
fn a_child_of_another_user_has_nothing_of_this_ones() {
    let _alone = alone();
    const NOBODY: u32 = 65_534;
    let process = process().user(NOBODY, NOBODY);
    if !rustix::process::geteuid().is_root() {
        let error = library("zoo", process).expect_err("who is not root cannot change users");
        assert_eq!(error.kind(), LoadErrorKind::Runner, "{error}");
        return;
    }
    let before = holdings();
    let plugin = isolated_with("zoo", process);
    let status = common::ask(&plugin, "status");
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.trim_start_matches('+').strip_prefix(name));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("Uid:"), "65534 65534 65534 65534");
    assert_eq!(line("Gid:"), "65534 65534 65534 65534");
    assert_eq!(line("Groups:"), "");
    assert_eq!(line("CapEff:"), "0000000000000000");
    // Memory that both see is shared with it nevertheless.
    let (_, sink, mut receiver) = channel();
    let task = plugin.start("send:9", Services::with_sink(sink));
    for number in 0..9 {
        assert_eq!(block_on(receiver.recv()).expect("a chunk")[0], number);
    }
    assert!(block_on(receiver.recv()).is_none() && receiver.is_finished());
    receiver.complete(Ok(Bytes::from_static(b"receipt")));
    assert_eq!(block_on(task).expect("a reply").result, Ok("receipt".into()));
    drop(plugin);
    back_to(&before);
}

#[test]
fn a_stream_arrives_whole_in_lent_buffers() {
    let _alone = alone();
    let before = holdings();
    let plugin = isolated("abi_fixture");
    let (pool, sink, mut receiver) = channel();
    let task = plugin.start("send lent", Services::with_sink(sink));
    let reads = std::thread::spawn(move || {
        let mut read = 0_u8;
        while let Some(chunk) = block_on(receiver.recv()) {
            read += 1;
            assert_eq!(chunk, vec![read; 1000]);
        }
        assert!(receiver.is_finished());
        let stats = receiver.stats();
        assert_eq!((stats.lent, stats.foreign, stats.bytes), (4, 0, 4000));
        receiver.complete(Ok(Bytes::from_static(b"receipt")));
        read
    });
    let reply = block_on(task).expect("a reply").result.expect("no error");
    assert_eq!(reads.join().expect("the receiver ends"), 4);
    assert!(reply.ends_with(b" receipt"), "{reply:?}");
    assert_eq!(pool.stats().lent, 0);
    drop(plugin);
    back_to(&before);
}

#[test]
fn a_sink_that_is_closed_is_closed_over_there_too() {
    let _alone = alone();
    let plugin = isolated("abi_fixture");
    let (_, sink, mut receiver) = channel();
    let task = plugin.start("send foreign", Services::with_sink(sink));
    let reads = std::thread::spawn(move || {
        for _ in 0..5 {
            let chunk = block_on(receiver.recv()).expect("a chunk");
            assert_eq!(chunk, vec![7; 1000]);
        }
        assert_eq!(receiver.stats().lent, 0, "what the plugin had elsewhere is not lent");
    });
    reads.join().expect("the receiver ends");
    let reply = block_on(task).expect("a reply").result.expect("it noticed");
    let accepted = String::from_utf8_lossy(&reply).split(' ').next().and_then(|n| n.parse().ok());
    assert!(accepted.is_some_and(|accepted: u32| accepted >= 5), "{reply:?}");
}

#[test]
fn a_stream_that_its_host_closes_before_its_end_has_no_receipt() {
    let _alone = alone();
    let plugin = isolated("zoo");
    let ask = |wrong| {
        // All of it is on its way before the host has looked at the second chunk.
        common::ask_with(&plugin, "send:3", Services::with_sink(CutsShort::sink(wrong)))
    };
    assert_eq!(ask(Wrong::Panics), "-Fault(Panicked(\"the sink's bug\"))");
    let refused = ask(Wrong::Closes);
    let fault = plugin_sdk::message::decode_fault(&refused.as_bytes()[1..]);
    assert_eq!(fault.code(), "stream.cut_short", "{refused}");
}

#[test]
fn streams_of_two_requests_in_one_process_are_two() {
    let _alone = alone();
    let before = holdings();
    let plugin = isolated("zoo");
    // More than there are buffers, so that each waits until its own come back.
    let sends = |(_, sink, receiver): (BufferPool, SinkHandle, ChunkReceiver)| {
        (plugin.start("send:9", Services::with_sink(sink)), receiver)
    };
    let (first, mut to_first) = sends(channel());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut chunk = |receiver: &mut ChunkReceiver| {
        let mut chunk = None;
        until("a chunk comes", || match receiver.poll_recv(&mut cx) {
            std::task::Poll::Ready(came) => {
                chunk = came;
                true
            }
            std::task::Poll::Pending => false,
        });
        chunk.map(|chunk| chunk[0])
    };
    assert_eq!(chunk(&mut to_first), Some(0));
    let (second, mut to_second) = sends(channel());
    assert_eq!(chunk(&mut to_second), Some(0));
    for number in 1..9 {
        assert_eq!(chunk(&mut to_first), Some(number));
        assert_eq!(chunk(&mut to_second), Some(number));
    }
    for (task, mut receiver) in [(first, to_first), (second, to_second)] {
        assert_eq!(chunk(&mut receiver), None);
        assert!(receiver.is_finished());
        receiver.complete(Ok(Bytes::from_static(b"receipt")));
        assert_eq!(block_on(task).expect("a reply").result, Ok("receipt".into()));
    }
    drop(plugin);
    back_to(&before);
}

#[test]
fn a_chunk_is_one_chunk_where_the_host_has_a_buffer_of_its_size_and_several_where_not() {
    let _alone = alone();
    let plugin = isolated("zoo");
    for (buffer_bytes, chunks) in [(2 << 20, 2), (1 << 20, 2), (1 << 18, 8)] {
        let (sink, mut receiver) = ChannelSink::new(BufferPool::new(3, buffer_bytes));
        let task = plugin.start("send:2", Services::with_sink(SinkHandle::serve(sink)));
        let reads = std::thread::spawn(move || {
            let mut lengths = Vec::new();
            while let Some(chunk) = block_on(receiver.recv()) {
                lengths.push(chunk.len());
            }
            receiver.complete(Ok(Bytes::new()));
            lengths
        });
        block_on(task).expect("a reply").result.expect("a receipt");
        let lengths = reads.join().expect("the receiver ends");
        assert_eq!((lengths.len(), lengths.iter().sum::<usize>()), (chunks, 2 << 20));
    }
}

#[test]
fn a_descriptor_changes_hands_and_no_duplicate_is_kept() {
    let _alone = alone();
    let plugin = isolated("abi_fixture");
    let (mut near, far) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
    let host = Services::new();
    *host.connection.lock().expect("no panic under the lock") = Some(far.into());
    assert_eq!(common::ask_with(&plugin, "say hello", host), "+said");
    let mut heard = String::new();
    std::io::Read::read_to_string(&mut near, &mut heard).expect("no end is left open");
    assert_eq!(heard, "hello");
    // And back: what a reply hands over is what the host gave.
    let (near, far) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
    let host = Services::new();
    *host.connection.lock().expect("no panic under the lock") = Some(far.into());
    let reply = block_on(plugin.start("call:connection", host)).expect("a reply");
    assert!(reply.object.is_some());
    drop(reply);
    let mut end = Vec::new();
    std::io::Read::read_to_end(&mut &near, &mut end).expect("no end is left open");
}

#[test]
fn cancel_abandonment_and_panics_are_as_in_one_process() {
    let _alone = alone();
    let before = holdings();
    let plugin = isolated("abi_fixture");
    let start = |request: &'static str| plugin.start(request, Services::new());
    let task = start("until cancelled");
    task.cancel();
    task.cancel();
    assert_eq!(block_on(task).expect("a reply").result, Err("cancelled".into()));
    let task = start("until cancelled");
    let canceller = task.canceller();
    let awaited = std::thread::spawn(move || block_on(task));
    canceller.cancel();
    let reply = awaited.join().expect("the thread ends").expect("a reply");
    assert_eq!(reply.result, Err("cancelled".into()));
    common::until(&plugin, "drops", "+2");

    let host = Services::new();
    let mut task = plugin.start("block until cancelled", host.clone());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    until("the job begins", || {
        assert!(std::pin::Pin::new(&mut task).poll(&mut cx).is_pending());
        !host.calls.lock().expect("no panic under the lock").is_empty()
    });
    drop(task);
    common::until(&plugin, "drops", "+3");
    assert_eq!(*host.calls.lock().expect("no panic under the lock"), ["blocking"]);
    // The plugin has let go of its host, and so has this side.
    until("the host is kept", || Arc::strong_count(&host) == 1);

    for (request, text) in [
        ("panic", "bug at row 7"),
        ("panic inline", "bug at row 7"),
        ("panic in start", "before there is a job"),
        ("panic badly", "a panic whose payload is not text"),
    ] {
        assert_eq!(fault(&plugin, request), TaskFault::Panicked(text.to_owned()), "{request}");
    }
    let task = start("until cancelled");
    drop(plugin);
    task.cancel();
    assert_eq!(block_on(task).expect("a reply").result, Err("cancelled".into()));
    back_to(&before);
}

#[test]
fn whatever_ends_the_child_is_a_typed_fault_and_the_next_request_has_a_new_one() {
    let _alone = alone();
    let before = holdings();
    let plugin = isolated_with("zoo", process().memory_bytes(1 << 30));
    let first = common::ask(&plugin, "pid");
    for (request, crash) in [
        ("segfault", Crash::Signal(11)),
        ("abort", Crash::Signal(6)),
        ("overflow", Crash::Signal(11)),
        ("allocate", Crash::Signal(6)),
        ("panic in drop", Crash::Signal(6)),
        ("exit:0", Crash::Exited(0)),
        ("exit:3", Crash::Exited(3)),
        ("segfault inline", Crash::Signal(11)),
        ("fork and exit", Crash::Exited(3)),
    ] {
        assert_eq!(crashed(&plugin, request), crash, "{request}");
        assert_eq!(common::ask(&plugin, "echo:alive"), "+alive", "after {request}");
    }
    assert_ne!(common::ask(&plugin, "pid"), first);
    assert_eq!(fault(&plugin, "panic"), TaskFault::Panicked("as asked".to_owned()));
    drop(plugin);
    back_to(&before);
}

#[test]
fn a_kill_from_outside_ends_every_request_and_the_streams_with_them() {
    let _alone = alone();
    let before = holdings();
    let plugin = isolated("zoo");
    let pid: i32 = common::ask(&plugin, "pid")[1..].parse().expect("a number");
    let hosts = [Services::new(), Services::new()];
    let tasks = hosts.clone().map(|host| plugin.start("deaf", host));
    let kill = std::thread::spawn(move || {
        until("both have begun", || {
            hosts.iter().all(|host| !host.calls.lock().expect("no panic").is_empty())
        });
        let pid = rustix::process::Pid::from_raw(pid).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is there");
    });
    for answer in block_on(futures::future::join_all(tasks)) {
        assert_eq!(answer.expect_err("it is dead"), TaskFault::Crashed(Crash::Signal(9)));
    }
    kill.join().expect("the thread ends");
    drop(plugin);
    back_to(&before);
}

#[test]
fn what_does_not_stop_is_asked_given_time_and_killed() {
    let _alone = alone();
    let before = holdings();
    let moment = Duration::from_millis(50);
    let plugin = isolated_with("zoo", process().cancel_grace(moment).abandon_grace(moment));
    let ended = |request: &'static str| {
        let task = plugin.start(request, Services::new());
        task.cancel();
        block_on(task).expect_err("it is killed")
    };
    for request in ["deaf", "hang", "hang inline", "hang in start", "change sides"] {
        assert_eq!(ended(request), TaskFault::Crashed(Crash::TimedOut), "{request}");
    }
    // Without a connection to listen to, the process may end by itself before it is killed.
    let TaskFault::Crashed(crash) = ended("close everything") else { panic!("it crashes") };
    assert!(matches!(crash, Crash::TimedOut | Crash::Exited(70)), "{crash:?}");
    // Abandoned: nobody hears of it, and the child is gone all the same.
    let host = Services::new();
    let pid = common::ask(&plugin, "pid");
    let mut task = plugin.start("deaf", host.clone());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    until("the job is deaf", || {
        assert!(std::pin::Pin::new(&mut task).poll(&mut cx).is_pending());
        host.calls.lock().expect("no panic under the lock").len() == 2
    });
    drop(task);
    until("the host is kept", || Arc::strong_count(&host) == 1);
    assert_ne!(common::ask(&plugin, "pid"), pid);
    drop(plugin);
    back_to(&before);
}

#[test]
fn a_plugin_that_cannot_begin_is_said_so() {
    let _alone = alone();
    let before = holdings();
    let moment = Duration::from_millis(500);
    let zoo = || {
        let process = process().start_grace(moment);
        library("zoo", process).expect("a plugin")
    };
    let crash = |config: &'static str| zoo().init(config).expect_err("no instance");
    assert_eq!(crash("segfault"), InitError::Crashed(Crash::Signal(11)));
    assert_eq!(crash("hang"), InitError::Crashed(Crash::TimedOut));
    let fixture = library("abi_fixture", process()).expect("a plugin");
    let refused = |config: &'static str| fixture.init(config).expect_err("no instance");
    assert_eq!(refused("refuse"), InitError::Refused(r#"{"code":"no"}"#.into()));
    assert_eq!(refused("panic"), InitError::Panicked("no instance today".to_owned()));

    let without = Process::new().runner(Runner::at("/nowhere/plugin-runner"));
    let missing = library("zoo", without).expect_err("no runner");
    assert_eq!(missing.kind(), LoadErrorKind::Runner);
    assert!(missing.to_string().contains("/nowhere/plugin-runner"), "{missing}");
    let missing = library("zoo", Process::new());
    let missing = missing.expect_err("this program is no runner").to_string();
    for advice in ["serve_if_asked()", "`plugin-runner`", "into this process"] {
        assert!(missing.contains(advice), "{missing}");
    }
    drop(fixture);
    let other = Process::new().runner(Runner::at("/bin/true"));
    let other = library("zoo", other).expect("a program");
    let error = other.manifest().expect_err("it is no runner");
    assert_eq!(error.kind(), LoadErrorKind::Crashed, "{error}");
    drop(other);
    let changed = library("abi_changed", process());
    let error = changed.expect("a plugin to look at").manifest().expect_err("another layout");
    assert_eq!(error.kind(), LoadErrorKind::Layout, "{error}");
    back_to(&before);
}

#[test]
fn a_process_of_its_own_begins_with_a_request_and_ends_with_its_handle() {
    let _alone = alone();
    let before = holdings();
    let plugin = isolated("zoo");
    let shared = common::ask(&plugin, "pid");
    let run = plugin.apart();
    let pid = common::ask(&run, "pid");
    assert_ne!(pid, shared);
    assert_eq!(common::ask(&run.clone(), "pid"), pid);
    let exists = |pid: &str| std::path::Path::new(&format!("/proc/{}", &pid[1..])).exists();
    assert!(exists(&pid));
    drop(run);
    until("it ends", || !exists(&pid));
    assert_eq!(common::ask(&plugin, "pid"), shared, "the other is still there");
    drop(plugin);
    back_to(&before);

    let plugin = isolated_with("zoo", process().idle(Duration::from_millis(1)));
    until("an idle process ends", || holdings().children == before.children);
    assert_eq!(common::ask(&plugin, "echo:a new one"), "+a new one");
    drop(plugin);
    back_to(&before);
}

#[test]
fn a_run_whose_processes_keep_dying_is_given_up() {
    let _alone = alone();
    let plugin = isolated_with("zoo", process().crashes(3));
    let run = plugin.apart();
    for _ in 0..2 {
        assert_eq!(crashed(&run, "abort"), Crash::Signal(6));
    }
    assert_eq!(common::ask(&run, "echo:an answer in between"), "+an answer in between");
    for _ in 0..3 {
        assert_eq!(crashed(&run, "segfault"), Crash::Signal(11));
    }
    let given_up = Crash::GivenUp { crashes: 3, last: Box::new(Crash::Signal(11)) };
    assert_eq!(crashed(&run, "echo:too late"), given_up);
    assert_eq!(common::ask(&plugin.apart(), "echo:another run"), "+another run");
}

#[test]
fn a_flood_of_lines_records_and_calls_is_survived() {
    let _alone = alone();
    let before = holdings();
    let plugin = isolated("zoo");
    assert_eq!(common::ask(&plugin, "flood"), "+flooded");
    let host = Services::new();
    assert_eq!(common::ask_with(&plugin, "progress:20000", host.clone()), "+noted");
    let notes = host.calls.lock().expect("no panic under the lock").len();
    assert_eq!(notes, 20_000, "what was asked took effect although nobody waited");
    drop((plugin, host));
    back_to(&before);
}

/// A host whose answers are long.
struct Wordy;

impl HostCalls for Wordy {
    fn call(&self, _: &str, _: Bytes) -> BoxFuture<Reply> {
        Box::pin(std::future::ready(Reply::ok(vec![0; 1 << 20])))
    }
}

#[test]
fn answers_that_are_ready_at_once_are_more_than_may_wait_for_a_child() {
    let _alone = alone();
    let plugin = isolated("zoo");
    let answered = common::ask_with(&plugin, "ask at once:200", Arc::new(Wordy));
    assert_eq!(answered, format!("+{}", 200_u64 << 20));
}

#[test]
fn who_asks_for_much_and_reads_nothing_is_answered_little() {
    let _alone = alone();
    let process = hostile_process("short questions whose answers it does not read");
    let process = process.cancel_grace(Duration::from_millis(50));
    let plugin = library("zoo", process).expect("a plugin").init("").expect("an instance");
    let host = Arc::new(Counts::default());
    let task = plugin.start("anything", host.clone());
    until("it asks", || host.asked.load(Ordering::Relaxed) == 1000);
    task.cancel();
    assert_eq!(block_on(task).expect_err("it is killed"), TaskFault::Crashed(Crash::TimedOut));
    let answered = host.answered.load(Ordering::Relaxed);
    assert!((1..=6).contains(&answered), "{answered} answers of a mebibyte waited for it");
}

/// A host that counts the long answers that somebody waited for.
#[derive(Default)]
struct Counts {
    asked: AtomicUsize,
    answered: Arc<AtomicUsize>,
}

impl HostCalls for Counts {
    fn call(&self, _: &str, _: Bytes) -> BoxFuture<Reply> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answered = self.answered.clone();
        Box::pin(async move {
            answered.fetch_add(1, Ordering::Relaxed);
            Reply::ok(vec![0; 1 << 20])
        })
    }
}

#[test]
fn nothing_that_a_plugin_forks_outlives_its_process() {
    let _alone = alone();
    let plugin = isolated("zoo");
    let pid = common::ask(&plugin, "fork");
    let in_group = || {
        let group = rustix::process::Pid::from_raw(pid[1..].parse().expect("a number"));
        rustix::process::test_kill_process_group(group.expect("a process")).is_ok()
    };
    assert!(in_group());
    drop(plugin);
    until("the group ends", || !in_group());
}

/// This test's own program, as the agent that is killed.
#[test]
fn a_child_does_not_outlive_an_agent_that_is_killed() {
    const ROLE: &str = "MERCURY_TEST_IS_KILLED";
    let _alone = alone();
    if std::env::var_os(ROLE).is_some() {
        let plugin = isolated("zoo");
        println!("pid {}", &common::ask(&plugin, "pid")[1..]);
        let _ = block_on(plugin.start("deaf", Services::new()));
        return;
    }
    let test = "a_child_does_not_outlive_an_agent_that_is_killed";
    let mut agent = std::process::Command::new(std::env::current_exe().expect("a program"))
        .args([test, "--exact", "--nocapture"])
        .env(ROLE, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("this program again");
    let output = std::io::BufReader::new(agent.stdout.take().expect("its output"));
    let pid = std::io::BufRead::lines(output)
        .map(|line| line.expect("text"))
        .find_map(|line| line.strip_prefix("pid ").map(ToOwned::to_owned))
        .expect("it has a child");
    // A dead process that nobody has reaped yet is dead.
    let lives = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        status.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
    };
    assert!(lives());
    agent.kill().expect("it is there");
    agent.wait().expect("it is ours");
    until("the child lives on", || !lives());
}

/// A runner that breaks the protocol in the way that `how` says.
fn hostile_process(how: &str) -> Process {
    // The program knows by its own name what to do.
    let program = built("zoo").with_file_name("hostile_runner");
    let links = program.with_file_name("hostile");
    std::fs::create_dir_all(&links).expect("a directory");
    let link = links.join(how);
    let _ = std::fs::remove_file(&link);
    std::fs::hard_link(&program, &link).expect("a link");
    Process::new().runner(Runner::at(link))
}

/// What comes of it.
fn hostile(how: &'static str) -> Crash {
    let plugin = match library("zoo", hostile_process(how)).expect("a plugin").init("") {
        Ok(plugin) => plugin,
        Err(InitError::Crashed(crash)) => return crash,
        Err(other) => panic!("{how}: {other:?}"),
    };
    let (_, sink, _receiver) = channel();
    crashed_with(&plugin, "anything", Services::with_sink(sink))
}

#[test]
fn a_child_that_breaks_the_protocol_is_killed_and_nothing_else_happens() {
    let _alone = alone();
    let before = holdings();
    for how in [
        "four gibibytes",
        "a head longer than its frame",
        "an unknown message",
        "no message",
        "a descriptor that does not come",
        "a request that there never was",
        "a slot past the end",
        "a slot that jumps",
        "a chunk longer than its slot",
        "a chunk of nothing",
        "more slots than there are",
        "fewer slots than none",
        "somebody else's stream",
        "a source that it was not given",
        "two calls of one number",
        "more calls than are answered",
        "questions whose answers it does not read",
        "long questions that are not answered",
    ] {
        let crash = hostile(how);
        assert!(matches!(crash, Crash::Protocol(_)), "{how}: {crash:?}");
        back_to(&before);
    }
    assert_eq!(hostile("silence"), Crash::TimedOut);
    back_to(&before);
    let peak = std::fs::read_to_string("/proc/self/status").expect("this process");
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let peak_kib: u64 = peak.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    assert!((1..400 << 10).contains(&peak_kib), "it took {peak_kib} KiB");
}

#[test]
fn a_child_that_sends_without_end_keeps_nobody_from_looking_at_the_clock() {
    let _alone = alone();
    let before = holdings();
    let process = hostile_process("slots without end, and no clock is looked at");
    let process = process.cancel_grace(Duration::from_millis(50));
    let plugin = library("zoo", process).expect("a plugin").init("").expect("an instance");
    let (_, sink, mut receiver) = channel();
    let task = plugin.start("anything", Services::with_sink(sink));
    let reads = std::thread::spawn(move || {
        // It sends on for as long as it lives.
        let mut read = 0_u64;
        while block_on(receiver.recv()).is_some() {
            read += 1;
            if read == 20 {
                task.cancel();
            }
        }
        block_on(task)
    });
    let fault = reads.join().expect("the receiver ends").expect_err("it is killed");
    assert_eq!(fault, TaskFault::Crashed(Crash::TimedOut));
    drop(plugin);
    back_to(&before);
}
