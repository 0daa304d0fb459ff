//! What the tests of the boundary share.
#![allow(dead_code, unreachable_pub)] // each test program uses a part of it

#[path = "../../examples/abi_fixture.rs"]
pub mod fixture;

use std::future::ready;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::executor::block_on;
use plugin_sdk::abi::{
    BoxFuture, CallError, LentBuffer, Object, OwnedDescriptor, Reply, SinkError, SinkHandle,
    SourceHandle,
};
use plugin_sdk::host::{
    BufferPool, HostCalls, HostSink, HostSource, Library, PluginInstance, Trust,
};
use plugin_sdk::{Receipt, TakeId, message};

/// The library of the example `name`.
pub fn built(name: &str) -> PathBuf {
    let program = std::env::current_exe().expect("this program has a path");
    let target = program.parent().and_then(Path::parent).expect("target/<profile>/deps/<program>");
    let library = target.join(format!("examples/lib{name}.so"));
    assert!(library.is_file(), "{} is missing: build the examples", library.display());
    library
}

pub fn trusted() -> Trust {
    Trust::development("the tests' own library")
}

pub fn loaded(name: &str) -> Library {
    Library::load(&built(name), &trusted()).expect("the library loads")
}

/// The fixture, linked into this program and loaded from its file (which Miri cannot do).
pub fn both() -> Vec<(&'static str, PluginInstance)> {
    let mut libraries = vec![("linked", Library::linked::<fixture::Fixture>())];
    if !cfg!(miri) {
        libraries.push(("loaded", loaded("abi_fixture")));
    }
    let made = |library: &Library| library.init("{}").expect("an instance");
    libraries.iter().map(|(how, library)| (*how, made(library))).collect()
}

/// A directory that goes away.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        Self::within(&std::env::temp_dir(), name)
    }
    pub fn within(parent: &Path, name: &str) -> Self {
        let path = parent.join(format!("mercury-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Self(path)
    }
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("the scratch directory is writable");
        path
    }
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A host that hands out what it was given.
#[derive(Default)]
pub struct Services {
    pub sink: Mutex<Option<SinkHandle>>,
    pub connection: Mutex<Option<OwnedDescriptor>>,
    pub calls: Mutex<Vec<String>>,
    /// What the call `gate` waits for, on the caller's thread.
    pub gate: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Services {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
    pub fn with_sink(sink: SinkHandle) -> Arc<Self> {
        Arc::new(Self { sink: Mutex::new(Some(sink)), ..Self::default() })
    }
}

/// How a sink that is wrong takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    Panics,
    Closes,
}

/// A sink that lends one buffer and takes one chunk, and gives a receipt whatever it was sent.
pub struct CutsShort {
    wrong: Wrong,
    pool: Option<BufferPool>,
}

impl CutsShort {
    pub fn sink(wrong: Wrong) -> SinkHandle {
        SinkHandle::serve(CutsShort { wrong, pool: Some(BufferPool::new(2, 1 << 20)) })
    }
}

impl HostSink for CutsShort {
    fn poll_buffer(
        &mut self,
        min_len: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<LentBuffer, SinkError>> {
        match (self.pool.take(), self.wrong) {
            (Some(pool), _) => pool.poll_lend(min_len, cx),
            (None, Wrong::Panics) => panic!("the sink's bug"),
            (None, Wrong::Closes) => Poll::Ready(Err(SinkError::Closed)),
        }
    }
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        Poll::Ready(Err(SinkError::Closed))
    }
    fn send(&mut self, _: Bytes) -> Result<(), SinkError> {
        Ok(())
    }
    fn finish(&mut self) -> BoxFuture<Result<Bytes, CallError>> {
        let (take, stream, hash) = (TakeId::new("take"), "data".to_owned(), String::new());
        let receipt = message::encode(&Receipt { take, stream, length: 1, hash });
        Box::pin(ready(Ok(receipt.expect("it has a form"))))
    }
}

struct Memory;
impl HostSource for Memory {
    fn len(&self) -> u64 {
        10
    }
    fn read_at(&self, offset: u64, len: u64) -> BoxFuture<Result<Bytes, CallError>> {
        assert_eq!((offset, len), (2, 10));
        Box::pin(ready(Ok(Bytes::from_static(b"23456789"))))
    }
}

impl HostCalls for Services {
    fn call(&self, op: &str, body: Bytes) -> BoxFuture<Reply> {
        self.calls.lock().expect("no panic under the lock").push(op.to_owned());
        let object = match op {
            "sink" => self.sink.lock().expect("no panic under the lock").take().map(Object::Sink),
            "source" => Some(Object::Source(SourceHandle::serve(Memory))),
            "connection" => self
                .connection
                .lock()
                .expect("no panic under the lock")
                .take()
                .map(Object::Descriptor),
            "gate" => {
                let gate = self.gate.lock().expect("no panic under the lock").take();
                if let Some(gate) = gate {
                    gate.recv().expect("the test opens the gate");
                }
                None
            }
            "panic" => panic!("the host's bug"),
            "refuse" => return Box::pin(ready(Reply::error("not allowed"))),
            "never" => return Box::pin(std::future::pending()),
            _ => None,
        };
        Box::pin(ready(Reply { result: Ok(body), object }))
    }
}

/// The reply to `request`, as text: `+` and the document, or `-` and the error.
#[track_caller]
pub fn ask(plugin: &PluginInstance, request: &str) -> String {
    ask_with(plugin, request, Services::new())
}

#[track_caller]
pub fn ask_with(plugin: &PluginInstance, request: &str, host: Arc<dyn HostCalls>) -> String {
    let reply = block_on(plugin.start(request.to_owned(), host)).expect("a reply");
    match reply.result {
        Ok(body) => format!("+{}", String::from_utf8_lossy(&body)),
        Err(error) => format!("-{}", String::from_utf8_lossy(&error)),
    }
}

/// Waits until `request` is answered with `expected`; a test that never sees it hangs here, and
/// says so after a minute of asking.
#[track_caller]
pub fn until(plugin: &PluginInstance, request: &str, expected: &str) {
    let begun = std::time::Instant::now();
    while ask(plugin, request) != expected {
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(60),
            "{request} never became {expected}, it is {}",
            ask(plugin, request)
        );
        std::thread::yield_now();
    }
}

/// Polls `work` until it has called the host, which it does once it has begun.
pub fn until_called<F: Future + Unpin>(host: &Services, work: &mut F) {
    until_called_times(host, work, 1);
}

/// Polls `work` until it has called the host so many times.
pub fn until_called_times<F: Future + Unpin>(host: &Services, work: &mut F, times: usize) {
    let mut cx = Context::from_waker(Waker::noop());
    while host.calls.lock().expect("no panic under the lock").len() < times {
        assert!(pin!(&mut *work).poll(&mut cx).is_pending());
        std::thread::yield_now();
    }
}
