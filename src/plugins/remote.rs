//! A plugin's machine as the runtime sees it.

use std::sync::Arc;

use fsm_core::{AnyMachine, Data, Fault, Graph, Outcome, Port, RunId, StepCall};
use futures::{
    future::{BoxFuture, Either, select},
    pin_mut,
};
use plugin_sdk::message::{self, Migrated, Request};

use super::{
    calls::{Services, StepCalls},
    workload::Hosted,
};
use crate::Error;

/// One machine of a workload. The runtime knows it as `workload.machine`, as several workloads
/// may have a machine `backup`.
#[derive(Debug)]
pub(super) struct RemoteMachine {
    /// As the runtime knows it.
    graph: Graph,
    /// As the plugin knows it.
    name: String,
    workload: Hosted,
    services: Arc<Services>,
}

/// The runtime's name of the machine `machine` of `workload`.
pub(crate) fn machine_name(workload: &str, machine: &str) -> String {
    format!("{workload}.{machine}")
}

impl Hosted {
    /// The workload's machines, for a runtime.
    pub(crate) async fn machines(
        &self,
        services: &Arc<Services>,
    ) -> Result<Vec<impl AnyMachine + use<>>, Error> {
        let graphs = self.graphs().await?.into_iter();
        let machine = |mut graph: Graph| {
            let qualified = machine_name(self.name(), &graph.machine);
            let name = std::mem::replace(&mut graph.machine, qualified);
            RemoteMachine { graph, name, workload: self.clone(), services: Arc::clone(services) }
        };
        Ok(graphs.map(machine).collect())
    }

    /// The runtime's name of this workload's machine `machine`.
    pub(crate) fn machine_name(&self, machine: &str) -> String {
        machine_name(self.name(), machine)
    }
}

impl RemoteMachine {
    async fn outcome(&self, mut call: StepCall, port: Arc<dyn Port>) -> Result<Outcome, Fault> {
        let scope = self.services.scope(&call.run)?;
        call.machine.clone_from(&self.name);
        let _at_work = scope.hold.step();
        let request =
            Request::Step { operation: scope.operation.clone(), item: scope.item.clone(), call };
        let request = message::encode(&request)?;
        let cancellation = port.cancellation();
        let calls = StepCalls::begin(Arc::clone(&self.services), scope, port).await;
        let task = self.workload.instance().start(request, Arc::new(calls));
        let canceller = task.canceller();
        let cancelled = async move {
            cancellation.requested().await;
            canceller.cancel();
            // The task still ends with a reply.
            futures::future::pending::<()>().await;
        };
        pin_mut!(cancelled);
        let reply = match select(task, cancelled).await {
            Either::Left((reply, _)) => {
                reply.map_err(|fault| Error::from(fault).fault().clone())?
            }
            Either::Right(((), _)) => unreachable!("a pending future is never ready"),
        };
        match reply.result {
            Ok(reply) => {
                let mut outcome: Outcome = message::decode(&reply)?;
                for child in &mut outcome.spawned {
                    child.machine = self.workload.machine_name(&child.machine);
                }
                Ok(outcome)
            }
            Err(fault) => Err(message::decode_fault(&fault)),
        }
    }
}

impl AnyMachine for RemoteMachine {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn ready<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, ()> {
        Box::pin(self.services.ready(run))
    }

    fn step(&self, call: StepCall, port: Arc<dyn Port>) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.outcome(call, port).await.unwrap_or_else(Outcome::from) })
    }

    fn migrate(
        &self,
        from: u32,
        state: String,
        data: Data,
    ) -> BoxFuture<'_, Result<(String, Data), Fault>> {
        let workload = self.workload.name().to_owned();
        let request = Request::Migrate { workload, machine: self.name.clone(), from, state, data };
        Box::pin(async move {
            let migrated: Result<Migrated, Error> = self.workload.ask(&request).await;
            let Migrated { state, data } = migrated.map_err(|error| error.fault().clone())?;
            Ok((state, data))
        })
    }
}
