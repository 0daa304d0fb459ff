//! Where a workload's code runs, and on how many threads.
#![cfg(all(feature = "host", feature = "tokio"))]

use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use plugin_sdk::abi::Place;
use plugin_sdk::host::{Library, NoCalls, PluginInstance};
use plugin_sdk::message::{self, Request, Terms};
use plugin_sdk::{
    Bundle, Config, Decision, Fault, Item, ItemId, Machines, Manifest, PointMeta, RestoreRequest,
    RunPlan, TokioExecutor, Wanted, Workload, Workloads, async_trait,
};
use serde_json::json;

/// A workload whose one item is named after the thread that discovers it and the workers it has.
macro_rules! workload {
    ($name:ident, $workload:literal, |$config:ident| $place:expr) => {
        struct $name {
            place: Place,
            workers: NonZeroUsize,
        }

        #[async_trait]
        impl Workload for $name {
            fn manifest() -> Manifest {
                Manifest::new("plugin-places", "1.0.0", $workload)
            }
            fn open($config: Config) -> Result<Self, Fault> {
                Ok($name { workers: $config.workers(), place: $place })
            }
            async fn discover(&self) -> Result<Vec<Item>, Fault> {
                let thread = std::thread::current().name().unwrap_or("none").to_owned();
                let item = ItemId::new($workload, &self.workers.to_string(), &thread);
                Ok(vec![Item::new(item.map_err(|error| Fault::bug("test", error.to_string()))?)])
            }
            async fn decide(
                &self,
                _: &ItemId,
                _: &Wanted,
                _: &[PointMeta],
            ) -> Result<Decision, Fault> {
                Err(Fault::user("decide", std::thread::current().name().unwrap_or("none")))
            }
            async fn restore(&self, _: &RestoreRequest) -> Result<RunPlan, Fault> {
                Err(Fault::user("restore", std::thread::current().name().unwrap_or("none")))
            }
            fn place(&self) -> Place {
                self.place.clone()
            }
            fn machines(self: &Arc<Self>) -> Machines {
                Machines::new()
            }
        }
    };
}
workload!(Own, "own", |config| Place::Own);
workload!(Inline, "inline", |config| Place::Inline);
workload!(OnTokio, "tokio", |config| Place::On(Arc::new(TokioExecutor::new(config.workers())?)));

fn open<W: Workloads>(config: impl Into<Bytes>) -> PluginInstance {
    Library::linked::<Bundle<W>>().init(config).expect("an instance")
}

fn ask(plugin: &PluginInstance, request: &Request) -> String {
    let document = message::encode(request).expect("JSON");
    match block_on(plugin.start(document, Arc::new(NoCalls))).expect("a reply").result {
        Ok(items) => {
            let items: Vec<Item> = message::decode(&items).expect("items");
            items[0].id.to_string()
        }
        Err(fault) => message::decode_fault(&fault).message().to_owned(),
    }
}

fn discover(plugin: &PluginInstance, workload: &str) -> String {
    ask(plugin, &Request::Discover { workload: workload.to_owned() })
}

#[test]
fn each_workload_runs_where_it_says_also_beside_others() {
    let none = message::encode(&json!({})).expect("JSON");
    let here = std::thread::current().name().expect("a test has a name").to_owned();
    let alone = discover(&open::<(Inline,)>(none.clone()), "inline");
    assert_eq!(alone, format!("inline/2/{here}"));
    assert_eq!(discover(&open::<(OnTokio,)>(none.clone()), "tokio"), "tokio/2/plugin-tokio");

    let together = open::<(Own, Inline, OnTokio)>(none);
    assert_eq!(discover(&together, "own"), "own/2/plugin-job");
    assert_eq!(discover(&together, "inline"), format!("inline/2/{here}"));
    assert_eq!(discover(&together, "tokio"), "tokio/2/plugin-tokio");
    assert_eq!(discover(&together, "other"), "there is no workload `other` here");
    // A request names its workload in one of three ways.
    let item = ItemId::new("inline", "a", "b").expect("a fixed id is valid");
    let restore = RestoreRequest::new("back".into(), item.clone(), Vec::new());
    assert_eq!(ask(&together, &Request::Restore { restore }), here);
    let wanted = Wanted::new("nightly".into(), plugin_sdk::PointKind::Full);
    assert_eq!(ask(&together, &Request::Decide { item, wanted, points: Vec::new() }), here);
}

#[test]
fn the_host_says_how_many_threads_to_start_and_an_older_one_says_nothing() {
    let three = NonZeroUsize::new(3).expect("three is not zero");
    let said = message::encode_config(&json!({}), Terms::new().workers(three)).expect("JSON");
    assert_eq!(discover(&open::<(OnTokio,)>(said), "tokio"), "tokio/3/plugin-tokio");
    for odd in [
        r#"{"schema":1,"body":{}}"#,
        r#"{"schema":1,"body":{},"host":{"colour":"red"}}"#,
        r#"{"schema":1,"body":{},"host":{"workers":0}}"#,
        r#"{"schema":1,"body":{},"host":"three"}"#,
    ] {
        assert_eq!(discover(&open::<(Own,)>(odd), "own"), "own/2/plugin-job", "{odd}");
    }
}
