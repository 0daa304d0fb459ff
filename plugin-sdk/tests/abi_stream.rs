//! Bytes on their way: no copy, bounded, and refused once nobody listens.
#![cfg(all(feature = "host", target_os = "linux"))]

mod common;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use common::{CutsShort, Services, Wrong, ask_with, both, until};
use futures::FutureExt;
use futures::executor::block_on;
use plugin_sdk::abi::{
    BoxFuture, CallError, Cancellation, HostHandle, Object, Reply, SinkError, SinkHandle,
    SourceHandle, TaskFault,
};
use plugin_sdk::host::{BufferPool, ChannelSink, ChunkReceiver, HostCalls, HostSource};
use plugin_sdk::message::{self, TakeBegun, call};
use plugin_sdk::{Host, ItemId, OperationId, Take, TakeId, Timestamp};

const BUFFERS: usize = 3;

fn channel() -> (BufferPool, SinkHandle, ChunkReceiver) {
    let pool = BufferPool::new(BUFFERS, 1 << 20);
    let (sink, receiver) = ChannelSink::new(pool.clone());
    (pool, SinkHandle::serve(sink), receiver)
}

#[test]
fn the_host_reads_each_chunk_where_the_plugin_wrote_it() {
    for (how, plugin) in both() {
        let (pool, sink, mut receiver) = channel();
        let task = plugin.start("send lent", Services::with_sink(sink));
        let reads = thread::spawn(move || {
            let mut read = Vec::new();
            while let Some(chunk) = block_on(receiver.recv()) {
                assert_eq!(chunk.len(), 1000);
                assert!(chunk.iter().all(|byte| usize::from(*byte) == read.len() + 1));
                read.push(chunk.as_ptr().addr().to_string());
            }
            assert!(receiver.is_finished());
            let stats = receiver.stats();
            assert_eq!((stats.lent, stats.foreign, stats.bytes), (4, 0, 4000));
            receiver.complete(Ok(Bytes::from_static(b"receipt")));
            read
        });
        let reply = block_on(task).expect("a reply").result.expect("no error");
        let mut read = reads.join().expect("the receiver ends");
        read.push("receipt".to_owned());
        assert_eq!(reply, Bytes::from(read.join(" ")), "{how}");
        let stats = pool.stats();
        assert_eq!((stats.lends, stats.returns, stats.lent), (4, 4, 0), "{how}");
        assert!(stats.lent_peak <= BUFFERS);
    }
}

#[test]
fn a_plugin_whose_consumer_stops_holds_at_most_its_buffers() {
    for (_, plugin) in both() {
        let (pool, sink, receiver) = channel();
        let task = plugin.start("send lent", Services::with_sink(sink));
        while pool.stats().lent < BUFFERS {
            thread::yield_now();
        }
        // The fourth chunk waits for a buffer for as long as nothing is taken out.
        until(&plugin, "echo:alive", "+alive");
        assert_eq!((pool.stats().lends, pool.stats().lent_peak), (BUFFERS as u64, BUFFERS));
        drop(receiver);
        let error = block_on(task).expect("a reply").result.expect_err("the sink is closed");
        assert_eq!(error, Bytes::from_static(b"Closed"));
        assert_eq!(pool.stats().lent, 0, "everything came back");
    }
}

#[test]
fn foreign_bytes_wait_for_room_arrive_uncopied_and_meet_a_closed_sink() {
    for (_, plugin) in both() {
        let (_, sink, mut receiver) = channel();
        let task = plugin.start("send foreign", Services::with_sink(sink));
        while receiver.stats().foreign < BUFFERS as u64 {
            thread::yield_now();
        }
        let first = block_on(receiver.recv()).expect("a chunk");
        while receiver.stats().foreign < BUFFERS as u64 + 1 {
            thread::yield_now();
        }
        drop(receiver);
        let reply = block_on(task).expect("a reply").result.expect("no error");
        assert_eq!(reply, Bytes::from(format!("4 at {}", first.as_ptr().addr())));
    }
}

#[test]
fn chunks_outlive_their_task_and_their_sink_and_come_back_once_from_any_thread() {
    for (_, plugin) in both() {
        let (pool, sink, mut receiver) = channel();
        let task = plugin.start("send lent", Services::with_sink(sink));
        let first = block_on(receiver.recv()).expect("a chunk");
        let second = block_on(receiver.recv()).expect("a chunk");
        drop(task);
        // The plugin's end goes when its job is dropped; what it had queued is still there.
        while block_on(receiver.recv()).is_some() {}
        assert!(!receiver.is_finished(), "an abandoned stream is not complete");
        drop(receiver);
        drop(plugin);
        assert!(first.iter().all(|byte| *byte == 1) && second.iter().all(|byte| *byte == 2));
        let slice = first.slice(10..20);
        drop(first);
        assert_eq!(pool.stats().lent, 2);
        thread::spawn(move || drop((slice, second))).join().expect("the thread ends");
        let stats = pool.stats();
        assert_eq!((stats.lent, stats.returns), (0, stats.lends));
    }
}

#[test]
fn a_refused_receipt_is_the_plugins_error() {
    for (_, plugin) in both() {
        let (_, sink, mut receiver) = channel();
        let task = plugin.start("send lent", Services::with_sink(sink));
        let reads = thread::spawn(move || {
            while block_on(receiver.recv()).is_some() {}
            receiver.complete(Err(Bytes::from_static(b"disk full")));
        });
        let error = block_on(task).expect("a reply").result.expect_err("no receipt");
        assert_eq!(error, Bytes::from_static(b"Refused(b\"disk full\")"));
        reads.join().expect("the receiver ends");
    }
}

#[cfg_attr(miri, ignore = "Miri's sockets have no such writes")]
#[test]
fn a_connection_is_handed_over() {
    for (_, plugin) in both() {
        let (mut near, far) = UnixStream::pair().expect("a socket pair");
        let host = Services::new();
        *host.connection.lock().expect("no panic under the lock") = Some(OwnedFd::from(far));
        assert_eq!(ask_with(&plugin, "say hello", host), "+said");
        let mut heard = String::new();
        near.read_to_string(&mut heard).expect("the plugin closed its end");
        assert_eq!(heard, "hello");
    }
}

#[test]
fn a_loan_that_was_filled_with_nothing_is_sent_and_takes_no_room() {
    let (pool, mut sink, receiver) = channel();
    for _ in 0..2 * BUFFERS {
        let buffer = block_on(sink.buffer(1)).expect("a buffer");
        block_on(sink.send(buffer.freeze(0))).expect("nothing needs no room");
    }
    let stats = receiver.stats();
    assert_eq!((stats.lent, stats.foreign, stats.bytes), (0, 0, 0));
    assert_eq!(pool.stats().lent, 0);
    drop(receiver);
    assert_eq!(block_on(sink.send(Bytes::new())), Err(SinkError::Closed));
}

/// A host that takes everything and answers nothing.
struct Silent;

impl HostSource for Silent {
    fn len(&self) -> u64 {
        1
    }
    fn read_at(&self, _: u64, _: u64) -> BoxFuture<Result<Bytes, CallError>> {
        Box::pin(std::future::pending())
    }
}

impl HostCalls for Silent {
    fn call(&self, op: &str, _: Bytes) -> BoxFuture<Reply> {
        let object = match op {
            "source" => Object::Source(SourceHandle::serve(Self)),
            _ => {
                let (sink, receiver) = ChannelSink::new(BufferPool::new(BUFFERS, 1));
                std::mem::forget(receiver);
                Object::Sink(SinkHandle::serve(sink))
            }
        };
        Box::pin(std::future::ready(Reply::ok("").with(object)))
    }
}

/// Hands out a sink that is wrong.
struct Careless(Wrong);

impl HostCalls for Careless {
    fn call(&self, op: &str, _: Bytes) -> BoxFuture<Reply> {
        let reply = match op {
            call::TAKE_BEGIN => message::encode(&TakeBegun {
                take: TakeId::new("take"),
                begun_at: Timestamp::default(),
                finished: None,
                facts: serde_json::Value::Null,
            })
            .map(Reply::ok),
            _ => message::encode(&())
                .map(|body| Reply::ok(body).with(Object::Sink(CutsShort::sink(self.0)))),
        };
        Box::pin(std::future::ready(reply.expect("a document")))
    }
}

#[test]
fn a_sink_that_has_panicked_gives_no_receipt() {
    let mut sink = CutsShort::sink(Wrong::Panics);
    assert!(block_on(sink.buffer(1)).is_ok());
    for _ in 0..2 {
        assert_eq!(block_on(sink.buffer(1)).map(|_| ()), Err(SinkError::Closed));
        assert_eq!(sink.send_now(Bytes::from_static(b"x").into()), Err(SinkError::Closed));
    }
    let panicked = TaskFault::Panicked("the sink's bug".to_owned());
    assert_eq!(block_on(sink.finish()), Err(CallError::Fault(panicked)));
}

#[test]
fn a_stream_that_its_host_closes_before_its_end_is_cut_short_for_the_workload() {
    for (wrong, code) in [(Wrong::Panics, "host.call"), (Wrong::Closes, "stream.cut_short")] {
        let item = ItemId::new("w", "i", "n").expect("a fixed id is valid");
        let host = Host::served_by(Arc::new(Careless(wrong)), OperationId::new("o"), item);
        let Take::Begun(take) = block_on(host.take("copy")).expect("a take") else {
            panic!("nothing is finished yet")
        };
        let mut sink = block_on(take.stream("data")).expect("a sink");
        let buffer = block_on(sink.buffer(1)).expect("the first buffer");
        block_on(sink.send(buffer.freeze(1))).expect("the first chunk");
        let fault = block_on(sink.buffer(1)).map(|_| ()).expect_err("no second one");
        assert_eq!(fault.code(), code, "{wrong:?}");
    }
}

#[test]
fn the_end_of_the_request_ends_a_read_and_a_finish_that_wait() {
    let request = Cancellation::new();
    let host = HostHandle::serve(Arc::new(Silent), request.clone());
    let object = |op| block_on(host.call(op, "")).expect("a reply").object;
    let Some(Object::Source(source)) = object("source") else { panic!("a source") };
    let Some(Object::Sink(sink)) = object("sink") else { panic!("a sink") };
    let (mut read, mut finish) = (pin!(source.read_at(0, 1)), pin!(sink.finish()));
    assert!(read.as_mut().now_or_never().is_none());
    assert!(finish.as_mut().now_or_never().is_none());
    request.request();
    let revoked = Some(Err(CallError::Fault(TaskFault::Revoked)));
    assert_eq!(read.now_or_never(), revoked);
    assert_eq!(finish.now_or_never(), revoked);
}
