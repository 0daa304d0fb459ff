//! A plugin in the agent's process whose code does not return holds one of the agent's threads.
//! Nothing can take it back; the embedder is told.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use mercury::{Event, Item, ItemId, Plugin, PointMeta};
use plugin_sdk::{
    Config, Decision, Fault, Machines, Manifest, RestoreRequest, RunPlan, Wanted, Workload,
    abi::Place, async_trait,
};
use support::{World, soon, time::Driven, until};

/// Where code of the plugin's waits, and whether it is there.
#[derive(Default)]
struct Gate {
    /// Whether somebody has come, and whether it is open.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

static GATE: Gate = Gate { state: Mutex::new((false, false)), changed: Condvar::new() };

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.1).unwrap());
    }

    fn wait_for_somebody(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| !state.0).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// Its jobs are polled in place, and one of them blocks, which they must not.
struct Rude;

#[async_trait]
impl Workload for Rude {
    fn manifest() -> Manifest {
        Manifest::new("plugin-rude", "0.1.0", "rude")
    }
    fn open(_: Config) -> Result<Self, Fault> {
        Ok(Rude)
    }
    fn place(&self) -> Place {
        Place::Inline
    }
    async fn discover(&self) -> Result<Vec<Item>, Fault> {
        GATE.pass();
        Ok(Vec::new())
    }
    async fn decide(&self, _: &ItemId, _: &Wanted, _: &[PointMeta]) -> Result<Decision, Fault> {
        Err(Fault::permanent("rude.decide", "it decides nothing"))
    }
    async fn restore(&self, _: &RestoreRequest) -> Result<RunPlan, Fault> {
        Err(Fault::permanent("rude.restore", "it restores nothing"))
    }
    fn machines(self: &Arc<Self>) -> Machines {
        Machines::new()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_keeps_a_thread_is_told_once_and_everything_else_goes_on() {
    let world = World::new();
    let time = Driven::new();
    let builder = world.builder().plugin(Plugin::linked::<Rude>()).environment(time.clone());
    let engine = builder.start().await.unwrap();
    let mut events = engine.subscribe();
    let asked = tokio::spawn({
        let engine = engine.clone();
        async move { engine.discover().await }
    });
    tokio::task::spawn_blocking(|| GATE.wait_for_somebody()).await.unwrap();

    time.advance(Duration::from_secs(31));
    let told = until(&mut events, |event| matches!(event, Event::PluginBlocks { .. })).await;
    let Event::PluginBlocks { plugin, .. } = told else { unreachable!("it was asked for") };
    assert_eq!(plugin, "plugin-rude");

    // Another workload is served, long after, and nobody is told again.
    time.advance(Duration::from_secs(300));
    let path: PathBuf = world.database("shop.db");
    support::small(&path, 10);
    support::back_up(&engine, &world.item("shop.db"), "meanwhile").await.unwrap();
    GATE.open();
    soon(asked).await.unwrap().unwrap();
    drop(engine);
    while let Some(event) = soon(events.next()).await {
        assert!(!matches!(event, Event::PluginBlocks { .. }), "{event:?}");
    }
}
