//! The workload: what there is, who may call, and where a call belongs.

use std::{sync::Arc, time::Duration};

use plugin_sdk::{
    Caller, Claim, Config, Create, Decision, Endpoint, Fault, IncomingCall, Item, ItemId, Machines,
    Manifest, Operation, OperationId, PointId, PointKind, PointMeta, RestoreRequest, Route,
    RunPlan, Wanted, Workload, async_trait,
};
use serde::Deserialize;

use crate::{
    command::{Await, Command},
    restore::{GiveBack, Restore},
    save::{Receive, Save},
    talk::{Hello, ToProgram, Want, framed},
};

/// Streams that one call may have.
const PIPES_MAX: usize = 16;

/// What programs pass through pipes.
#[derive(Debug)]
pub struct Pipes {
    settings: Settings,
}

/// The configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The users whose programs may call.
    users: Vec<u32>,
    /// The items that discovery reports.
    #[serde(default)]
    items: Vec<String>,
    /// What makes the system call, for backups that the agent begins: a program and its arguments.
    #[serde(default)]
    command: Vec<String>,
    /// How long a program waits for its turn, in seconds. Without end by default.
    #[serde(default)]
    patience_s: Option<u64>,
}

#[async_trait]
impl Workload for Pipes {
    fn manifest() -> Manifest {
        Manifest::new("plugin-pipes", env!("CARGO_PKG_VERSION"), "pipes")
            .operation(Operation::Discover)
            .operation(Operation::Backup(PointKind::Full))
            .config_schema(serde_json::json!({
                "type": "object",
                "required": ["users"],
                "properties": {
                    "users": { "type": "array", "items": { "type": "integer" } },
                    "items": { "type": "array", "items": { "type": "string" } },
                    "command": { "type": "array", "items": { "type": "string" } },
                    "patience_s": { "type": "integer", "minimum": 1 }
                },
                "additionalProperties": false
            }))
            .ingress()
    }

    fn open(config: Config) -> Result<Self, Fault> {
        Ok(Pipes { settings: config.read()? })
    }

    async fn discover(&self) -> Result<Vec<Item>, Fault> {
        self.settings.items.iter().map(|name| item(name).map(Item::new)).collect()
    }

    async fn decide(&self, _: &ItemId, _: &Wanted, _: &[PointMeta]) -> Result<Decision, Fault> {
        let command = self.settings.command.clone();
        Ok(Decision::Run(RunPlan::new::<Command>(Await { command })?))
    }

    async fn restore(&self, _: &RestoreRequest) -> Result<RunPlan, Fault> {
        let message = "a restore needs pipes to write into, so it begins with a program";
        Err(Fault::user("pipes.restore", message).advise("run `pipes restore`"))
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, Fault> {
        let door = Endpoint::new("door");
        let callers = self.settings.users.iter().map(|user| Caller::Uid(*user));
        Ok(vec![callers.fold(door, Endpoint::caller)])
    }

    fn route(&self, call: &IncomingCall) -> Route {
        self.routed(call).unwrap_or_else(|fault| {
            let (code, answer) = (fault.code().to_owned(), failed(&fault.to_string()));
            Route::refuse(code, answer)
        })
    }

    fn machines(self: &Arc<Self>) -> Machines {
        Machines::new().with(Save).with(Command).with(Restore)
    }
}

impl Pipes {
    fn routed(&self, call: &IncomingCall) -> Result<Route, Fault> {
        let hello: Hello = serde_json::from_slice(&call.first).map_err(|error| {
            Fault::user("pipes.hello", "the program does not say what it wants").caused_by(&error)
        })?;
        let Hello { want, item: name, pipes, operation } = hello;
        if !(1..=PIPES_MAX).contains(&pipes.len()) {
            let message = format!("{} pipes, and {PIPES_MAX} is the most", pipes.len());
            return Err(Fault::user("pipes.number", message));
        }
        let streams = Claim::Streams { count: u32::try_from(pipes.len()).unwrap_or(u32::MAX) };
        let item = item(&name)?;
        let create = match (want, operation) {
            (Want::Save, Some(operation)) => {
                let refusal = failed("there is no such operation under way");
                return Ok(Route::attach(OperationId::new(operation), refusal));
            }
            (Want::Save, None) => {
                let plan = RunPlan::new::<Save>(Receive {})?.claim(streams);
                Create::backup(call.id.clone(), item, PointKind::Full, plan)
            }
            (Want::Restore(point), _) => {
                let point = PointId::new(point);
                let plan = RunPlan::new::<Restore>(GiveBack { point: point.clone() })?;
                Create::restore(call.id.clone(), item, point, plan.claim(streams))
            }
        };
        let create = create.refusal(failed("it could not be done; the agent's log says why"));
        Ok(match self.settings.patience_s {
            Some(patience) => create.patience(Duration::from_secs(patience)).into(),
            None => create.into(),
        })
    }
}

fn item(name: &str) -> Result<ItemId, Fault> {
    ItemId::new("pipes", "local", name)
        .map_err(|error| Fault::user("pipes.item", "an item has a name").caused_by(&error))
}

fn failed(why: &str) -> Vec<u8> {
    // Short, and text: it has a frame.
    framed(&ToProgram::Failed { why: why.to_owned() }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use plugin_sdk::{Peer, Work};

    use super::*;

    fn route(first: &str) -> Route {
        let config = serde_json::json!({ "users": [7], "patience_s": 9 });
        let pipes = Pipes::open(Config::new(config)).unwrap();
        let (id, peer) = (OperationId::new("call-1"), Peer::new(7, 7, 7));
        pipes.route(&IncomingCall::new(id, "door", peer, first))
    }

    fn created(first: &str) -> Create {
        match route(first) {
            Route::Create(create) => *create,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_program_wants_becomes_an_operation_with_a_stream_for_each_pipe() {
        let save = created(r#"{ "want": "save", "item": "orders", "pipes": ["a", "b"] }"#);
        assert_eq!(save.operation.as_str(), "call-1");
        assert_eq!(save.item.as_str(), "pipes/local/orders");
        assert_eq!(
            (save.work, save.plan.machine.as_str()),
            (Work::Backup(PointKind::Full), "save")
        );
        assert_eq!(save.plan.claims, [Claim::Streams { count: 2 }]);
        assert_eq!(save.patience, Some(Duration::from_secs(9)));
        let restore = r#"{ "want": { "restore": "p" }, "item": "orders", "pipes": ["a"] }"#;
        let restore = created(restore);
        assert_eq!(restore.work, Work::Restore(PointId::new("p")));
        assert_eq!(restore.plan.machine, "restore");
    }

    #[test]
    fn a_program_that_was_started_for_an_operation_belongs_there() {
        let first =
            r#"{ "want": "save", "item": "orders", "pipes": ["a"], "operation": "nightly" }"#;
        let Route::Attach { operation, refusal } = route(first) else { panic!("it attaches") };
        assert_eq!(operation.as_str(), "nightly");
        assert!(!refusal.is_empty());
    }

    #[test]
    fn a_program_that_is_not_understood_is_told_so() {
        let many = format!(
            r#"{{ "want": "save", "item": "orders", "pipes": {:?} }}"#,
            vec!["p"; PIPES_MAX + 1]
        );
        for (first, expected) in [
            ("", "pipes.hello"),
            (r#"{ "want": "sing", "item": "orders", "pipes": ["a"] }"#, "pipes.hello"),
            (r#"{ "want": "save", "item": "", "pipes": ["a"] }"#, "pipes.item"),
            (r#"{ "want": "save", "item": "orders", "pipes": [] }"#, "pipes.number"),
            (&many, "pipes.number"),
        ] {
            let Route::Refuse { code, answer } = route(first) else { panic!("{first}") };
            assert_eq!(code, expected);
            let said: ToProgram = serde_json::from_slice(&answer[4..]).unwrap();
            assert!(matches!(said, ToProgram::Failed { .. }), "{said:?}");
        }
    }
}
