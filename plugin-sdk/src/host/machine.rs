//! A plugin's machine as a runtime sees it.

use std::{fmt, sync::Arc};

use fsm_core::{AnyMachine, Class, Data, Fault, Graph, Outcome, Port, RunId, StepCall, Verdict};
use futures::{
    future::{BoxFuture, Either, select},
    pin_mut,
};

use super::instance::PluginInstance;
use crate::{
    ItemId, OperationId,
    abi::{Crash, HostCalls, TaskFault},
    message::{self, Migrated, Request},
};

/// What a host knows of the runs whose steps a plugin performs.
///
/// **The machine guarantees** that it asks once for each attempt at a step, and that it keeps the
/// [`StepHost::calls`] until the plugin's job has ended. **The implementer guarantees** that an
/// attempt at a run does not begin while the job of an earlier one is still at work: a job that
/// was given up goes on until its next `await`, and holds its `calls` until then.
pub trait StepHosts: Send + Sync + 'static {
    /// The host of one attempt at a step of `run`; what the step asks of the runtime goes through
    /// `port`.
    ///
    /// # Errors
    ///
    /// A fault, with which the attempt ends: the run belongs to no operation, say.
    fn begin(
        self: Arc<Self>,
        run: RunId,
        port: Arc<dyn Port>,
    ) -> BoxFuture<'static, Result<StepHost, Fault>>;

    /// The plugin as a step of `run` has it. The machine's own instance by default; a host that
    /// gives each run a process answers with the [`apart`](PluginInstance::apart) instance that it
    /// keeps for the run.
    fn plugin(&self, run: &RunId, plugin: &PluginInstance) -> PluginInstance {
        let _ = run;
        plugin.clone()
    }
}

/// Whom one attempt at a step works for.
#[derive(Clone)]
pub struct StepHost {
    /// The operation that the run belongs to.
    pub operation: OperationId,
    /// The item that it works on.
    pub item: ItemId,
    /// What answers the step's calls.
    pub calls: Arc<dyn HostCalls>,
}

impl fmt::Debug for StepHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepHost")
            .field("operation", &self.operation)
            .field("item", &self.item)
            .finish_non_exhaustive()
    }
}

/// One machine of a plugin's workload, behind the boundary: a step is a request to the plugin.
///
/// The runtime knows it as [`machine_name`] says, as several workloads may have a machine
/// `backup`.
pub struct RemoteMachine {
    /// As the runtime knows it.
    graph: Graph,
    /// As the plugin knows it.
    name: String,
    workload: String,
    plugin: PluginInstance,
    hosts: Arc<dyn StepHosts>,
}

/// The runtime's name of the machine `machine` of `workload`.
#[must_use]
pub fn machine_name(workload: &str, machine: &str) -> String {
    format!("{workload}.{machine}")
}

impl RemoteMachine {
    /// The machine of `plugin`'s workload `workload` whose graph is `graph`, as the plugin gave
    /// it. Its steps are served by what `hosts` gives them.
    #[must_use]
    pub fn new(
        workload: impl Into<String>,
        mut graph: Graph,
        plugin: PluginInstance,
        hosts: Arc<dyn StepHosts>,
    ) -> Self {
        let workload = workload.into();
        let qualified = machine_name(&workload, &graph.machine);
        let name = std::mem::replace(&mut graph.machine, qualified);
        RemoteMachine { graph, name, workload, plugin, hosts }
    }

    async fn outcome(&self, mut call: StepCall, port: Arc<dyn Port>) -> Result<Outcome, Fault> {
        call.machine.clone_from(&self.name);
        let cancellation = port.cancellation();
        let begun = Arc::clone(&self.hosts).begin(call.run.clone(), port).await?;
        let plugin = self.hosts.plugin(&call.run, &self.plugin);
        let StepHost { operation, item, calls } = begun;
        let request = message::encode(&Request::Step { operation, item, call })?;
        let task = plugin.start(request, calls);
        let canceller = task.canceller();
        let cancelled = async move {
            cancellation.requested().await;
            canceller.cancel();
            // The task still ends with a reply.
            futures::future::pending::<()>().await;
        };
        pin_mut!(cancelled);
        let reply = match select(task, cancelled).await {
            Either::Left((reply, _)) => reply?,
            Either::Right(((), _)) => unreachable!("a pending future is never ready"),
        };
        let reply = reply.result.map_err(|fault| message::decode_fault(&fault))?;
        let mut outcome: Outcome = message::decode(&reply)?;
        for child in &mut outcome.spawned {
            child.machine = machine_name(&self.workload, &child.machine);
        }
        Ok(outcome)
    }

    async fn migrated(&self, request: Request) -> Result<(String, Data), Fault> {
        let reply = self.plugin.start(message::encode(&request)?, Arc::new(super::NoCalls)).await?;
        let reply = reply.result.map_err(|fault| message::decode_fault(&fault))?;
        let Migrated { state, data } = message::decode(&reply)?;
        Ok((state, data))
    }
}

impl AnyMachine for RemoteMachine {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn step(&self, call: StepCall, port: Arc<dyn Port>) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            match self.outcome(call, port).await {
                Ok(outcome) => outcome,
                // Another process would only be another death. Somebody has to look at it.
                Err(fault) if fault.code() == GIVEN_UP => Verdict::Quarantine(fault).into(),
                Err(fault) => fault.into(),
            }
        })
    }

    fn migrate(
        &self,
        from: u32,
        state: String,
        data: Data,
    ) -> BoxFuture<'_, Result<(String, Data), Fault>> {
        let workload = self.workload.clone();
        let request = Request::Migrate { workload, machine: self.name.clone(), from, state, data };
        Box::pin(self.migrated(request))
    }
}

impl fmt::Debug for RemoteMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteMachine")
            .field("machine", &self.graph.machine)
            .finish_non_exhaustive()
    }
}

/// The code of a fault that says: no process is started for the run any more.
const GIVEN_UP: &str = "plugin.given_up";

/// A plugin that gave no answer is a bug of the plugin's, whatever the reason. If its process
/// ended, nothing is known of what the step did: that is an interruption, like the agent's own end.
impl From<TaskFault> for Fault {
    fn from(fault: TaskFault) -> Self {
        let code = match fault {
            TaskFault::Panicked(_) => "plugin.panicked",
            TaskFault::Crashed(Crash::GivenUp { .. }) => GIVEN_UP,
            TaskFault::Crashed(_) => {
                return Fault::new(Class::Interrupted, "plugin.crashed", fault.to_string());
            }
            _ => "plugin.task",
        };
        Fault::bug(code, format!("the plugin gave no answer: {fault}"))
            .advise("report it to the plugin's author")
    }
}
