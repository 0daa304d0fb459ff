//! One workload of a plugin, asked through typed requests.

use std::sync::Arc;

use bytes::Bytes;
use fsm_core::{Fault, Graph};
use futures::future::BoxFuture;
use plugin_sdk::{
    Decision, Endpoint, IncomingCall, Item, ItemId, Manifest, Operation, PointId, PointMeta,
    RestoreRequest, Route, RunPlan, Until, Wanted,
    abi::{HostCalls, Reply, TaskFault},
    host::{NoCalls, PluginInstance},
    message::{self, Request},
};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::vault::{Confidant, Vault};
use crate::{Error, ErrorKind, SecretStore};

/// Calls that a workload is asked about at once.
const ROUTES: usize = 8;

/// How often a question is asked again when the plugin's process ended under it.
const ASKED_AGAIN: u32 = 2;

/// One workload of a plugin. Clones are the same workload.
#[derive(Clone, Debug)]
pub(crate) struct Hosted {
    manifest: Arc<Manifest>,
    instance: PluginInstance,
    vault: Arc<Vault>,
    routes: Arc<Semaphore>,
}

/// The host of a question where a call belongs: it serves nothing, and is there until the plugin
/// has let go of the question.
struct Routing {
    _permit: OwnedSemaphorePermit,
}

impl HostCalls for Routing {
    fn call(&self, op: &str, body: Bytes) -> BoxFuture<'static, Reply> {
        NoCalls.call(op, body)
    }
}

impl Hosted {
    /// A workload that is given the secrets that it declares from `store`. Called within a tokio
    /// runtime.
    pub(super) fn new(
        manifest: Manifest,
        instance: PluginInstance,
        store: Option<Arc<dyn SecretStore>>,
    ) -> Self {
        let vault = Arc::new(Vault::new(&manifest, store));
        let routes = Arc::new(Semaphore::new(ROUTES));
        Hosted { manifest: Arc::new(manifest), instance, vault, routes }
    }

    /// Where its steps get their secrets.
    pub(crate) fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(crate) fn name(&self) -> &str {
        &self.manifest.workload
    }

    /// Whether the manifest offers `operation`. One that lists nothing leaves it to the plugin's
    /// code to refuse.
    pub(crate) fn offers(&self, operation: Operation) -> bool {
        self.manifest.operations.is_empty() || self.manifest.operations.contains(&operation)
    }

    /// Plugin and version, as runs are pinned to them.
    pub(crate) fn origin(&self) -> String {
        format!("{} {}", self.manifest.plugin, self.manifest.version)
    }

    pub(super) fn instance(&self) -> &PluginInstance {
        &self.instance
    }

    pub(crate) async fn discover(&self) -> Result<Vec<Item>, Error> {
        let items: Vec<Item> =
            self.ask(&Request::Discover { workload: self.name().to_owned() }).await?;
        match items.iter().find(|item| item.id.workload() != self.name()) {
            Some(stray) => Err(self.broken(format!("it discovered {}, of another one", stray.id))),
            None => Ok(items),
        }
    }

    pub(crate) async fn decide(
        &self,
        item: &ItemId,
        wanted: Wanted,
        points: Vec<PointMeta>,
    ) -> Result<Decision, Error> {
        self.ask(&Request::Decide { item: item.clone(), wanted, points }).await
    }

    /// The points that a restore of `target` applies, in order.
    pub(crate) async fn plan(
        &self,
        item: &ItemId,
        points: &[PointMeta],
        target: &PointId,
        until: Option<&Until>,
    ) -> Result<Vec<PointMeta>, Error> {
        let (item, points_of) = (item.clone(), points.to_vec());
        let (target, until) = (target.clone(), until.cloned());
        let request = Request::Plan { item, points: points_of, target, until };
        let ids: Vec<PointId> = self.ask(&request).await?;
        let chain = ids.iter().map(|id| {
            let known = points.iter().find(|point| point.id == *id).cloned();
            known.ok_or_else(|| self.broken(format!("it planned with the unknown point {id}")))
        });
        chain.collect()
    }

    pub(crate) async fn restore(&self, restore: RestoreRequest) -> Result<RunPlan, Error> {
        self.ask(&Request::Restore { restore }).await
    }

    pub(crate) async fn graphs(&self) -> Result<Vec<Graph>, Error> {
        self.ask(&Request::Machines { workload: self.name().to_owned() }).await
    }

    /// Where programs of the workload call.
    pub(crate) async fn endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        self.ask(&Request::Endpoints { workload: self.name().to_owned() }).await
    }

    /// Where a call belongs, in the words of a plugin that may be wrong. Few are asked at a time,
    /// counting those whose code has not come back, whoever has given up on it.
    pub(crate) async fn route(&self, call: IncomingCall) -> Result<Route, Error> {
        let permit = Arc::clone(&self.routes).acquire_owned().await;
        let permit = permit.map_err(|_| Error::stopped("calls are not routed any more"))?;
        let host: Arc<dyn HostCalls> = Arc::new(Routing { _permit: permit });
        let request = Request::Route { workload: self.name().to_owned(), call };
        self.ask_as(&request, &|| Arc::clone(&host)).await
    }

    /// Asks for something that is not a step: of the host's services the plugin gets secrets only.
    ///
    /// Such questions change nothing and share a process, so one that ended under a question,
    /// perhaps another's, is followed by a new one and the same question.
    pub(super) async fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Error> {
        self.ask_as(request, &|| Arc::new(Confidant(Arc::clone(&self.vault)))).await
    }

    async fn ask_as<T: DeserializeOwned>(
        &self,
        request: &Request,
        host: &(dyn Fn() -> Arc<dyn HostCalls> + Sync),
    ) -> Result<T, Error> {
        let document = message::encode(request)?;
        let mut left = ASKED_AGAIN;
        let reply = loop {
            match self.instance.start(document.clone(), host()).await {
                Err(TaskFault::Crashed(crash)) if left > 0 => {
                    tracing::warn!(workload = self.name(), %crash, "asking again");
                    left -= 1;
                }
                answer => break answer?,
            }
        };
        match reply.result {
            Ok(reply) => Ok(message::decode(&reply)?),
            Err(fault) => Err(message::decode_fault(&fault).into()),
        }
    }

    fn broken(&self, what: String) -> Error {
        let message = format!("workload `{}` broke its contract: {what}", self.name());
        Error::new(ErrorKind::Plugin, Fault::bug("plugin.contract", message))
    }
}
