//! A machine between the runtime and the plugin's: it tells the floor when a step is at work.

use std::sync::Arc;

use fsm_core::{AnyMachine, Data, Fault, Graph, Outcome, Port, RunId, StepCall, StepKind, Verdict};
use futures::future::BoxFuture;

use super::{desk::Desk, floor::Floor};
use crate::host::RemoteMachine;

pub(super) struct Watched {
    machine: RemoteMachine,
    floor: Arc<Floor>,
    desk: Arc<Desk>,
}

/// A step that is at work.
struct AtWork<'f>(&'f Floor, RunId);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.step_ends(&self.1);
    }
}

impl Watched {
    pub(super) fn new(machine: RemoteMachine, floor: Arc<Floor>, desk: Arc<Desk>) -> Self {
        Watched { machine, floor, desk }
    }

    async fn watch(&self, call: StepCall, port: Arc<dyn Port>) -> Outcome {
        let is_step = call.kind == StepKind::Run;
        let _at_work = AtWork(&self.floor, call.run.clone());
        self.floor.step_begins(&call.run, if is_step { &call.state } else { "" });
        let outcome = self.machine.step(call, port).await;
        if let Verdict::Fault(fault) = &outcome.verdict
            && let "plugin.panicked" | "plugin.crashed" = fault.code()
        {
            self.desk.panicked(fault.message().to_owned());
        }
        outcome
    }
}

impl AnyMachine for Watched {
    fn graph(&self) -> &Graph {
        self.machine.graph()
    }

    fn step(&self, call: StepCall, port: Arc<dyn Port>) -> BoxFuture<'_, Outcome> {
        Box::pin(self.watch(call, port))
    }

    fn migrate(
        &self,
        from: u32,
        state: String,
        data: Data,
    ) -> BoxFuture<'_, Result<(String, Data), Fault>> {
        self.machine.migrate(from, state, data)
    }
}
