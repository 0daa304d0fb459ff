//! The machines of a workload, for the engine's runtime: whom each attempt at a step works for.

use std::sync::Arc;

use fsm_core::{Fault, Port, RunId};
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
    ) -> Result<Vec<RemoteMachine>, Error> {
        let graphs = self.graphs().await?.into_iter();
        let machine = |graph| {
            let hosts: Arc<dyn StepHosts> = Arc::clone(services) as _;
            RemoteMachine::new(self.name(), graph, self.instance().clone(), hosts)
        };
        Ok(graphs.map(machine).collect())
    }

    /// The runtime's name of this workload's machine `machine`.
    pub(crate) fn machine_name(&self, machine: &str) -> String {
        machine_name(self.name(), machine)
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
