//! Requests that make no sense.

use std::sync::Arc;

use fsm_core::{Data, Fault, RunId, StepCall, StepKind};
use serde_json::{Value, json};

use crate::{
    IncomingCall, ItemId, OperationId, Peer, PointId, PointKind, RestoreRequest, Wanted,
    abi::TaskFault,
    conformance::{bench::Bench, patience::within},
    host::{InitError, NoCalls, PluginInstance},
    message::{self, Request},
};

use super::counted;

/// Of longer documents only so many prefixes are tried.
const PREFIXES_MAX: usize = 400;

pub(super) fn check(bench: &mut Bench) {
    let truncated = truncated(bench);
    bench.must("truncated", truncated);
    let richer = unknown_fields(bench);
    bench.must("unknown_fields", richer);
    let newer = newer_schema(bench);
    bench.must("newer_schema", newer);
    let unknown = unknown_names(bench);
    bench.must("unknown_names", unknown);
    let odd = odd_values(bench);
    bench.must("odd_values", odd);
    let config = odd_config(bench);
    bench.must("odd_config", config);
}

/// What became of a document.
enum Answer {
    Reply(Value),
    Fault(Fault),
}

fn send(bench: &Bench, plugin: &PluginInstance, document: Vec<u8>) -> Result<Answer, String> {
    let start: String = String::from_utf8_lossy(&document[..document.len().min(80)]).into_owned();
    let task = plugin.start(document, Arc::new(NoCalls));
    let silent = || format!("it is silent for {:?} when asked `{start}`", bench.patience);
    match within(bench.patience, task).ok_or_else(silent)? {
        Ok(reply) => match reply.result {
            Ok(reply) => serde_json::from_slice(&reply)
                .map(Answer::Reply)
                .map_err(|error| format!("its reply to `{start}` is no document: {error}")),
            Err(refusal) => message::decode::<Fault>(&refusal)
                .map(Answer::Fault)
                .map_err(|why| format!("its refusal of `{start}` is no typed fault: {why}")),
        },
        Err(TaskFault::Panicked(text)) => Err(format!("it panics when asked `{start}`: {text}")),
        Err(fault) => Err(format!("it does not answer `{start}`: {fault}")),
    }
}

/// A document of each kind of request.
fn documents(bench: &Bench) -> Result<Vec<Value>, String> {
    let plugin = bench.plugin()?;
    let workload = plugin.workload.workload.clone();
    let fixed = ItemId::new(&workload, "conformance", "none").map_err(|error| error.to_string())?;
    let item = bench.item().unwrap_or(fixed);
    let operation = OperationId::from("fuzz");
    let wanted = Wanted::new(operation.clone(), PointKind::Full);
    let restore = RestoreRequest::new(operation.clone(), item.clone(), Vec::new());
    let target = PointId::new("none");
    let caller = IncomingCall::new(operation.clone(), "none", Peer::new(1, 1, 1), "fuzz");
    let mut requests = vec![
        Request::Discover { workload: workload.clone() },
        Request::Machines { workload: workload.clone() },
        Request::Decide { item: item.clone(), wanted, points: Vec::new() },
        Request::Plan { item: item.clone(), points: Vec::new(), target, until: None },
        Request::Endpoints { workload: workload.clone() },
        Request::Route { workload: workload.clone(), call: caller },
        Request::Restore { restore },
    ];
    for graph in &plugin.graphs {
        let (machine, state) = (graph.machine.clone(), graph.initial.clone());
        // What no state is made of: these steps are not meant to run.
        let data = Data::encode(&json!([[["fuzz"]]])).map_err(|fault| fault.to_string())?;
        let run = RunId::new("fuzz").map_err(|error| error.to_string())?;
        let call = StepCall {
            run,
            machine: machine.clone(),
            state: state.clone(),
            data: data.clone(),
            entry: 1,
            attempt: 1,
            kind: StepKind::Cancel,
            effects: Vec::new(),
            signals: Vec::new(),
            children: Vec::new(),
            deadline: None,
        };
        let (operation, item) = (operation.clone(), item.clone());
        requests.push(Request::Step { operation, item, call });
        let workload = workload.clone();
        requests.push(Request::Migrate { workload, machine, from: 1, state, data });
    }
    let document = |request: &Request| {
        let bytes = message::encode(request).map_err(|fault| fault.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    };
    requests.iter().map(document).collect()
}

fn truncated(bench: &Bench) -> Result<String, String> {
    let plugin = bench.instance()?;
    let mut tried = 0;
    for document in documents(bench)? {
        let whole = document.to_string().into_bytes();
        let step = whole.len().div_ceil(PREFIXES_MAX).max(1);
        for length in (0..whole.len()).step_by(step) {
            tried += 1;
            if let Answer::Reply(_) = send(bench, &plugin, whole[..length].to_vec())? {
                return Err(format!("it answers the first {length} bytes of `{document}`"));
            }
        }
    }
    Ok(format!("{}, each refused", counted(tried, "prefix")).replace("prefixs", "prefixes"))
}

fn unknown_fields(bench: &Bench) -> Result<String, String> {
    let plugin = bench.instance()?;
    let documents = documents(bench)?;
    let kind = |answer: Answer| match answer {
        Answer::Reply(_) => "an answer".to_owned(),
        Answer::Fault(fault) => fault.code().to_owned(),
    };
    for document in &documents {
        let plain = kind(send(bench, &plugin, document.to_string().into_bytes())?);
        let mut richer = document.clone();
        let later = json!({ "of": ["a", "later", "version"], "more": 1 });
        richer["conformance_field"] = later.clone();
        richer["body"]["conformance_field"] = later;
        let rich = kind(send(bench, &plugin, richer.to_string().into_bytes())?);
        if plain != rich {
            let request = &document["body"]["request"];
            return Err(format!(
                "{request} with a field that it does not know: {rich}, not {plain}"
            ));
        }
    }
    Ok(format!("{}, answered all the same", counted(documents.len(), "request")))
}

fn newer_schema(bench: &Bench) -> Result<String, String> {
    let plugin = bench.instance()?;
    for mut document in documents(bench)? {
        document["schema"] = json!(u16::MAX);
        if let Answer::Reply(_) = send(bench, &plugin, document.to_string().into_bytes())? {
            return Err("it answers a request of a form that it cannot know".to_owned());
        }
    }
    Ok("refused".to_owned())
}

/// A workload, a machine, a state and a request that do not exist.
fn unknown_names(bench: &Bench) -> Result<String, String> {
    let plugin = bench.instance()?;
    let mut tried = 0;
    let mut refused = |document: &Value, what: &str| {
        tried += 1;
        match send(bench, &plugin, document.to_string().into_bytes())? {
            Answer::Fault(_) => Ok(()),
            Answer::Reply(reply) => {
                let verdict = &reply["body"]["verdict"];
                let is_refusal = verdict.get("unreadable").or(verdict.get("fault")).is_some();
                match is_refusal {
                    true => Ok(()),
                    false => Err(format!("it answers a request with {what}: {reply}")),
                }
            }
        }
    };
    for document in documents(bench)? {
        let with = |path: &str, value: &str| {
            let mut changed = document.clone();
            let found = changed.pointer_mut(path)?;
            *found = json!(value);
            Some(changed)
        };
        for (path, what) in [
            ("/body/request", "no known name"),
            ("/body/workload", "an unknown workload"),
            ("/body/call/machine", "an unknown machine"),
            ("/body/call/state", "an unknown state"),
            ("/body/machine", "an unknown machine"),
        ] {
            if let Some(changed) = with(path, "conformance_nobody") {
                refused(&changed, what)?;
            }
        }
        for path in ["/body/item", "/body/restore/item"] {
            if let Some(changed) = with(path, "conformance_nobody/a/b") {
                refused(&changed, "an unknown workload")?;
            }
        }
    }
    Ok(format!("{}, each refused by name", counted(tried, "request")))
}

/// Each value of each document is replaced by others. To decide and to plan may read the world,
/// but not change it.
fn odd_values(bench: &Bench) -> Result<String, String> {
    let plugin = bench.instance()?;
    let odd = [
        Value::Null,
        json!(-1),
        json!(u64::MAX),
        json!(1.0e308),
        json!(""),
        json!("\u{0}../../\u{202e}"),
        json!("long".repeat(16 << 10)),
        json!([]),
        json!({}),
        json!([[[[[[[[1]]]]]]]]),
    ];
    let mut tried = 0;
    for document in documents(bench)? {
        for path in paths(&document) {
            for value in &odd {
                let mut changed = document.clone();
                if let Some(found) = changed.pointer_mut(&path) {
                    *found = value.clone();
                }
                if changed["body"]["call"]["kind"] == json!("run") {
                    continue;
                }
                tried += 1;
                send(bench, &plugin, changed.to_string().into_bytes())?;
            }
        }
    }
    let others = [Vec::new(), vec![0; 4096], vec![0xff; 4096], b"[".repeat(1 << 20)];
    for bytes in others {
        tried += 1;
        if let Answer::Reply(_) = send(bench, &plugin, bytes)? {
            return Err("it answers what is no request".to_owned());
        }
    }
    Ok(format!("{}, each with an answer", counted(tried, "request")))
}

/// The paths of all values within a document.
fn paths(document: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    walk(
                        value,
                        &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")),
                        found,
                    );
                }
            }
            Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    walk(value, &format!("{at}/{index}"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(document, "", &mut found);
    found
}

/// Configurations that make no sense are refused or not, but never with a panic.
fn odd_config(bench: &Bench) -> Result<String, String> {
    let plugin = bench.plugin()?;
    let workload = &plugin.workload.workload;
    let bodies = [
        json!({}),
        json!([]),
        json!({ workload: null }),
        json!({ workload: [] }),
        json!({ workload: "text" }),
        json!({ workload: { "conformance_field": u64::MAX } }),
        json!({ "conformance_nobody": {} }),
    ];
    let documents = bodies.iter().map(|body| json!({ "schema": 1, "body": body }).to_string());
    let raw = ["", "{", "null", "[[[["].map(ToOwned::to_owned);
    let mut tried = 0;
    for document in documents.chain(raw) {
        tried += 1;
        match plugin.library.init(document.clone().into_bytes()) {
            Ok(_) => {}
            Err(InitError::Refused(refusal)) => {
                message::decode::<Fault>(&refusal).map_err(|why| {
                    format!("its refusal of the configuration `{document}` is no fault: {why}")
                })?;
            }
            Err(InitError::Panicked(text)) => {
                return Err(format!("it panics with the configuration `{document}`: {text}"));
            }
            Err(InitError::Crashed(crash)) => {
                return Err(format!("it crashes with the configuration `{document}`: {crash}"));
            }
        }
    }
    Ok(counted(tried, "configuration"))
}
