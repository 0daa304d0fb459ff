//! A plugin that does what the tests of the boundary ask of it. No `unsafe` is needed.
#![forbid(unsafe_code)]

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use plugin_sdk::abi::{
    BoxFuture, Call, Entry, HostHandle, Instance, Object, Place, Reply, SinkError, SinkHandle,
};

/// The plugin.
#[derive(Debug)]
pub struct Fixture;

impl Entry for Fixture {
    fn manifest() -> Vec<u8> {
        br#"{"workload":"fixture"}"#.to_vec()
    }

    fn init(config: Bytes) -> Result<Box<dyn Instance>, Vec<u8>> {
        match &config[..] {
            b"refuse" => Err(br#"{"code":"no"}"#.to_vec()),
            b"panic" => panic!("no instance today"),
            _ => Ok(Box::new(Made::default())),
        }
    }
}

plugin_sdk::export_entry!(Fixture);

/// Calls of this library in all its instances, so that two copies can be told apart.
static STARTS: AtomicUsize = AtomicUsize::new(0);

#[derive(Clone, Default)]
struct Made {
    starts: Arc<AtomicUsize>,
    drops: Arc<AtomicUsize>,
    formats: Arc<AtomicUsize>,
    told: Arc<AtomicBool>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Instance for Made {
    fn start(&self, call: Call) -> BoxFuture<Reply> {
        STARTS.fetch_add(1, Ordering::SeqCst);
        self.starts.fetch_add(1, Ordering::SeqCst);
        if &call.request[..] == b"panic in start" {
            panic!("before there is a job");
        }
        let made = self.clone();
        Box::pin(async move { made.run(call).await })
    }

    fn place(&self, request: &Bytes) -> Place {
        match &request[..] {
            b"polls" | b"keep the waker" | b"panic inline" | b"hang inline" | b"echo inline" => {
                Place::Inline
            }
            _ => Place::Own,
        }
    }
}

impl Made {
    async fn run(self, call: Call) -> Reply {
        let request = String::from_utf8_lossy(&call.request).into_owned();
        let (verb, rest) = request.split_once(':').unwrap_or((&request, ""));
        match verb {
            "echo" | "echo inline" => Reply::ok(rest.to_owned()),
            "send untouched" => send_many(&call.host, rest, false).await,
            "send filled" => send_many(&call.host, rest, true).await,
            "refuse" => Reply::error(rest.to_owned()),
            "thread" => Reply::ok(std::thread::current().name().unwrap_or_default().to_owned()),
            "starts" => number(&self.starts),
            "starts in library" => number(&STARTS),
            "drops" => number(&self.drops),
            "panic" | "panic inline" => panic!("bug at row {}", 7),
            "panic badly" => std::panic::panic_any(DropsBadly),
            "panic in drop" => {
                let _held = DropsBadly;
                std::future::pending().await
            }
            "hold" => {
                let _held = Counted(self.drops);
                let _ = call.host.call("holding", "").await;
                std::future::pending().await
            }
            "until cancelled" => {
                let _held = Counted(self.drops);
                call.cancel.requested().await;
                Reply::error("cancelled")
            }
            "block until cancelled" => {
                let _held = Counted(self.drops);
                let _ = call.host.call("blocking", "").await;
                while !call.cancel.is_requested() {
                    std::thread::yield_now();
                }
                let late = call.host.call("late", "").await;
                Reply::ok(format!("{:?}", late.map(|_| ())))
            }
            "block until told" => {
                let _held = Counted(self.drops);
                let _ = call.host.call("blocking", "").await;
                // It is abandoned while it blocks, so this is the last call that is not refused.
                let told = call.host.call("tell", "");
                while !self.told.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                drop(told);
                let _ = call.host.call("late", "").await;
                Reply::ok("")
            }
            "tell" => {
                self.told.store(true, Ordering::SeqCst);
                Reply::ok("told")
            }
            "hang inline" => call.host.call("gate", "").await.unwrap_or_else(|_| Reply::ok("")),
            "call" => match call.host.call(rest, "from the plugin").await {
                Ok(reply) => reply,
                Err(fault) => Reply::error(format!("{fault:?}")),
            },
            "polls" => polls().await,
            "keep the waker" => {
                poll_fn(|cx| {
                    *lock(&self.waker) = Some(cx.waker().clone());
                    Poll::Pending
                })
                .await
            }
            "wake it" => match lock(&self.waker).take() {
                Some(waker) => {
                    waker.wake_by_ref();
                    let other = waker.clone();
                    drop(waker);
                    other.wake();
                    Reply::ok("woken")
                }
                None => Reply::error("no waker"),
            },
            "send lent" => send_lent(&call.host).await,
            "send foreign" => send_foreign(&call.host).await,
            "read" => read(&call.host).await,
            "say hello" => hello(&call.host).await,
            "log" => self.log(),
            other => Reply::error(format!("no such request: {other}")),
        }
    }

    fn log(&self) -> Reply {
        let span = tracing::info_span!("dump", database = "model");
        span.in_scope(|| tracing::info!(pages = 42_u64, "dumping"));
        tracing::debug!("never formatted: {}", Formats(&self.formats));
        tracing::info!("{}", "x".repeat(1 << 20));
        number(&self.formats)
    }
}

async fn polls() -> Reply {
    let mut kept: Option<Waker> = None;
    let (mut polls, mut clones) = (0, 0);
    poll_fn(|cx| {
        polls += 1;
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(cx.waker())) {
            kept = Some(cx.waker().clone());
            clones += 1;
        }
        if polls == 100 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    Reply::ok(format!("{clones}"))
}

async fn sink(host: &HostHandle) -> Result<SinkHandle, Reply> {
    match host.call("sink", "").await.map(|reply| reply.object) {
        Ok(Some(Object::Sink(sink))) => Ok(sink),
        other => Err(Reply::error(format!("no sink: {other:?}"))),
    }
}

/// Sends four chunks in the host's buffers; the reply is where they were written.
async fn send_lent(host: &HostHandle) -> Reply {
    let mut sink = match sink(host).await {
        Ok(sink) => sink,
        Err(reply) => return reply,
    };
    let mut written = Vec::new();
    for number in 1..=4_u8 {
        let mut buffer = match sink.buffer(1000).await {
            Ok(buffer) => buffer,
            Err(error) => return Reply::error(format!("{error:?}")),
        };
        buffer[..1000].fill(number);
        written.push(buffer.as_ptr().addr().to_string());
        if let Err(error) = sink.send(buffer.freeze(1000)).await {
            return Reply::error(format!("{error:?}"));
        }
    }
    match sink.finish().await {
        Ok(receipt) => {
            written.push(String::from_utf8_lossy(&receipt).into_owned());
            Reply::ok(written.join(" "))
        }
        Err(error) => Reply::error(format!("{error:?}")),
    }
}

/// Sends as many chunks of 1 MiB as it is told, in the host's buffers.
async fn send_many(host: &HostHandle, chunks: &str, is_filled: bool) -> Reply {
    let mut sink = match sink(host).await {
        Ok(sink) => sink,
        Err(reply) => return reply,
    };
    for _ in 0..chunks.parse().unwrap_or(0_u32) {
        let mut buffer = match sink.buffer(1 << 20).await {
            Ok(buffer) => buffer,
            Err(error) => return Reply::error(format!("{error:?}")),
        };
        if is_filled {
            buffer.fill(7);
        }
        if let Err(error) = sink.send(buffer.freeze(1 << 20)).await {
            return Reply::error(format!("{error:?}"));
        }
    }
    sink.finish().await.map_or_else(|error| Reply::error(format!("{error:?}")), Reply::ok)
}

/// Sends chunks of its own until the sink is closed; the reply says how many were accepted.
async fn send_foreign(host: &HostHandle) -> Reply {
    let mut sink = match sink(host).await {
        Ok(sink) => sink,
        Err(reply) => return reply,
    };
    let chunk = Bytes::from(vec![7; 1000]);
    let mut accepted = 0;
    while sink.send(chunk.clone()).await.is_ok() {
        accepted += 1;
    }
    let buffer = sink.buffer(1).await.map(|_| ());
    assert_eq!(buffer, Err(SinkError::Closed));
    Reply::ok(format!("{accepted} at {}", chunk.as_ptr().addr()))
}

async fn read(host: &HostHandle) -> Reply {
    match host.call("source", "").await.map(|reply| reply.object) {
        Ok(Some(Object::Source(source))) => match source.read_at(2, source.len()).await {
            Ok(bytes) => Reply::ok(bytes),
            Err(error) => Reply::error(format!("{error:?}")),
        },
        other => Reply::error(format!("no source: {other:?}")),
    }
}

async fn hello(host: &HostHandle) -> Reply {
    use std::io::Write;

    match host.call("connection", "").await.map(|reply| reply.object) {
        Ok(Some(Object::Descriptor(owned))) => {
            let mut connection = std::os::unix::net::UnixStream::from(owned);
            match connection.write_all(b"hello") {
                Ok(()) => Reply::ok("said"),
                Err(error) => Reply::error(error.to_string()),
            }
        }
        other => Reply::error(format!("no connection: {other:?}")),
    }
}

fn number(counter: &AtomicUsize) -> Reply {
    Reply::ok(counter.load(Ordering::SeqCst).to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Counted(Arc<AtomicUsize>);
impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct DropsBadly;
impl Drop for DropsBadly {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

struct Formats<'a>(&'a AtomicUsize);
impl std::fmt::Display for Formats<'_> {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
