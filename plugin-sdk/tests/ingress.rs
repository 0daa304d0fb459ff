//! What a host asks about calls of a workload's programs, and how a step takes one over.
#![cfg(all(feature = "host", unix))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{executor::block_on, future::BoxFuture};
use plugin_sdk::{
    Bundle, Caller, Class, Config, Decision, Endpoint, Fault, Host, IncomingCall, Item, ItemId,
    Machines, Manifest, OperationId, Peer, PointMeta, RestoreRequest, Route, RunPlan, Wanted,
    Workload,
    abi::{HostCalls, Object, Reply},
    async_trait,
    host::Library,
    message::{self, Request, call},
};
use serde::de::DeserializeOwned;

/// Nothing but what every workload must have.
macro_rules! workload {
    ($name:ident: $workload:literal { $($more:tt)* }) => {
        struct $name;

        #[async_trait]
        impl Workload for $name {
            fn manifest() -> Manifest {
                Manifest::new("plugin-called", "0.1.0", $workload).ingress()
            }
            fn open(_: Config) -> Result<Self, Fault> {
                Ok($name)
            }
            async fn discover(&self) -> Result<Vec<Item>, Fault> {
                Ok(Vec::new())
            }
            async fn decide(
                &self,
                _: &ItemId,
                _: &Wanted,
                _: &[PointMeta],
            ) -> Result<Decision, Fault> {
                Err(Fault::permanent("called.decide", "it decides nothing"))
            }
            async fn restore(&self, _: &RestoreRequest) -> Result<RunPlan, Fault> {
                Err(Fault::permanent("called.restore", "it restores nothing"))
            }
            fn machines(self: &Arc<Self>) -> Machines {
                Machines::new()
            }
            $($more)*
        }
    };
}

workload!(Silent: "silent" {});
workload!(Called: "called" {
    fn endpoints(&self) -> Result<Vec<Endpoint>, Fault> {
        Ok(vec![Endpoint::new("door").caller(Caller::Uid(7))])
    }

    fn route(&self, call: &IncomingCall) -> Route {
        match &call.first[..] {
            b"panic" => panic!("no such call"),
            b"attach" => Route::attach(OperationId::new("nightly"), *b"not now"),
            other => Route::refuse("called.unknown", [b"what is ", other].concat()),
        }
    }
});

/// Answers with whatever it was given, once.
struct Gives(Mutex<Option<Reply>>);

impl HostCalls for Gives {
    fn call(&self, _: &str, _: Bytes) -> BoxFuture<'static, Reply> {
        let reply = self.0.lock().unwrap().take();
        Box::pin(std::future::ready(reply.expect("it is called once")))
    }
}

fn ask<T: DeserializeOwned>(request: &Request) -> Result<T, Fault> {
    let config = message::encode(&serde_json::json!({})).unwrap();
    let plugin = Library::linked::<Bundle<(Silent, Called)>>().init(config).unwrap();
    let host = Arc::new(Gives(Mutex::new(None)));
    let reply = block_on(plugin.start(message::encode(request).unwrap(), host));
    match reply.map_err(|fault| Fault::bug("test.no_reply", fault.to_string()))?.result {
        Ok(body) => message::decode(&body),
        Err(error) => Err(message::decode_fault(&error)),
    }
}

fn incoming(first: &str) -> IncomingCall {
    IncomingCall::new(OperationId::new("call-1"), "door", Peer::new(7, 8, 9), first)
}

fn route(workload: &str, first: &str) -> Result<Route, Fault> {
    ask(&Request::Route { workload: workload.to_owned(), call: incoming(first) })
}

#[test]
fn a_workload_says_where_it_is_called_and_where_a_call_belongs() {
    let endpoints = Request::Endpoints { workload: "called".to_owned() };
    let endpoints: Vec<Endpoint> = ask(&endpoints).unwrap();
    assert_eq!(endpoints, [Endpoint::new("door").caller(Caller::Uid(7))]);
    let attach = Route::attach(OperationId::new("nightly"), *b"not now");
    assert_eq!(route("called", "attach").unwrap(), attach);
    let refuse = Route::refuse("called.unknown", *b"what is this");
    assert_eq!(route("called", "this").unwrap(), refuse);
    assert_eq!(route("called", "panic").unwrap_err().code(), "test.no_reply");
}

#[test]
fn a_workload_that_does_not_say_is_called_nowhere_and_refuses() {
    let endpoints = Request::Endpoints { workload: "silent".to_owned() };
    assert_eq!(ask::<Vec<Endpoint>>(&endpoints).unwrap(), []);
    assert_eq!(route("silent", "hello").unwrap(), Route::refuse("ingress.not_served", []));
}

/// A step's host that answers with `reply`.
fn host(reply: Reply) -> Host {
    let calls = Arc::new(Gives(Mutex::new(Some(reply))));
    Host::served_by(calls, OperationId::new("nightly"), "called/one/item".parse().unwrap())
}

#[test]
fn a_step_takes_a_call_with_its_connection() {
    for op in [call::INGRESS_CALL, call::INGRESS_NEXT] {
        let (mut near, far) = UnixStream::pair().unwrap();
        let reply = Reply::ok(message::encode(&incoming("hello")).unwrap());
        let host = host(reply.with(Object::Descriptor(far.into())));
        let taken = match op {
            call::INGRESS_CALL => block_on(host.call()).unwrap(),
            _ => block_on(host.next_call()).unwrap(),
        };
        assert_eq!(taken.call, incoming("hello"));
        UnixStream::from(taken.connection).write_all(b"welcome").unwrap();
        let mut heard = String::new();
        near.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "welcome", "and the step's end is closed when it is dropped");
    }
}

#[test]
fn a_host_that_answers_without_a_connection_has_a_bug() {
    let fault = block_on(host(Reply::ok(message::encode(&incoming("")).unwrap())).call());
    let fault = fault.unwrap_err();
    assert_eq!((fault.class(), fault.code()), (Class::Bug, "host.object"));
}
