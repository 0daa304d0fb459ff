//! The handle that a host agent holds.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use fsm_core::{Cancellation, Graph, Runtime};
use plugin_sdk::{Item, ItemId, OperationId, PointId, PointKind, PointMeta};
use throttle::Admission;
use tokio::sync::watch;

use super::{
    builder::EngineBuilder,
    requests::{BackupRequest, Operation, RestoreTo},
    state_dir::StateDir,
};
use crate::{
    Error, convert,
    events::Events,
    operation::{OperationStatus, Phase},
    plugins::{calls::Services, workload::Hosted},
};

/// A running engine. Clones are the same engine.
///
/// Call [`shutdown`](Engine::shutdown) before the process ends; an engine that is only dropped, or
/// killed, loses nothing either, and continues its operations at the next start.
#[derive(Clone)]
pub struct Engine {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) services: Arc<Services>,
    pub(super) runtime: Runtime,
    pub(super) admission: Admission,
    pub(super) workloads: BTreeMap<String, Hosted>,
    live: Mutex<BTreeMap<OperationId, Live>>,
    closed: AtomicBool,
    // Declared last, and so unlocked after the store is closed.
    _state_dir: StateDir,
}

/// An operation whose task runs in this process.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) cancel: Cancellation,
    pub(super) ended: watch::Receiver<bool>,
}

/// How a shutdown went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shutdown {
    /// Every operation had ended.
    Drained,
    /// These operations have not ended; the next start continues them.
    Resumable(Vec<OperationId>),
}

impl Inner {
    pub(super) fn new(
        state_dir: StateDir,
        services: Arc<Services>,
        runtime: Runtime,
        admission: Admission,
        workloads: BTreeMap<String, Hosted>,
    ) -> Self {
        let (live, closed) = Default::default();
        Inner { services, runtime, admission, workloads, live, closed, _state_dir: state_dir }
    }

    pub(super) fn live(&self) -> MutexGuard<'_, BTreeMap<OperationId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        match self.closed.load(Ordering::SeqCst) {
            true => Err(Error::stopped("the engine is shutting down")),
            false => Ok(()),
        }
    }

    pub(super) fn workload(&self, item: &ItemId) -> Result<&Hosted, Error> {
        self.workloads.get(item.workload()).ok_or_else(|| {
            let message = format!("no plugin implements the workload `{}`", item.workload());
            Error::request("workload.unknown", message)
        })
    }

    /// The points of `item`, from the archive; the catalog's copy is brought up to date.
    pub(super) async fn points(&self, item: &ItemId) -> Result<Vec<PointMeta>, Error> {
        let Some(archived) = self.services.archive.find_item(item.as_str()).await? else {
            return Ok(Vec::new());
        };
        let entries = archived.points().await?;
        let points = entries.iter().map(|entry| convert::point_meta(item, entry));
        let points: Vec<PointMeta> = points.collect::<Result<_, _>>()?;
        self.services.catalog.copied(item.clone(), points.clone()).await?;
        Ok(points)
    }
}

impl Engine {
    pub(super) fn new(inner: Inner) -> Self {
        Engine { inner: Arc::new(inner) }
    }

    /// What to make an engine with.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::new()
    }

    /// Asks every plugin what there is to protect.
    ///
    /// # Errors
    ///
    /// The first plugin's fault.
    pub async fn discover(&self) -> Result<Vec<Item>, Error> {
        self.inner.check_open()?;
        let mut items = Vec::new();
        for workload in self.inner.workloads.values() {
            items.extend(workload.discover().await?);
        }
        let now = self.inner.services.environment.now();
        self.inner.services.catalog.discovered(items.clone(), now).await?;
        Ok(items)
    }

    /// The items that have recovery points in the archive, by its own account: also those that no
    /// plugin of this engine knows any more.
    ///
    /// # Errors
    ///
    /// The archive's error.
    pub async fn archived_items(&self) -> Result<Vec<ItemId>, Error> {
        let names = self.inner.services.archive.items().await?;
        // An archive may hold items that other programs have put there.
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The recovery points of `item`, oldest first, from the archive.
    ///
    /// # Errors
    ///
    /// The archive's error; it names the object that is damaged.
    pub async fn points(&self, item: &ItemId) -> Result<Vec<PointMeta>, Error> {
        self.inner.points(item).await
    }

    /// Asks for a backup of `item`.
    pub fn backup(&self, item: &ItemId) -> BackupRequest {
        BackupRequest::new(self.clone(), item.clone(), PointKind::Full)
    }

    /// Asks for a restore of the recovery point `point` of `item`.
    pub fn restore(&self, item: &ItemId, point: &PointId) -> RestoreTo {
        RestoreTo::new(self.clone(), item.clone(), point.clone())
    }

    /// The operation `id`, in whatever process it was asked for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) if there is none.
    pub async fn operation(&self, id: &OperationId) -> Result<Operation, Error> {
        self.status(id).await?;
        Ok(Operation::new(self.clone(), id.clone()))
    }

    /// All operations, oldest first.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub async fn operations(&self) -> Result<Vec<OperationStatus>, Error> {
        self.inner.services.catalog.operations().await
    }

    /// Asks an operation to stop. Acknowledged once it is durable, or in effect; what follows is
    /// the matter of the machine's graph. An operation that has ended stays as it is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) if there is no such operation, else the
    /// store's error.
    pub async fn cancel(&self, id: &OperationId) -> Result<(), Error> {
        let status = self.status(id).await?;
        let live = self.inner.live().get(id).cloned();
        let Some(live) = live else { return Ok(()) };
        if let Some(run) = status.run.filter(|_| status.phase == Phase::Running) {
            self.inner.runtime.cancel(&run, "the operation was cancelled").await?;
        }
        live.cancel.request();
        Ok(())
    }

    /// Hears of everything that happens from now on.
    pub fn subscribe(&self) -> Events {
        Events(self.inner.services.events.subscribe())
    }

    /// The machines of the workload `workload`: their states, edges and policies.
    pub fn graphs(&self, workload: &str) -> Vec<Graph> {
        let prefix = format!("{workload}.");
        self.inner.runtime.graphs().into_iter().filter(|g| g.machine.starts_with(&prefix)).collect()
    }

    /// Takes no new work, gives what runs up to `grace` to end, then stops it where it is. What
    /// was stopped continues at the next start, as after a crash.
    pub async fn shutdown(&self, grace: Duration) -> Shutdown {
        self.inner.closed.store(true, Ordering::SeqCst);
        let running: Vec<Live> = self.inner.live().values().cloned().collect();
        let ends = running.into_iter().map(|mut live| async move {
            // The sender goes with the operation's task.
            let _ = live.ended.wait_for(|ended| *ended).await;
        });
        let drained = tokio::time::timeout(grace, futures::future::join_all(ends)).await.is_ok();
        self.inner.admission.close();
        self.inner.runtime.stop().await;
        if drained && self.inner.live().is_empty() {
            return Shutdown::Drained;
        }
        Shutdown::Resumable(self.inner.live().keys().cloned().collect())
    }

    pub(super) async fn status(&self, id: &OperationId) -> Result<OperationStatus, Error> {
        let status = self.inner.services.catalog.operation(id.clone()).await?;
        status.ok_or_else(|| {
            Error::request("operation.unknown", format!("there is no operation `{id}`"))
        })
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workloads: Vec<_> = self.inner.workloads.keys().collect();
        let live: Vec<_> = self.inner.live().keys().cloned().collect();
        f.debug_struct("Engine").field("workloads", &workloads).field("live", &live).finish()
    }
}
