//! The task of one operation: decide, be admitted, run, write down what came of it.

use std::sync::Arc;

use fsm_core::{Cancellation, Class, Ending, Fault, RunId};
use futures::{
    future::{Either, select},
    pin_mut,
};
use plugin_sdk::{
    Claim, Decision, ItemId, OperationId, PointId, RestoreRequest, RunPlan, Sealed, Wanted,
};
use throttle::{Permit, Priority, Request, Resource};
use tokio::sync::watch;

use super::{
    handle::{Engine, Inner, Live},
    requests::Operation,
};
use crate::{
    Error,
    catalog::{Accepted, Planned},
    convert,
    events::Event,
    operation::{BackupStats, OperationStatus, Outcome, Phase, Task},
    plugins::calls::Scope,
};

/// How an operation came to this process.
pub(super) enum Origin {
    /// It was just accepted.
    New,
    /// An earlier process left it; these are the exclusions that it held there.
    Left(Option<Permit>),
}

/// Writes an operation down and gives it its task; an operation that is known already is found.
pub(super) async fn submit(
    engine: &Engine,
    id: Option<OperationId>,
    task: Task,
) -> Result<Operation, Error> {
    let inner = &engine.inner;
    inner.check_open()?;
    inner.workload(task.item())?;
    let now = inner.services.environment.now();
    let id = id.unwrap_or_else(|| {
        let unique = inner.services.environment.random() as u32;
        OperationId::new(format!("{}-{}-{unique:08x}", task.verb(), now.as_unix_ms()))
    });
    first_run(&id)?;
    let (status, accepted) = inner.services.catalog.accept(id.clone(), task.clone(), now).await?;
    if status.task != task {
        let message = format!("operation `{id}` is something else: {}", status.task.verb());
        return Err(Error::request("operation.id_taken", message));
    }
    if accepted == Accepted::New {
        spawn(engine, status, Origin::New);
    }
    Ok(Operation::new(engine.clone(), id))
}

/// Gives an operation its task.
pub(super) fn spawn(engine: &Engine, status: OperationStatus, origin: Origin) {
    let (ended, ending) = watch::channel(false);
    let cancel = Cancellation::new();
    let live = Live { cancel: cancel.clone(), ended: ending };
    engine.inner.live().insert(status.id.clone(), live);
    let inner = Arc::clone(&engine.inner);
    engine.inner.services.tokio.spawn(async move {
        let id = status.id.clone();
        match execute(&inner, status, origin, &cancel).await {
            Ok(()) => {
                inner.live().remove(&id);
                // Nobody may be waiting.
                let _ = ended.send(true);
            }
            // It stays among the live ones: it has not ended, and says so at a shutdown.
            Err(error) => {
                tracing::warn!(operation = %id, %error, "the operation stands still");
                let why = error.to_string();
                inner.services.tell(Event::Stuck { operation: id, why });
            }
        }
    });
}

/// Carries an operation to its end. An error means that it has not ended: it goes on in the next
/// process.
async fn execute(
    inner: &Inner,
    status: OperationStatus,
    origin: Origin,
    cancel: &Cancellation,
) -> Result<(), Error> {
    let id = status.id.clone();
    let result = carry_out(inner, status, origin, cancel).await;
    let (phase, outcome, fault) = match result {
        Ok(Some(outcome @ Outcome::Skipped { .. })) => (Phase::Skipped, Some(outcome), None),
        Ok(Some(outcome)) => (Phase::Succeeded, Some(outcome), None),
        Ok(None) => (Phase::Cancelled, None, Some(Fault::cancelled())),
        Err(Halt::Failed(fault)) if fault.class() == Class::Cancelled => {
            (Phase::Cancelled, None, Some(fault))
        }
        Err(Halt::Failed(fault)) => (Phase::Failed, None, Some(fault)),
        Err(Halt::StandsStill(error)) => return Err(error),
    };
    let now = inner.services.environment.now();
    inner.services.catalog.advance(id.clone(), phase, outcome, fault, now).await?;
    inner.services.tell(Event::Phase { operation: id, phase });
    Ok(())
}

/// Why an operation did not come to a good end.
enum Halt {
    /// It ended, badly.
    Failed(Fault),
    /// It cannot go on in this process.
    StandsStill(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        match error.kind() {
            crate::ErrorKind::Stopped | crate::ErrorKind::State => Halt::StandsStill(error),
            _ => Halt::Failed(error.fault().clone()),
        }
    }
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Halt::Failed(fault)
    }
}

/// Does the operation's work; `None` if it was cancelled before a run existed.
async fn carry_out(
    inner: &Inner,
    mut status: OperationStatus,
    origin: Origin,
    cancel: &Cancellation,
) -> Result<Option<Outcome>, Halt> {
    let services = &inner.services;
    let id = status.id.clone();
    if status.phase == Phase::Accepted {
        let work = decide(inner, &status);
        let Some(decided) = unless_cancelled(cancel, work).await else { return Ok(None) };
        match decided? {
            Decided::Skipped(outcome) => return Ok(Some(outcome)),
            Decided::Queued(run) => (status.run, status.phase) = (Some(run), Phase::Queued),
        }
        services.tell(Event::Phase { operation: id.clone(), phase: Phase::Queued });
    }
    let run = status.run.clone().ok_or_else(|| {
        Halt::Failed(Fault::bug("operation.no_run", format!("operation `{id}` has no run")))
    })?;
    let planned = services.catalog.planned(id.clone()).await?.ok_or_else(|| {
        Halt::Failed(Fault::bug("operation.no_plan", format!("operation `{id}` has no plan")))
    })?;
    let item = status.task.item().clone();
    services.admit(Scope::new(run.clone(), id.clone(), item, planned.chain.iter().cloned()));
    let held = match origin {
        Origin::New | Origin::Left(None) => None,
        Origin::Left(held) => held,
    };
    let waiting = acquire(inner, &status, &planned.plan, held.as_ref());
    let Some(permit) = unless_cancelled(cancel, waiting).await else {
        // The run exists, so it is the graph that says what a cancel does; nothing of it has run.
        let handle = inner.runtime.cancel(&run, "the operation was cancelled").await;
        let handle = handle.map_err(Error::from)?;
        return finish(inner, &status, &run, handle).await;
    };
    let permit = permit?;
    let handle = if status.phase == Phase::Running {
        inner.runtime.resume(&run).await
    } else {
        let now = services.environment.now();
        services.catalog.advance(id.clone(), Phase::Running, None, None, now).await?;
        services.tell(Event::Phase { operation: id.clone(), phase: Phase::Running });
        inner.runtime.launch_fresh(&run).await
    };
    let handle = handle.map_err(Error::from)?;
    if cancel.is_requested() {
        // Asked for between the permit and the run.
        inner.runtime.cancel(&run, "the operation was cancelled").await.map_err(Error::from)?;
    }
    let outcome = finish(inner, &status, &run, handle).await;
    drop((permit, held));
    outcome
}

/// Waits for the run's end, and says what came of it in the operation's words.
async fn finish(
    inner: &Inner,
    status: &OperationStatus,
    run: &RunId,
    handle: fsm_core::RunHandle,
) -> Result<Option<Outcome>, Halt> {
    let end = handle.end().await.map_err(|error| {
        let stopped = Error::stopped(format!("operation {} has not ended", status.id));
        Halt::StandsStill(stopped.caused_by(error))
    })?;
    inner.services.forget(run);
    let failed = |fallback: Fault| Halt::Failed(end.fault.clone().unwrap_or(fallback));
    match end.ending {
        Ending::Completed => {}
        Ending::Cancelled => return Err(failed(Fault::cancelled())),
        Ending::Redirected => {
            let message = format!("the run ended in `{}`: other work is needed", end.state);
            let fault = Fault::new(Class::Chain, "run.redirected", message);
            return Err(Halt::Failed(fault.advise("ask for a full backup")));
        }
        _ => {
            // A machine that ends in a failed state of its own may say why in that state's data.
            let said: Option<Fault> = end.data.decode::<FailedState>().ok().map(|said| said.fault);
            let message = format!("the run ended in `{}`", end.state);
            return Err(failed(said.unwrap_or_else(|| Fault::permanent("run.failed", message))));
        }
    }
    match &status.task {
        Task::Backup { item, .. } => {
            let Sealed { point } = end.data.decode()?;
            let stats = stats(inner, status, run).await?;
            inner.points(item).await?;
            Ok(Some(Outcome::BackedUp { point, stats }))
        }
        Task::Restore { point, .. } => {
            let report = serde_json::from_slice(end.data.as_bytes()).unwrap_or_default();
            Ok(Some(Outcome::Restored { point: point.clone(), report }))
        }
    }
}

/// The part of a failed state's data that the engine understands.
#[derive(serde::Deserialize)]
struct FailedState {
    fault: Fault,
}

async fn stats(inner: &Inner, status: &OperationStatus, run: &RunId) -> Result<BackupStats, Error> {
    let streams = inner.services.catalog.finished_streams(status.id.clone(), run.clone()).await?;
    let mut sum = BackupStats::default();
    for stream in streams {
        sum.read_bytes += stream.receipt.stats.read_bytes;
        sum.new_bytes += stream.receipt.stats.new_raw_bytes;
        sum.stored_bytes += stream.receipt.stats.new_stored_bytes;
        sum.lent_chunks += stream.lent_chunks;
        sum.foreign_chunks += stream.foreign_chunks;
    }
    Ok(sum)
}

/// What was decided, durably.
enum Decided {
    Skipped(Outcome),
    Queued(RunId),
}

/// Has the workload decide, and journals the decision with the first record of its run.
async fn decide(inner: &Inner, status: &OperationStatus) -> Result<Decided, Error> {
    let workload = inner.workload(status.task.item())?;
    let probe = Request::new(status.id.as_str())
        .capacity(Resource::node(), "probes", 1)
        .priority(Priority::Normal);
    let _permit = inner.admission.acquire(probe).await?;
    let planned = match &status.task {
        Task::Backup { item, kind, even_if_unchanged } => {
            let mut wanted = Wanted::new(status.id.clone(), *kind);
            if *even_if_unchanged {
                wanted = wanted.even_if_unchanged();
            }
            let points = inner.points(item).await?;
            match workload.decide(item, wanted, points.clone()).await? {
                Decision::Run(plan) => Planned { plan, chain: Vec::new() },
                Decision::Skip { reason, unchanged_since } => {
                    let of = points.iter().find(|point| point.id == unchanged_since);
                    let of = of.ok_or_else(|| {
                        let message =
                            format!("it skips because of unknown point {unchanged_since}");
                        Fault::bug("plugin.contract", message)
                    })?;
                    return skip(inner, status, item, reason, of).await.map(Decided::Skipped);
                }
                _ => return Err(Fault::bug("plugin.contract", "an unknown decision").into()),
            }
        }
        Task::Restore { item, point, target, overwrite } => {
            let points = inner.points(item).await?;
            if !points.iter().any(|known| known.id == *point) {
                let message = format!("item {item} has no recovery point `{point}`");
                return Err(Fault::user("point.unknown", message)
                    .advise("list the item's points and choose one of them")
                    .into());
            }
            let chain = workload.plan(item, &points, point).await?;
            let ids: Vec<PointId> = chain.iter().map(|point| point.id.clone()).collect();
            verify_present(inner, item, &ids).await?;
            let mut request = RestoreRequest::new(status.id.clone(), item.clone(), chain);
            request.target.clone_from(target);
            request.overwrite = *overwrite;
            Planned { plan: workload.restore(request).await?, chain: ids }
        }
    };
    let run = first_run(&status.id)?;
    let machine = workload.machine_name(&planned.plan.machine);
    let first = inner.runtime.first_record(run.clone(), &machine, planned.plan.input.clone())?;
    inner.services.catalog.decided(status.id.clone(), &planned, first).await?;
    Ok(Decided::Queued(run))
}

/// Seals the data of an unchanged point again: it is as good as a new one, at a new time.
async fn skip(
    inner: &Inner,
    status: &OperationStatus,
    item: &ItemId,
    reason: String,
    of: &plugin_sdk::PointMeta,
) -> Result<Outcome, Error> {
    let services = &inner.services;
    let point = PointId::new(first_run(&status.id)?.to_string());
    let now = services.environment.now();
    let request = convert::alias_request(&point, services.epoch, of, now)?;
    services.item(item).await?.seal(request).await?;
    services.tell(Event::Sealed { item: item.clone(), point: point.clone() });
    inner.points(item).await?;
    Ok(Outcome::Skipped { reason, point, alias_of: of.id.clone() })
}

/// Checks that every object that a restore needs is in the archive, before its target is touched.
async fn verify_present(inner: &Inner, item: &ItemId, chain: &[PointId]) -> Result<(), Error> {
    let archived = inner.services.item(item).await?;
    let entries = archived.points().await?;
    for id in chain {
        if let Some(entry) = entries.iter().find(|entry| entry.id.as_str() == id.as_str()) {
            archived.read(entry).await?.verify_present().await?;
        }
    }
    Ok(())
}

/// Waits for everything that the plan claims.
async fn acquire(
    inner: &Inner,
    status: &OperationStatus,
    plan: &RunPlan,
    held: Option<&Permit>,
) -> Result<Permit, Error> {
    let mut request = claims(status, plan, Part::Everything);
    if let Some(held) = held {
        // The exclusions are back already; what is asked for again are the streams.
        request = claims(status, plan, Part::Capacity).lent_by(held);
    }
    let waited = inner.services.environment.now().since(status.created_at);
    Ok(inner.admission.acquire(request.already_waited(waited)).await?)
}

/// Which of a plan's claims.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Everything,
    Exclusions,
    Capacity,
}

/// A plan's claims in the throttle's words.
pub(super) fn claims(status: &OperationStatus, plan: &RunPlan, part: Part) -> Request {
    let item = status.task.item();
    let workload = item.workload();
    let mut request = Request::new(status.id.as_str());
    let mut streams = 0;
    for claim in &plan.claims {
        match claim {
            Claim::Streams { count } => streams += count,
            _ if part == Part::Capacity => {}
            Claim::Item { class } => {
                request = request.exclusion(workload, Resource::item(item.as_str()), class);
            }
            Claim::Instance { class } => {
                let instance = format!("{workload}/{}", item.instance());
                request = request.exclusion(workload, Resource::instance(instance), class);
            }
            // A claim of a newer plugin: what it excludes is not known here.
            _ => request = request.exclusion(workload, Resource::item(item.as_str()), "*"),
        }
    }
    if part != Part::Exclusions {
        request = request.capacity(Resource::node(), "streams", streams.max(1));
    }
    request
}

/// The first run of an operation, by its name.
fn first_run(id: &OperationId) -> Result<RunId, Error> {
    let valid = !id.as_str().contains('/') && id.as_str().len() <= 180;
    let run = valid.then(|| RunId::new(format!("{id}/1")).ok()).flatten();
    run.ok_or_else(|| {
        let message = format!("`{id}` cannot name an operation");
        Error::request("operation.id", message)
    })
}

/// `work`, unless somebody cancels first.
async fn unless_cancelled<T>(cancel: &Cancellation, work: impl Future<Output = T>) -> Option<T> {
    let cancelled = cancel.requested();
    pin_mut!(work, cancelled);
    match select(work, cancelled).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(((), _)) => None,
    }
}
