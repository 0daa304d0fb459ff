//! A plugin in the agent's process whose code does not return holds one of the agent's threads.
//! Nothing can take it back; the embedder is told.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use mercury::{Environment, Event, Events, Item, ItemId, Plugin, PointMeta, Timestamp};
use plugin_sdk::{
    Config, Decision, Fault, Machines, Manifest, RestoreRequest, RunPlan, Wanted, Workload,
    abi::Place, async_trait,
};
use support::{World, soon, time::Driven, until};

/// Where code of the plugin's waits.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How many have come.
    came: u32,
    is_open: bool,
}

static GATE: Gate =
    Gate { state: Mutex::new(State { came: 0, is_open: false }), changed: Condvar::new() };

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.came += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.is_open).unwrap());
    }

    fn wait_for(&self, came: u32) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.came < came).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().is_open = true;
        self.changed.notify_all();
    }
}

/// Opens the gate, also when the test fails: a runtime waits for its threads.
struct Opens;

impl Drop for Opens {
    fn drop(&mut self) {
        GATE.open();
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

/// When the plugin was called that the next event of that kind is about.
async fn told(events: &mut Events) -> Timestamp {
    let told = until(events, |event| matches!(event, Event::PluginBlocks { .. })).await;
    let Event::PluginBlocks { plugin, since, .. } = told else { unreachable!("it was asked for") };
    assert_eq!(plugin, "plugin-rude");
    since
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_does_not_return_is_told_once_and_everything_else_goes_on() {
    let world = World::new();
    let time = Driven::new();
    let builder = world.builder().plugin(Plugin::linked::<Rude>()).environment(time.clone());
    let engine = builder.start().await.unwrap();
    let mut events = engine.subscribe();
    let ask = || {
        tokio::spawn({
            let engine = engine.clone();
            async move { engine.discover().await }
        })
    };

    let opens = Opens;
    let (began, first) = (time.now(), ask());
    tokio::task::spawn_blocking(|| GATE.wait_for(1)).await.unwrap();
    time.advance(Duration::from_secs(31));
    assert_eq!(told(&mut events).await, began);

    // Another workload is served.
    support::small(&world.database("shop.db"), 10);
    support::back_up(&engine, &world.item("shop.db"), "meanwhile").await.unwrap();

    // The next that is told is another call, although the first one still does not return.
    let (later, second) = (time.now(), ask());
    tokio::task::spawn_blocking(|| GATE.wait_for(2)).await.unwrap();
    time.advance(Duration::from_secs(31));
    assert_eq!(told(&mut events).await, later);

    drop(opens);
    soon(first).await.unwrap().unwrap();
    soon(second).await.unwrap().unwrap();
}
