//! The handle that a host agent holds.

use std::{
    collections::{BTreeMap, btree_map},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use fsm_core::{Cancellation, Graph, Runtime, Timestamp};
use plugin_sdk::{Item, ItemId, OperationId, PointId, PointKind, PointMeta};
use throttle::Admission;
use tokio::sync::watch;

use super::{
    builder::EngineBuilder,
    coverage::covering,
    requests::{BackupRequest, Operation, RestoreTo},
    state_dir::StateDir,
};
use crate::{
    Error, convert,
    events::Events,
    operation::OperationStatus,
    plugins::{calls::Services, workload::Hosted},
};

/// A running engine. Clones are the same engine.
///
/// Call [`shutdown`](Engine::shutdown) before the process ends; an engine that is only dropped, or
/// killed, loses nothing either, and continues its operations at the next start. With the last
/// handle ([`Operation`]s are handles too) an engine stops.
#[derive(Clone)]
pub struct Engine {
    pub(super) inner: Arc<Inner>,
    _last: Arc<Last>,
}

/// What the last handle takes with it.
struct Last(Arc<Inner>);

impl Drop for Last {
    fn drop(&mut self) {
        let inner = &self.0;
        if inner.closed.swap(true, Ordering::SeqCst) || inner.live().is_empty() {
            return;
        }
        tracing::warn!("the engine was dropped while it worked; the next start goes on");
        let stopping = Arc::clone(inner);
        inner.services.tokio.spawn(async move { stopping.stop().await });
    }
}

pub(super) struct Inner {
    pub(super) services: Arc<Services>,
    pub(super) runtime: Runtime,
    pub(super) admission: Admission,
    pub(super) workloads: BTreeMap<String, Hosted>,
    live: Mutex<BTreeMap<OperationId, Live>>,
    closed: AtomicBool,
    // Declared last, and so unlocked after the store is closed. `None` after a shutdown.
    state_dir: Mutex<Option<StateDir>>,
}

/// How long a stop waits for what was told to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// An operation of this process that has not ended: its task is at work, or stands still.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) cancel: Cancellation,
    pub(super) stage: watch::Receiver<Stage>,
}

/// How far the operation's task has come. The sender goes with the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is not durable yet that there is such an operation.
    Submitted,
    /// It is carried out.
    Going,
    /// It has ended.
    Ended,
}

/// What the operation's task has, and its [`Live`] listens to.
pub(super) struct Entry {
    pub(super) cancel: Cancellation,
    pub(super) stage: watch::Sender<Stage>,
}

/// Whether an operation has a task already.
pub(super) enum Enlisted {
    /// It has none: this is for the one who gives it one.
    First(Entry),
    /// It has one.
    Before(Live),
}

impl Live {
    /// Waits until the operation's task has gone, and with it the operation, or it stands still.
    pub(super) async fn gone(mut self) {
        // The sender goes with the task.
        let _ = self.stage.wait_for(|stage| *stage == Stage::Ended).await;
    }
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

/// The recovery points of an item.
#[derive(Default)]
pub(super) struct Points {
    /// Those that can be read, oldest first.
    pub(super) readable: Vec<PointMeta>,
    /// Why others cannot.
    pub(super) unreadable: Vec<Error>,
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
        let state_dir = Mutex::new(Some(state_dir));
        Inner { services, runtime, admission, workloads, live, closed, state_dir }
    }

    pub(super) fn live(&self) -> MutexGuard<'_, BTreeMap<OperationId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of `id` among the operations of this process, unless the engine is being
    /// shut down. A shutdown waits for whoever has a place.
    pub(super) fn enlist(&self, id: &OperationId) -> Result<Enlisted, Error> {
        let mut live = self.live();
        self.check_open()?;
        Ok(match live.entry(id.clone()) {
            btree_map::Entry::Occupied(before) => Enlisted::Before(before.get().clone()),
            btree_map::Entry::Vacant(place) => {
                let cancel = Cancellation::new();
                let (stage, listening) = watch::channel(Stage::Submitted);
                place.insert(Live { cancel: cancel.clone(), stage: listening });
                Enlisted::First(Entry { cancel, stage })
            }
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Waits until no operation has a task.
    async fn quiet(&self) {
        let live: Vec<Live> = self.live().values().cloned().collect();
        futures::future::join_all(live.into_iter().map(Live::gone)).await;
    }

    /// Stops everything where it is, and lets another engine have the state directory.
    async fn stop(&self) {
        self.admission.close();
        self.runtime.stop().await;
        self.services.forget_all();
        let stopped = tokio::time::timeout(STOP_PATIENCE, async {
            self.quiet().await;
            // A job that was given up goes on until it looks up.
            drop(self.services.steps.write().await);
        });
        if stopped.await.is_err() {
            tracing::warn!("a step does not stop; the state directory stays locked meanwhile");
            return;
        }
        drop(self.state_dir.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        match self.is_closed() {
            true => Err(Error::stopped("the engine is shutting down")),
            false => Ok(()),
        }
    }

    pub(super) fn workload(&self, item: &ItemId) -> Result<&Hosted, Error> {
        self.workloads.get(item.workload()).ok_or_else(|| {
            let message = format!("no plugin implements the workload `{}`", item.workload());
            let advice = "start the engine with the plugin that does, or correct the item";
            Error::request("workload.unknown", message, advice)
        })
    }

    /// The points of `item`, from the archive; the catalog's copy is brought up to date.
    pub(super) async fn points(&self, item: &ItemId) -> Result<Points, Error> {
        let mut points = Points::default();
        let Some(archived) = self.services.archive.find_item(item.as_str()).await? else {
            return Ok(points);
        };
        let listing = archived.listing().await?;
        points.unreadable = listing.damaged.into_iter().map(Error::from).collect();
        for entry in &listing.points {
            match convert::point_meta(item, entry) {
                Ok(point) => points.readable.push(point),
                Err(error) => points.unreadable.push(error),
            }
        }
        for error in &points.unreadable {
            tracing::warn!(%item, %error, "a recovery point is left out");
        }
        self.services.catalog.copied(item.clone(), points.readable.clone()).await?;
        Ok(points)
    }
}

impl Engine {
    pub(super) fn new(inner: Inner) -> Self {
        let inner = Arc::new(inner);
        Engine { _last: Arc::new(Last(Arc::clone(&inner))), inner }
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
        let mut points = self.inner.points(item).await?;
        match points.unreadable.is_empty() {
            true => Ok(points.readable),
            false => Err(points.unreadable.swap_remove(0)),
        }
    }

    /// The recovery point from which `item` can be restored as it was at `time`, by the clock of
    /// the system that was backed up: with [`RestoreTo::until`].
    ///
    /// # Errors
    ///
    /// As [`points`](Engine::points); [`ErrorKind::Request`](crate::ErrorKind::Request) if no
    /// point covers that time.
    pub async fn point_covering(&self, item: &ItemId, time: Timestamp) -> Result<PointId, Error> {
        let points = self.points(item).await?;
        let covering = covering(&points, time).map(|point| point.id.clone());
        covering.ok_or_else(|| {
            let message = format!("no recovery point of {item} covers {time}");
            let advice = "list the item's points: a log covers the time since the point before it";
            Error::request("point.none_covers", message, advice)
        })
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

    /// Asks an operation to stop. The request is durable when this returns; what follows is the
    /// matter of the machine's graph. An operation that has ended stays as it is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) if there is no such operation, else the
    /// store's error.
    pub async fn cancel(&self, id: &OperationId) -> Result<(), Error> {
        self.status(id).await?;
        let now = self.inner.services.environment.now();
        self.inner.services.catalog.cancel(id.clone(), now).await?;
        // The operation's task passes it on to the run, if there is one.
        if let Some(live) = self.inner.live().get(id) {
            live.cancel.request();
        }
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
    /// was stopped continues at the next start, as after a crash. Another engine can have the
    /// state directory when this returns, unless a plugin's step does not stop within ten seconds.
    pub async fn shutdown(&self, grace: Duration) -> Shutdown {
        self.inner.closed.store(true, Ordering::SeqCst);
        let in_time = tokio::time::timeout(grace, self.inner.quiet()).await;
        if in_time.is_err() {
            tracing::info!("operations go on at the next start");
        }
        self.inner.stop().await;
        let left: Vec<OperationId> = self.inner.live().keys().cloned().collect();
        if left.is_empty() { Shutdown::Drained } else { Shutdown::Resumable(left) }
    }

    pub(super) async fn status(&self, id: &OperationId) -> Result<OperationStatus, Error> {
        let status = self.inner.services.catalog.operation(id.clone()).await?;
        status.ok_or_else(|| {
            let message = format!("there is no operation `{id}`");
            Error::request("operation.unknown", message, "list the operations and choose one")
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
