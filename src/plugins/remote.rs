//! The machines of a workload, for the engine's runtime: whom each attempt at a step works for, and
//! when it may begin.

use std::sync::Arc;

use fsm_core::{AnyMachine, Data, Fault, Graph, Outcome, Port, RunId, StepCall};
use futures::future::BoxFuture;
use plugin_sdk::host::{PluginInstance, RemoteMachine, StepHost, StepHosts, machine_name};

use super::{
    calls::{Services, StepCalls},
    workload::Hosted,
};
use crate::Error;

impl Hosted {
    /// The workload's machines, for a runtime.
    pub(crate) async fn machines(
        &self,
        services: &Arc<Services>,
    ) -> Result<Vec<impl AnyMachine + use<>>, Error> {
        let graphs = self.graphs().await?.into_iter();
        let machine = |graph| {
            let hosts: Arc<dyn StepHosts> = Arc::clone(services) as _;
            let machine = RemoteMachine::new(self.name(), graph, self.instance().clone(), hosts);
            Admitted { machine, services: Arc::clone(services) }
        };
        Ok(graphs.map(machine).collect())
    }

    /// The runtime's name of this workload's machine `machine`.
    pub(crate) fn machine_name(&self, machine: &str) -> String {
        machine_name(self.name(), machine)
    }
}

/// A machine whose steps begin when their operation has what it needs.
struct Admitted {
    machine: RemoteMachine,
    services: Arc<Services>,
}

impl AnyMachine for Admitted {
    fn graph(&self) -> &Graph {
        self.machine.graph()
    }

    fn ready<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, ()> {
        Box::pin(self.services.ready(run))
    }

    fn step(&self, call: StepCall, port: Arc<dyn Port>) -> BoxFuture<'_, Outcome> {
        // A run that belongs to no operation is refused when its step begins.
        let at_work = self.services.scope(&call.run).map(|scope| scope.pass.step());
        Box::pin(async move {
            let outcome = self.machine.step(call, port).await;
            drop(at_work);
            outcome
        })
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

impl StepHosts for Services {
    fn begin(
        self: Arc<Self>,
        run: RunId,
        port: Arc<dyn Port>,
    ) -> BoxFuture<'static, Result<StepHost, Fault>> {
        Box::pin(async move {
            let scope = self.scope(&run)?;
            let (operation, item) = (scope.operation.clone(), scope.item.clone());
            let calls = Arc::new(StepCalls::begin(self, scope, port).await);
            Ok(StepHost { operation, item, calls })
        })
    }

    /// One process a run, where the plugin has processes of its own: what a run's step did to its
    /// process stays with the run.
    fn plugin(&self, run: &RunId, plugin: &PluginInstance) -> PluginInstance {
        self.scope(run).map_or_else(|_| plugin.clone(), |scope| scope.plugin(plugin))
    }
}
