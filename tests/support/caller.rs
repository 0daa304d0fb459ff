//! Programs that call, as threads of the test; and an engine that they call.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(missing_docs, unreachable_pub, reason = "test helpers are read where they are")]
#![allow(clippy::missing_panics_doc, reason = "a helper that fails is a test that fails")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use mercury::{
    Engine, EngineBuilder, Event, Events, Isolation, ItemId, Operation, Plugin, Process, Runner,
    Trust,
};
use serde_json::{Value, json};

use crate::{
    called::Called,
    support::{self, World, until},
};

/// Where the plugin's code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    Here,
    Apart,
}

pub const BOTH: [Where; 2] = [Where::Here, Where::Apart];

pub fn item(name: &str) -> ItemId {
    ItemId::new("called", "one", name).unwrap()
}

pub fn gate(world: &World) -> PathBuf {
    world.path("gate")
}

/// An engine with a workload that is called, still to be started.
pub fn builder(world: &World, place: Where) -> EngineBuilder {
    let uid = std::fs::metadata("/proc/self").unwrap().uid();
    let plugin = match place {
        Where::Here => Plugin::linked::<Called>(),
        Where::Apart => {
            let program = std::env::current_exe().unwrap();
            let target = program.parent().and_then(Path::parent).unwrap();
            let library = target.join("examples/libcalled_library.so");
            let process = Process::new().runner(Runner::at(support::runner()));
            Plugin::library(library, Trust::development("built together with this test"))
                .isolation(Isolation::Process(process))
        }
    };
    let plugin = plugin.config("called", json!({ "uid": uid, "gate": gate(world) }));
    world.bare().plugin(plugin).ingress_dir(world.path("calls"))
}

pub async fn start(world: &World, place: Where) -> Engine {
    builder(world, place).start().await.unwrap()
}

pub fn socket(world: &World, endpoint: &str) -> PathBuf {
    world.path("calls").join(format!("called/{endpoint}.sock"))
}

/// A program that has called.
pub struct Program(pub UnixStream);

impl Program {
    /// Calls, and says nothing yet.
    pub fn silent(world: &World, endpoint: &str) -> Self {
        let stream = UnixStream::connect(socket(world, endpoint)).unwrap();
        // Nothing takes this long.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Program(stream)
    }

    pub fn call(world: &World, endpoint: &str, first: &[u8]) -> Self {
        let mut program = Self::silent(world, endpoint);
        program.say(&framed(first));
        program
    }

    /// Calls at the usual endpoint, and says what it wants.
    pub fn wish(world: &World, wish: &Value) -> Self {
        Self::call(world, "door", wish.to_string().as_bytes())
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Has said everything.
    pub fn done(&self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    /// What the host, or the step, says until it hangs up.
    pub fn hear(mut self) -> String {
        let mut heard = Vec::new();
        match self.0.read_to_end(&mut heard) {
            // Who hangs up on somebody without having read everything resets the connection.
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
            }
        }
        String::from_utf8(heard).unwrap()
    }
}

pub fn framed(first: &[u8]) -> Vec<u8> {
    let mut framed = u32::try_from(first.len()).unwrap().to_be_bytes().to_vec();
    framed.extend_from_slice(first);
    framed
}

/// The operation that the next call is given to.
pub async fn called(engine: &Engine, events: &mut Events) -> Operation {
    let event = until(events, |event| matches!(event, Event::Called { .. })).await;
    let Event::Called { operation, endpoint, peer } = event else { unreachable!("waited for") };
    assert_eq!((endpoint.as_str(), peer.pid), ("door", std::process::id()));
    engine.operation(&operation).await.unwrap()
}

pub async fn refused(events: &mut Events, expected: &str) {
    let event = until(events, |event| matches!(event, Event::CallRefused { .. })).await;
    let Event::CallRefused { code, why, .. } = event else { unreachable!("waited for") };
    assert_eq!(code, expected, "{why}");
}
