//! A workload's way to its secrets: open while a request to it is under way, and closed after it.
#![cfg(feature = "host")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::executor::block_on;
use plugin_sdk::{
    Bundle, Config, Decision, Fault, Item, ItemId, Machines, Manifest, PointMeta, RestoreRequest,
    RunPlan, Secret, Secrets, Wanted, Workload,
    abi::{BoxFuture, HostCalls, Reply},
    async_trait,
    host::{Library, PluginInstance},
    message::{self, Request, SecretGet, call},
};

/// What the workload was opened with, kept after its requests.
static KEPT: Mutex<Option<Secrets>> = Mutex::new(None);

struct Keeps(Secrets);

#[async_trait]
impl Workload for Keeps {
    fn manifest() -> Manifest {
        Manifest::new("plugin-keeps", "0.1.0", "keeps").secret("password")
    }

    fn open(config: Config) -> Result<Self, Fault> {
        *KEPT.lock().expect("no panic under the lock") = Some(config.secrets());
        Ok(Keeps(config.secrets()))
    }

    async fn discover(&self) -> Result<Vec<Item>, Fault> {
        let password = self.0.get("password").await?;
        let id = ItemId::new("keeps", "one", password.expose_str()?);
        Ok(vec![Item::new(id.map_err(|error| Fault::bug("keeps", error.to_string()))?)])
    }

    async fn decide(&self, _: &ItemId, _: &Wanted, _: &[PointMeta]) -> Result<Decision, Fault> {
        Err(Fault::permanent("keeps.decide", "there is nothing to back up"))
    }

    async fn restore(&self, _: &RestoreRequest) -> Result<RunPlan, Fault> {
        Err(Fault::permanent("keeps.restore", "there is nothing to restore"))
    }

    fn machines(self: &Arc<Self>) -> Machines {
        Machines::new()
    }
}

/// Gives every secret the value of its name, or refuses it.
struct Gives(bool);

impl HostCalls for Gives {
    fn call(&self, op: &str, body: Bytes) -> BoxFuture<Reply> {
        assert_eq!(op, call::SECRET);
        let SecretGet { name } = message::decode(&body).expect("a name");
        let refusal = Fault::user("secret.missing", "there is no such secret");
        Box::pin(std::future::ready(match self.0 {
            true => Reply::ok(Secret::new(name).into_bytes()),
            false => Reply::error(message::encode_fault(&refusal)),
        }))
    }
}

fn discover(plugin: &PluginInstance, host: Gives) -> Result<Vec<Item>, Fault> {
    let request = message::encode(&Request::Discover { workload: "keeps".to_owned() });
    let reply = block_on(plugin.start(request.expect("a request"), Arc::new(host)));
    match reply.expect("a reply").result {
        Ok(items) => message::decode(&items),
        Err(fault) => Err(message::decode_fault(&fault)),
    }
}

#[test]
fn secrets_are_given_while_a_request_is_under_way_and_not_after() {
    let library = Library::linked::<Bundle<(Keeps,)>>();
    let config = message::encode(&serde_json::json!({})).expect("a configuration");
    let plugin = library.init(config).expect("an instance");

    // The host's fault is the workload's to see.
    let fault = discover(&plugin, Gives(false)).expect_err("refused");
    assert_eq!(fault.code(), "secret.missing");
    // It was given, and used where it would be kept: the item's name is refused.
    let fault = discover(&plugin, Gives(true)).expect_err("it would be written down");
    assert_eq!(fault.code(), "secret.leaked");

    let kept = KEPT.lock().expect("no panic under the lock").take().expect("it was opened");
    let fault = block_on(kept.get("password")).expect_err("nothing is under way");
    assert_eq!(fault.code(), "secret.no_request");
}
