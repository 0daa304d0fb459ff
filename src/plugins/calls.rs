//! What a step may ask of the engine, and who answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use archive::{Archive, Epoch, Session};
use bytes::Bytes;
use fsm_core::{Cancellation, Environment, Fault, Port, Progress, RunId};
use futures::future::BoxFuture;
use plugin_sdk::{
    IncomingCall, ItemId, OperationId, PointId, Receipt, TakeId,
    abi::{HostCalls, Object, Reply},
    host::PluginInstance,
    message::{
        self, Intent, SealCall, SourceOpen, StreamOpen, TakeBegin, TakeBegun, TakeFinish, call,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use throttle::ByteRate;
use tokio::sync::{
    Mutex as AsyncMutex, Notify, OwnedMutexGuard, OwnedRwLockReadGuard, RwLock, broadcast,
};

use super::{streams, vault::Vault};
use crate::{
    Error,
    admission::{AtWork, Pass, Taken},
    catalog::{Catalog, FinishedStream, TakeRow},
    convert,
    events::Event,
    ingress::Callers,
};

/// What all steps share.
pub(crate) struct Services {
    pub(crate) catalog: Catalog,
    pub(crate) archive: Archive,
    pub(crate) epoch: Epoch,
    pub(crate) rate: ByteRate,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) tokio: tokio::runtime::Handle,
    /// The secrets of each workload.
    pub(crate) vaults: Mutex<BTreeMap<String, Arc<Vault>>>,
    pub(crate) runs: Mutex<BTreeMap<RunId, Arc<Scope>>>,
    /// Held, for reading, by every step that may still be at work in a plugin.
    pub(crate) steps: Arc<RwLock<()>>,
    /// The operations that such a step belongs to.
    pub(crate) jobs: Mutex<BTreeMap<OperationId, usize>>,
    /// The last job of an operation has ended.
    pub(crate) jobs_ended: Notify,
    /// What stands still in this process, and why.
    pub(crate) stuck: Mutex<BTreeMap<OperationId, String>>,
    /// The calls of workloads' programs that wait for steps.
    pub(crate) callers: Callers,
}

/// What the steps of one run may touch.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) run: RunId,
    pub(crate) operation: OperationId,
    pub(crate) item: ItemId,
    /// The points that may be read.
    pub(crate) chain: BTreeSet<PointId>,
    /// What the operation holds. It goes with the last of those who may be at work for the run: a
    /// step that was given up and does not stop keeps what it excludes.
    pub(crate) pass: Arc<Pass>,
    takes: Mutex<BTreeMap<TakeId, OpenTake>>,
    /// One step at a time.
    turn: Arc<AsyncMutex<()>>,
    /// The plugin as the run has it: perhaps in a process of its own, which goes with this.
    plugin: OnceLock<PluginInstance>,
}

/// A take of this process.
#[derive(Debug)]
struct OpenTake {
    session: Session,
    opened: BTreeSet<String>,
    finished: Vec<FinishedStream>,
}

impl Scope {
    pub(crate) fn new(
        run: RunId,
        operation: OperationId,
        item: ItemId,
        chain: impl IntoIterator<Item = PointId>,
        pass: Arc<Pass>,
    ) -> Self {
        let chain = chain.into_iter().collect();
        let (takes, turn, plugin) = Default::default();
        Scope { run, operation, item, chain, pass, takes, turn, plugin }
    }

    /// The plugin for the steps of the run and of its children.
    pub(super) fn plugin(&self, plugin: &PluginInstance) -> PluginInstance {
        self.plugin.get_or_init(|| plugin.apart()).clone()
    }

    /// Waits until no job of the run is at work in its plugin.
    pub(crate) async fn idle(&self) {
        drop(self.turn.lock().await);
    }

    fn takes(&self) -> MutexGuard<'_, BTreeMap<TakeId, OpenTake>> {
        self.takes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a stream of a take is durable.
    pub(super) fn stream_finished(&self, take: &TakeId, stream: FinishedStream) {
        if let Some(take) = self.takes().get_mut(take) {
            take.finished.push(stream);
        }
    }
}

impl Services {
    /// What the steps of `run` may touch.
    pub(crate) fn scope(&self, run: &RunId) -> Result<Arc<Scope>, Fault> {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        // A child works for the operation of the run that spawned it, and borrows from it.
        std::iter::successors(Some(run.clone()), parent)
            .find_map(|run| runs.get(&run).cloned())
            .ok_or_else(|| Fault::bug("run.unknown", format!("run {run} belongs to no operation")))
    }

    /// What an operation's own run works for; `None` for its children.
    pub(crate) fn root_scope(&self, run: &RunId) -> Option<Arc<Scope>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).get(run).cloned()
    }

    /// Lets the steps of a run in.
    pub(crate) fn admit(&self, scope: Scope) -> Arc<Scope> {
        let scope = Arc::new(scope);
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.insert(scope.run.clone(), Arc::clone(&scope));
        scope
    }

    /// Forgets all runs: no step of theirs begins in this process any more, and a process that a
    /// plugin has for one of them can go.
    pub(crate) fn forget_all(&self) {
        let runs = std::mem::take(&mut *self.runs.lock().unwrap_or_else(PoisonError::into_inner));
        drop(runs);
    }

    /// Forgets a run that has ended.
    pub(crate) fn forget(&self, run: &RunId) {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(run);
    }

    /// The secrets of a workload.
    fn vault(&self, workload: &str) -> Option<Arc<Vault>> {
        self.vaults.lock().unwrap_or_else(PoisonError::into_inner).get(workload).cloned()
    }

    /// Lets the steps of a workload at its secrets.
    pub(crate) fn confide(&self, workload: &str, vault: Arc<Vault>) {
        let mut vaults = self.vaults.lock().unwrap_or_else(PoisonError::into_inner);
        vaults.insert(workload.to_owned(), vault);
    }

    /// Waits until a step of `run` may begin: the job of the step before has ended, and what the
    /// operation needs is there.
    pub(super) async fn ready(&self, run: &RunId) {
        // A step that belongs to no operation is refused when it begins.
        let Ok(scope) = self.scope(run) else { return };
        scope.idle().await;
        let taken = scope.pass.take_unless_excused().await;
        self.has_taken(&scope.operation, taken);
    }

    fn has_taken(&self, operation: &OperationId, taken: Taken) {
        if taken == Taken::Again {
            self.tell(Event::CapacityTaken { operation: operation.clone() });
        }
    }

    /// Others may have the capacity of an operation that does not work.
    pub(crate) fn give_back(&self, pass: &Pass, why: &str) {
        if pass.give_back() {
            self.has_given_back(pass.operation(), why);
        }
    }

    pub(crate) fn has_given_back(&self, operation: &OperationId, why: &str) {
        let (operation, why) = (operation.clone(), why.to_owned());
        self.tell(Event::CapacityReturned { operation, why });
    }

    /// Notes that an operation stands still, and tells whoever listens.
    pub(crate) fn is_stuck(&self, operation: &OperationId, why: String) {
        self.stuck().insert(operation.clone(), why.clone());
        self.tell(Event::Stuck { operation: operation.clone(), why });
    }

    /// Notes that an operation goes on, or has ended.
    pub(crate) fn goes_on(&self, operation: &OperationId) {
        self.stuck().remove(operation);
    }

    pub(crate) fn stuck(&self) -> MutexGuard<'_, BTreeMap<OperationId, String>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no job of `operation` is at work.
    pub(crate) async fn let_go(&self, operation: &OperationId) {
        loop {
            let ended = self.jobs_ended.notified();
            if !self.jobs().contains_key(operation) {
                return;
            }
            ended.await;
        }
    }

    pub(crate) fn jobs(&self) -> MutexGuard<'_, BTreeMap<OperationId, usize>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever listens.
    pub(crate) fn tell(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    /// The archive's item for `item`, made if it is not there yet.
    pub(crate) async fn item(&self, item: &ItemId) -> Result<archive::Item, Error> {
        Ok(self.archive.item(item.as_str()).await?)
    }

    async fn take_begin(&self, scope: &Scope, begin: TakeBegin) -> Result<TakeBegun, Error> {
        let (operation, run) = (scope.operation.clone(), scope.run.clone());
        let now = self.environment.now();
        let row = self.catalog.begin_take(operation, run, begin.name, now).await?;
        if let Some(finished) = row.finished {
            let finished = finished.iter().map(|stream| convert::receipt(&stream.receipt));
            let finished = Some(finished.collect());
            let TakeRow { id: take, begun_at, facts, .. } = row;
            return Ok(TakeBegun { take, begun_at, finished, facts });
        }
        let item = self.item(&scope.item).await?;
        let session = item.begin(archive::Take::new(row.id.as_str(), self.epoch)).await?;
        let take = OpenTake { session, opened: BTreeSet::new(), finished: Vec::new() };
        scope.takes().insert(row.id.clone(), take);
        let (take, begun_at, facts) = (row.id, row.begun_at, row.facts);
        Ok(TakeBegun { take, begun_at, finished: None, facts })
    }

    async fn take_finish(&self, scope: &Scope, finish: TakeFinish) -> Result<Vec<Receipt>, Error> {
        let finished = {
            let takes = scope.takes();
            let take = takes.get(&finish.take).ok_or_else(|| unknown_take(&finish.take))?;
            if take.finished.len() != take.opened.len() {
                let message = format!("a stream of take {} was not finished", finish.take);
                return Err(Fault::retryable("take.unfinished", message).into());
            }
            take.finished.clone()
        };
        self.catalog.finish_take(finish.take.clone(), finished.clone(), finish.facts).await?;
        scope.takes().remove(&finish.take);
        Ok(finished.iter().map(|stream| convert::receipt(&stream.receipt)).collect())
    }

    async fn stream_open(
        self: &Arc<Self>,
        scope: &Arc<Scope>,
        ended: Cancellation,
        open: StreamOpen,
    ) -> Result<Object, Error> {
        // Work that undoes something begins without capacity; streams need theirs all the same.
        self.has_taken(&scope.operation, scope.pass.take().await);
        let writer = {
            let mut takes = scope.takes();
            let take = takes.get_mut(&open.take).ok_or_else(|| unknown_take(&open.take))?;
            let writer = take.session.stream(open.stream.as_str())?;
            take.opened.insert(open.stream.clone());
            writer
        };
        let (services, scope) = (Arc::clone(self), Arc::clone(scope));
        Ok(streams::into_archive(services, scope, ended, open.take, writer))
    }

    async fn source_open(
        self: &Arc<Self>,
        scope: &Scope,
        open: SourceOpen,
    ) -> Result<Object, Error> {
        if !scope.chain.contains(&open.point) {
            let message = format!("recovery point {} is not part of this restore", open.point);
            return Err(Fault::bug("source.foreign", message).into());
        }
        self.has_taken(&scope.operation, scope.pass.take().await);
        let item = self.item(&scope.item).await?;
        // Damage in another point is no reason to refuse this one.
        let points = item.listing().await?.points;
        let entry = points.iter().find(|entry| entry.id.as_str() == open.point.as_str());
        let entry = entry.ok_or_else(|| {
            let message = format!("recovery point {} is no longer there", open.point);
            Error::from(Fault::new(fsm_core::Class::Chain, "point.missing", message))
        })?;
        let stream = item.read(entry).await?.stream(&open.stream)?;
        Ok(streams::from_archive(self, &scope.operation, open.stream, stream))
    }

    async fn seal(&self, scope: &Scope, seal: SealCall) -> Result<PointId, Error> {
        let point = PointId::new(match seal.key.as_str() {
            "point" => scope.run.to_string(),
            key => format!("{}.{key}", scope.run),
        });
        let streams =
            self.catalog.finished_streams(scope.operation.clone(), scope.run.clone()).await?;
        let receipts = seal.receipts.iter().map(|wanted| {
            let found = streams.iter().find(|stream| convert::receipt(&stream.receipt) == *wanted);
            found.map(|stream| stream.receipt.clone()).ok_or_else(|| {
                let message =
                    format!("the receipt of stream `{}` was not given by this host", wanted.stream);
                Fault::bug("seal.receipt", message)
            })
        });
        let receipts: Vec<_> = receipts.collect::<Result<_, _>>()?;
        let takes: BTreeSet<_> = receipts.iter().map(|receipt| receipt.take.clone()).collect();
        let item = self.item(&scope.item).await?;
        item.seal(convert::seal_request(&point, self.epoch, &seal, receipts)?).await?;
        // The point keeps the bytes from now on. A hold that stays behind after a crash here
        // costs room, not safety.
        for take in takes {
            item.release(&take).await?;
        }
        self.tell(Event::Sealed { item: scope.item.clone(), point: point.clone() });
        Ok(point)
    }
}

impl Services {
    /// Lets go of what takes of `item` left in the archive that nobody will finish any more.
    /// Called once a later take is sealed: until then what they stored saves storing it again.
    ///
    /// A take with a finished stream is kept: its bytes were acknowledged, and whoever sent them
    /// may not have them any more.
    pub(crate) async fn release_abandoned(
        &self,
        item: &ItemId,
        operation: &OperationId,
    ) -> Result<(), Error> {
        let abandoned = self.catalog.abandoned_takes(item.clone(), operation.clone()).await?;
        if abandoned.is_empty() {
            return Ok(());
        }
        let archived = self.item(item).await?;
        let holds = archived.holds().await?;
        for take in abandoned {
            if holds.iter().any(|hold| hold.receipt.take.as_str() == take.as_str()) {
                tracing::warn!(%take, "acknowledged bytes of an unfinished take stay held");
                continue;
            }
            archived.release(&archive::TakeId::new(take.as_str())).await?;
            self.catalog.release_take(take).await?;
        }
        Ok(())
    }
}

fn unknown_take(take: &TakeId) -> Error {
    let message = format!("take {take} was not begun by this attempt");
    Error::from(Fault::bug("take.unknown", message))
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// The host of one attempt at one step.
///
/// It lives until the plugin's job has ended, however it ends: a job that was given up goes on
/// until its next `await`. Until then no other step of its run begins.
pub(super) struct StepCalls {
    services: Arc<Services>,
    scope: Arc<Scope>,
    port: Arc<dyn Port>,
    /// Requested once the job has ended: nobody reads or writes its streams any more.
    ended: Cancellation,
    _job: AtWork,
    _turn: OwnedMutexGuard<()>,
    _step: OwnedRwLockReadGuard<()>,
}

impl Drop for StepCalls {
    fn drop(&mut self) {
        self.ended.request();
        let mut jobs = self.services.jobs();
        if let Some(count) = jobs.get_mut(&self.scope.operation) {
            *count -= 1;
            if *count == 0 {
                jobs.remove(&self.scope.operation);
                self.services.jobs_ended.notify_waiters();
            }
        }
    }
}

impl StepCalls {
    /// Waits until the job of the run's step before this one has ended.
    pub(super) async fn begin(
        services: Arc<Services>,
        scope: Arc<Scope>,
        port: Arc<dyn Port>,
    ) -> Self {
        let _turn = Arc::clone(&scope.turn).lock_owned().await;
        let _step = Arc::clone(&services.steps).read_owned().await;
        let _job = scope.pass.job();
        *services.jobs().entry(scope.operation.clone()).or_default() += 1;
        StepCalls { services, scope, port, ended: Cancellation::new(), _job, _turn, _step }
    }

    /// Serves `work` on the engine's own tasks: whoever waits for it is on a thread of the
    /// plugin's, which has no part in them.
    fn serve<Q, A, F>(
        &self,
        body: &Bytes,
        work: impl FnOnce(Arc<Services>, Arc<Scope>, Q) -> F,
    ) -> BoxFuture<'static, Reply>
    where
        Q: DeserializeOwned,
        A: Into<Answer> + Send + 'static,
        F: Future<Output = Result<A, Error>> + Send + 'static,
    {
        let request = match message::decode::<Q>(body) {
            Ok(request) => request,
            Err(fault) => return refuse(&fault),
        };
        let (services, scope) = (Arc::clone(&self.services), Arc::clone(&self.scope));
        let task = self.services.tokio.spawn(work(services, scope, request));
        Box::pin(async move {
            match task.await {
                Ok(Ok(answer)) => answer.into().0,
                Ok(Err(error)) => Reply::error(message::encode_fault(error.fault())),
                Err(_) => {
                    let fault = Fault::interrupted("the engine's task ended before its work");
                    Reply::error(message::encode_fault(&fault))
                }
            }
        })
    }
}

impl HostCalls for StepCalls {
    fn call(&self, op: &str, body: Bytes) -> BoxFuture<'static, Reply> {
        match op {
            call::NOW => answer(Document(self.port.now())),
            call::PROGRESS => match message::decode::<Progress>(&body) {
                Ok(progress) => {
                    self.port.progress(progress);
                    answer(Document(()))
                }
                Err(fault) => refuse(&fault),
            },
            call::SECRET => match self.services.vault(self.scope.item.workload()) {
                Some(vault) => vault.serve(&body),
                None => refuse(&Fault::bug("workload.unknown", "the workload is not open")),
            },
            call::EFFECT_INTENT => {
                let port = Arc::clone(&self.port);
                self.serve(&body, |_, _, intent: Intent| async move {
                    port.intent(&intent.effect).await?;
                    Ok(Document(()))
                })
            }
            call::TAKE_BEGIN => self.serve(&body, |services, scope, begin| async move {
                Ok(Document(services.take_begin(&scope, begin).await?))
            }),
            call::TAKE_FINISH => self.serve(&body, |services, scope, finish| async move {
                Ok(Document(services.take_finish(&scope, finish).await?))
            }),
            call::STREAM_OPEN => {
                let ended = self.ended.clone();
                self.serve(&body, |services, scope, open| async move {
                    services.stream_open(&scope, ended, open).await
                })
            }
            call::SOURCE_OPEN => self.serve(&body, |services, scope, open| async move {
                services.source_open(&scope, open).await
            }),
            call::SEAL => self.serve(&body, |services, scope, seal| async move {
                Ok(Document(services.seal(&scope, seal).await?))
            }),
            call::INGRESS_CALL => {
                let (services, scope) = (Arc::clone(&self.services), Arc::clone(&self.scope));
                Box::pin(async move { hand_over(services.callers.own(&scope.operation)) })
            }
            // Polled by whoever waits, and on no task of its own: dropped, it takes no call.
            call::INGRESS_NEXT => {
                let (services, scope) = (Arc::clone(&self.services), Arc::clone(&self.scope));
                Box::pin(async move { hand_over(services.callers.next(&scope.operation).await) })
            }
            unknown => {
                let message = format!("this host does not serve `{unknown}`");
                let fault = Fault::permanent("host.unknown_call", message);
                refuse(&fault.advise("upgrade this agent, or use an older plugin"))
            }
        }
    }
}

/// An answer to a call.
struct Answer(Reply);

/// An answer that is a document.
struct Document<T>(T);

impl<T: Serialize> From<Document<T>> for Answer {
    fn from(Document(body): Document<T>) -> Self {
        Answer(match message::encode(&body) {
            Ok(body) => Reply::ok(body),
            Err(fault) => Reply::error(message::encode_fault(&fault)),
        })
    }
}

impl From<Object> for Answer {
    fn from(object: Object) -> Self {
        Answer(match message::encode(&()) {
            Ok(body) => Reply::ok(body).with(object),
            Err(fault) => Reply::error(message::encode_fault(&fault)),
        })
    }
}

/// A call with its connection, for the step alone.
fn hand_over(taken: Result<(IncomingCall, OwnedFd), Fault>) -> Reply {
    match taken.and_then(|(call, connection)| Ok((message::encode(&call)?, connection))) {
        Ok((call, connection)) => Reply::ok(call).with(Object::Descriptor(connection)),
        Err(fault) => Reply::error(message::encode_fault(&fault)),
    }
}

fn answer(answer: impl Into<Answer>) -> BoxFuture<'static, Reply> {
    Box::pin(futures::future::ready(answer.into().0))
}

fn refuse(fault: &Fault) -> BoxFuture<'static, Reply> {
    Box::pin(futures::future::ready(Reply::error(message::encode_fault(fault))))
}

/// The run that spawned `run`, if one did: a child is named `parent/entry/key`.
fn parent(run: &RunId) -> Option<RunId> {
    let (above, _key) = run.as_str().rsplit_once('/')?;
    let (above, _entry) = above.rsplit_once('/')?;
    RunId::new(above).ok()
}
