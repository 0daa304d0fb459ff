//! A plugin that is wrong on purpose: it writes to standard output, which is its host's. The
//! conformance kit has to find that.

use std::sync::Arc;

use plugin_sdk::{
    Config, Context, Decision, Fault, Host, Item, ItemId, Machine, Machines, Manifest, Operation,
    PointMeta, RestoreRequest, RunPlan, State, Step, Wanted, Workload, async_trait, check, go,
};
use serde::{Deserialize, Serialize};

/// The workload `chatters`, without an item.
#[derive(Debug)]
pub struct Chatters;

#[async_trait]
impl Workload for Chatters {
    fn manifest() -> Manifest {
        Manifest::new("plugin-chatters", "0.1.0", "chatters").operation(Operation::Discover)
    }

    fn open(_: Config) -> Result<Self, Fault> {
        // The mistake: what is meant for people goes through `tracing`.
        println!("a stray line");
        Ok(Chatters)
    }

    async fn discover(&self) -> Result<Vec<Item>, Fault> {
        Ok(Vec::new())
    }

    async fn decide(&self, _: &ItemId, _: &Wanted, _: &[PointMeta]) -> Result<Decision, Fault> {
        Err(Fault::user("chatters.backup", "backups are not offered"))
    }

    async fn restore(&self, _: &RestoreRequest) -> Result<RunPlan, Fault> {
        Err(Fault::user("chatters.restore", "restores are not offered"))
    }

    fn machines(self: &Arc<Self>) -> Machines {
        Machines::new().with(Nothing)
    }
}

/// begin → ended, and nothing in between.
#[derive(Debug)]
pub struct Nothing;

impl Machine for Nothing {
    const NAME: &'static str = "nothing";
    type Host = Host;
    type Initial = Begin;
    type States = (Begin, Ended);
}
check!(Nothing);

/// Where it begins.
#[derive(Debug, Serialize, Deserialize)]
pub struct Begin;

/// Where it ends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ended;

impl State<Nothing> for Begin {
    const NAME: &'static str = "begin";
    const DOC: &'static str = "Do nothing.";
    type Next = (Ended,);

    async fn run(self, _: &Nothing, _: &mut Context<'_, Nothing>) -> Step<Self> {
        go(Ended)
    }
}

impl State<Nothing> for Ended {
    const NAME: &'static str = "ended";
    const DOC: &'static str = "Nothing was done.";
    type Next = ();
}

plugin_sdk::export!(Chatters);
