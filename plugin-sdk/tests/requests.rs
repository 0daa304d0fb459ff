//! What a host may ask of a plugin, and what it hears when it asks for something else.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fsm_core::{Outcome, StepCall, StepKind, Verdict};
use futures::{executor::block_on, future::BoxFuture};
use plugin_sdk::{
    Bundle, Class, Config, Context, Data, Decision, Effect, Fault, Host, Item, ItemId, Machine,
    Machines, Manifest, OperationId, PluginManifest, PointId, PointKind, PointMeta, RestoreRequest,
    RunPlan, State, Step, Timestamp, Wanted, Workload,
    abi::{HostCalls, Reply},
    async_trait, check, go,
    host::{InitError, Library, PluginInstance},
    message::{self, Request, call},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

/// A workload whose one machine counts to its configured number.
struct Counter {
    to: u32,
}

#[derive(Deserialize)]
struct Settings {
    to: u32,
}

struct Count;

#[derive(Debug, Serialize, Deserialize)]
struct Counting {
    done: u32,
}

#[derive(Serialize, Deserialize)]
struct Counted {
    key: String,
    at: Timestamp,
}

impl Machine for Count {
    const NAME: &'static str = "count";
    type Host = Host;
    type Initial = Counting;
    type States = (Counting, Counted);
}
check!(Count);

impl State<Count> for Counting {
    const NAME: &'static str = "counting";
    type Next = (Counted,);

    async fn run(self, _: &Count, cx: &mut Context<'_, Count>) -> Step<Self> {
        cx.progress(1, Some(2));
        let key = cx.once("ring", |effect: Effect| async move { Ok(effect.key) }).await?;
        go(Counted { key, at: cx.now() })
    }
}

impl State<Count> for Counted {
    const NAME: &'static str = "counted";
    type Next = ();
}

#[async_trait]
impl Workload for Counter {
    fn manifest() -> Manifest {
        Manifest::new("plugin-counter", "1.2.3", "counter")
    }

    fn open(config: Config) -> Result<Self, Fault> {
        let Settings { to } = config.read()?;
        Ok(Counter { to })
    }

    async fn discover(&self) -> Result<Vec<Item>, Fault> {
        Ok(vec![Item::new(item()).size_bytes(u64::from(self.to))])
    }

    async fn decide(&self, _: &ItemId, _: &Wanted, _: &[PointMeta]) -> Result<Decision, Fault> {
        Ok(Decision::Run(RunPlan::new::<Count>(Counting { done: 0 })?))
    }

    async fn restore(&self, _: &RestoreRequest) -> Result<RunPlan, Fault> {
        Err(Fault::user("counter.restore", "numbers are not given back"))
    }

    fn machines(self: &Arc<Self>) -> Machines {
        Machines::new().with(Count)
    }
}

fn item() -> ItemId {
    ItemId::new("counter", "main", "seconds").expect("a fixed id is valid")
}

/// Answers every call, and remembers the names of those that it heard.
#[derive(Default)]
struct Hears(Mutex<Vec<String>>);

impl HostCalls for Hears {
    fn call(&self, op: &str, _: Bytes) -> BoxFuture<'static, Reply> {
        self.0.lock().unwrap().push(op.to_owned());
        let body = match op {
            call::NOW => message::encode(&Timestamp::from_unix_ms(7)),
            _ => message::encode(&()),
        };
        Box::pin(futures::future::ready(Reply::ok(body.unwrap())))
    }
}

fn open() -> PluginInstance {
    let config = message::encode(&json!({ "counter": { "to": 60 } })).unwrap();
    Library::linked::<Bundle<(Counter,)>>().init(config).unwrap()
}

fn ask<T: DeserializeOwned>(request: &Request, host: &Arc<Hears>) -> Result<T, Fault> {
    ask_bytes(message::encode(request).unwrap(), host)
}

fn ask_bytes<T: DeserializeOwned>(request: Bytes, host: &Arc<Hears>) -> Result<T, Fault> {
    let reply = block_on(open().start(request, Arc::clone(host) as Arc<dyn HostCalls>)).unwrap();
    match reply.result {
        Ok(reply) => Ok(message::decode(&reply).unwrap()),
        Err(fault) => Err(message::decode_fault(&fault)),
    }
}

#[track_caller]
fn check_refused(request: &Request, code: &str) {
    let fault = ask::<()>(request, &Arc::default()).expect_err("it is refused");
    assert_eq!(fault.code(), code, "{fault}");
}

fn step(machine: &str) -> Request {
    Request::Step {
        operation: OperationId::new("nightly"),
        item: item(),
        call: StepCall {
            run: "nightly/1".parse().unwrap(),
            machine: machine.to_owned(),
            state: "counting".to_owned(),
            data: Data::encode(&Counting { done: 0 }).unwrap(),
            entry: 1,
            attempt: 1,
            kind: StepKind::Run,
            effects: Vec::new(),
            signals: Vec::new(),
            children: Vec::new(),
            deadline: None,
        },
    }
}

#[test]
fn the_manifest_names_every_workload_without_opening_any() {
    let manifest = Library::linked::<Bundle<(Counter,)>>().manifest().unwrap();
    let manifest: PluginManifest = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest.workloads[0].workload, "counter");
    assert_eq!(manifest.workloads[0].version, "1.2.3");
}

#[test]
fn a_configuration_that_does_not_fit_is_the_users_fault() {
    let config = message::encode(&json!({ "counter": { "to": "sixty" } })).unwrap();
    let refused = Library::linked::<Bundle<(Counter,)>>().init(config).expect_err("refused");
    let InitError::Refused(document) = refused else { panic!("{refused:?}") };
    let fault = message::decode_fault(&document);
    assert_eq!((fault.class(), fault.code()), (Class::User, "config.invalid"));
}

#[test]
fn what_the_workload_answers_reaches_the_host() {
    let host = Arc::default();
    let items: Vec<Item> =
        ask(&Request::Discover { workload: "counter".to_owned() }, &host).unwrap();
    assert_eq!(items[0].size_bytes, Some(60));
    let wanted = Wanted::new(OperationId::new("nightly"), PointKind::Full);
    let decide = Request::Decide { item: item(), wanted, points: Vec::new() };
    let Decision::Run(plan) = ask(&decide, &host).unwrap() else { panic!("it wants to run") };
    assert_eq!(plan.machine, "count");
    let restore = RestoreRequest::new(OperationId::new("back"), item(), Vec::new());
    check_refused(&Request::Restore { restore }, "counter.restore");
}

#[test]
fn a_step_runs_with_the_hosts_clock_intents_and_progress() {
    let host = Arc::<Hears>::default();
    let outcome: Outcome = ask(&step("count"), &host).unwrap();
    let Verdict::Go { state, data, .. } = outcome.verdict else { panic!("{outcome:?}") };
    let counted: Counted = data.decode().unwrap();
    assert_eq!(state, "counted");
    assert_eq!((counted.key.as_str(), counted.at.as_unix_ms()), ("nightly/1/1/ring", 7));
    assert_eq!(*host.0.lock().unwrap(), [call::PROGRESS, call::EFFECT_INTENT, call::NOW]);
}

#[test]
fn what_a_plugin_does_not_have_is_refused_by_name() {
    check_refused(&Request::Discover { workload: "other".to_owned() }, "workload.unknown");
    check_refused(&step("other"), "machine.unknown");
    let target = PointId::new("none");
    let plan = Request::Plan { item: item(), points: Vec::new(), target, until: None };
    check_refused(&plan, "chain.missing");
}

#[test]
fn a_request_of_a_newer_form_is_refused_and_an_unknown_field_is_not() {
    let host = Arc::default();
    let newer = br#"{"schema":99,"body":{"request":"discover","workload":"counter"}}"#;
    let fault = ask_bytes::<()>(Bytes::from_static(newer), &host).expect_err("refused");
    assert_eq!(fault.code(), "message.schema");
    let unknown = br#"{"schema":1,"body":{"request":"dance"}}"#;
    let fault = ask_bytes::<()>(Bytes::from_static(unknown), &host).expect_err("refused");
    assert_eq!((fault.class(), fault.code()), (Class::Permanent, "request.unknown"));
    assert!(fault.message().contains("dance"), "{fault:?}");
    let torn = br#"{"schema":1,"body":{"request":"discover"}}"#;
    let fault = ask_bytes::<()>(Bytes::from_static(torn), &host).expect_err("refused");
    assert_eq!(fault.code(), "message.decode", "a request that is known, but cannot be read");
    let richer =
        br#"{"schema":1,"new":1,"body":{"request":"discover","workload":"counter","x":2}}"#;
    let items: Vec<Item> = ask_bytes(Bytes::from_static(richer), &host).unwrap();
    assert_eq!(items.len(), 1);
}
