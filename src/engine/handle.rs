//! The handle that a host agent holds.

use std::{
    collections::{BTreeMap, btree_map},
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use fsm_core::{Cancellation, Fault, Graph, Runtime, Timestamp};
use futures::future::{Either, select};
use plugin_sdk::{Item, ItemId, OperationId, PointId, PointKind, PointMeta};
use throttle::Snapshot;
use tokio::sync::watch;

use super::{
    builder::EngineBuilder,
    coverage::covering,
    recover::LostExclusion,
    requests::{BackupRequest, Operation, RestoreTo},
    state_dir::StateDir,
    tend::PATIENCE,
    waiting::annotate,
};
use crate::{
    Error, ErrorKind,
    admission::{Door, Lanes, Policies, Ticking},
    convert,
    events::Events,
    ingress::Ingress,
    operation::{OperationStatus, Phase},
    plugins::{calls::Services, watchdog::Watchdog, workload::Hosted},
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
        if inner.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        if inner.live().is_empty() && inner.services.jobs().is_empty() {
            // What is left of its tasks keeps no other engine out.
            drop(inner.services.catalog.release());
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
    pub(super) door: Door,
    pub(super) lanes: Lanes,
    pub(super) policies: Policies,
    pub(super) workloads: BTreeMap<String, Hosted>,
    lost: Mutex<Vec<LostExclusion>>,
    _ticking: Ticking,
    _watchdog: Watchdog,
    /// What listens for calls of the workloads, once it does.
    pub(super) ingress: OnceLock<Ingress>,
    live: Mutex<BTreeMap<OperationId, Live>>,
    closed: AtomicBool,
    // Declared last, and so unlocked after the store is closed. `None` after a shutdown.
    state_dir: Mutex<Option<StateDir>>,
}

/// What an engine is put together from.
pub(super) struct Parts {
    pub(super) services: Arc<Services>,
    pub(super) runtime: Runtime,
    pub(super) door: Door,
    pub(super) lanes: Lanes,
    pub(super) policies: Policies,
    pub(super) ticking: Ticking,
    pub(super) watchdog: Watchdog,
    pub(super) workloads: BTreeMap<String, Hosted>,
}

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
    /// A plugin's step does not stop. The state directory stays locked until it does, or until this
    /// process ends, and nobody else can begin where it is at work.
    Stuck {
        /// The operations that such a step belongs to.
        at_work: Vec<OperationId>,
        /// The operations that have not ended; the next start continues them.
        resumable: Vec<OperationId>,
    },
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
    pub(super) fn new(state_dir: StateDir, parts: Parts) -> Self {
        let Parts { services, runtime, door, lanes, policies, ticking, watchdog, workloads } =
            parts;
        let (lost, live, closed, ingress) = Default::default();
        let state_dir = Mutex::new(Some(state_dir));
        Inner {
            services,
            runtime,
            door,
            lanes,
            policies,
            workloads,
            lost,
            _ticking: ticking,
            _watchdog: watchdog,
            ingress,
            live,
            closed,
            state_dir,
        }
    }

    /// What could not be taken back at the start.
    pub(super) fn lost(&self) -> MutexGuard<'_, Vec<LostExclusion>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Stops everything where it is, and lets another engine have the state directory, if every
    /// step stops.
    async fn stop(self: &Arc<Self>) {
        self.door.admission.close();
        self.runtime.stop().await;
        self.services.forget_all();
        let inner = Arc::clone(self);
        // On a task of its own: a step that stops later frees the state directory then.
        let freeing = self.services.tokio.spawn(async move {
            if let Some(ingress) = inner.ingress.get() {
                ingress.stop().await;
            }
            inner.quiet().await;
            // A job that was given up goes on until it looks up.
            drop(inner.services.steps.write().await);
            inner.services.catalog.release().await;
            drop(inner.state_dir.lock().unwrap_or_else(PoisonError::into_inner).take());
        });
        if self.within(PATIENCE, freeing).await.is_none() {
            tracing::warn!("a step does not stop; the state directory stays locked meanwhile");
        }
    }

    /// `work`, unless it takes longer than `patience`.
    async fn within<T>(&self, patience: Duration, work: impl Future<Output = T>) -> Option<T> {
        let environment = &self.services.environment;
        let (work, sleep) = (pin!(work), environment.sleep_until(environment.now() + patience));
        match select(work, sleep).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(((), _)) => None,
        }
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        match self.is_closed() {
            true => Err(Error::stopped("the engine is shutting down")),
            false => Ok(()),
        }
    }

    /// Asks an operation to stop, durably.
    pub(super) async fn cancel(&self, id: &OperationId) -> Result<(), Error> {
        let now = self.services.environment.now();
        self.services.catalog.cancel(id.clone(), now).await?;
        // The operation's task passes it on to the run, if there is one.
        if let Some(live) = self.live().get(id) {
            live.cancel.request();
        }
        Ok(())
    }

    /// The workload of that name.
    pub(super) fn hosted(&self, workload: &str) -> Option<&Hosted> {
        self.workloads.get(workload)
    }

    pub(super) fn workload(&self, item: &ItemId) -> Result<&Hosted, Error> {
        self.workloads.get(item.workload()).ok_or_else(|| self.unknown_workload(item))
    }

    pub(super) fn unknown_workload(&self, item: &ItemId) -> Error {
        let message = format!("no plugin implements the workload `{}`", item.workload());
        let advice = "start the engine with the plugin that does, or correct the item";
        Error::request("workload.unknown", message, advice)
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

    /// Asks every plugin what there is to protect. The rules of a workload follow the version of
    /// its system that is found: of several, the oldest.
    ///
    /// # Errors
    ///
    /// The first plugin's fault.
    pub async fn discover(&self) -> Result<Vec<Item>, Error> {
        self.inner.check_open()?;
        let mut items = Vec::new();
        for workload in self.inner.workloads.values() {
            let found = workload.discover().await?;
            let admission = &self.inner.door.admission;
            self.inner.policies.discovered(admission, workload.name(), &found)?;
            items.extend(found);
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
        let mut statuses = self.inner.services.catalog.operations().await?;
        annotate(&self.inner, &mut statuses);
        Ok(statuses)
    }

    /// Who holds what at this moment, who waits, and for whom: as data, and in words when it is
    /// displayed. Owners are operations, by their ids.
    pub fn waiting(&self) -> Snapshot {
        self.inner.door.admission.snapshot()
    }

    /// The operations that could not take back at the start of this engine what they had excluded
    /// before.
    pub fn lost_exclusions(&self) -> Vec<LostExclusion> {
        self.inner.lost().clone()
    }

    /// Lets an operation go on that waits for an operator. Its next step begins once it has its
    /// streams again. An operation that does not wait for an operator stays as it is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`] if there is no such operation; [`ErrorKind::Stopped`] if it goes on
    /// only at the next start; else the store's error.
    pub async fn resume(&self, id: &OperationId) -> Result<(), Error> {
        self.inner.check_open()?;
        let status = self.status(id).await?;
        let Some(run) = status.run.filter(|_| status.phase == Phase::Running) else {
            return Ok(());
        };
        let live = self.inner.live().get(id).cloned();
        if live.is_none_or(|live| live.stage.has_changed().is_err()) {
            let message = format!("operation `{id}` stands still in this process");
            let fault = Fault::retryable("operation.stands_still", message);
            let fault = fault.advise("mend the cause, then start the engine again");
            return Err(Error::new(ErrorKind::Stopped, fault));
        }
        self.inner.runtime.resume(&run).await?;
        Ok(())
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
        self.inner.cancel(id).await
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
    /// state directory when this returns, unless a plugin's step does not stop within ten seconds:
    /// [`Shutdown::Stuck`].
    pub async fn shutdown(&self, grace: Duration) -> Shutdown {
        self.inner.closed.store(true, Ordering::SeqCst);
        if let Some(ingress) = self.inner.ingress.get() {
            ingress.close();
        }
        if self.inner.within(grace, self.inner.quiet()).await.is_none() {
            tracing::info!("operations go on at the next start");
        }
        self.inner.stop().await;
        let resumable: Vec<OperationId> = self.inner.live().keys().cloned().collect();
        let at_work: Vec<OperationId> = self.inner.services.jobs().keys().cloned().collect();
        match (at_work.is_empty(), resumable.is_empty()) {
            (false, _) => Shutdown::Stuck { at_work, resumable },
            (true, false) => Shutdown::Resumable(resumable),
            (true, true) => Shutdown::Drained,
        }
    }

    pub(super) async fn status(&self, id: &OperationId) -> Result<OperationStatus, Error> {
        let status = self.inner.services.catalog.operation(id.clone()).await?;
        let mut status = status.ok_or_else(|| {
            let message = format!("there is no operation `{id}`");
            Error::request("operation.unknown", message, "list the operations and choose one")
        })?;
        annotate(&self.inner, std::slice::from_mut(&mut status));
        Ok(status)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workloads: Vec<_> = self.inner.workloads.keys().collect();
        let live: Vec<_> = self.inner.live().keys().cloned().collect();
        f.debug_struct("Engine").field("workloads", &workloads).field("live", &live).finish()
    }
}
