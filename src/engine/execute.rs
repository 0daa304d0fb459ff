//! The task of one operation: decide, be admitted, run, write down what came of it.

use std::sync::Arc;

use fsm_core::{Cancellation, Class, Ending, Fault, RunId, RuntimeError};
use futures::{
    future::{Either, select},
    pin_mut,
};
use plugin_sdk::{ItemId, OperationId, Sealed};

use super::{
    claims::acquire,
    coalesce::{Admitted, admit, cancelled, give_up},
    decide::{Decided, alias, decide, queue},
    handle::{Engine, Enlisted, Entry, Inner, Stage},
    recover::Left,
    requests::Operation,
    tend::tend,
};
use crate::{
    Error, ErrorKind,
    admission::Pass,
    catalog::{Accepted, MadeOf, Planned, Terms},
    events::Event,
    ingress::Waiting,
    operation::{BackupStats, OperationStatus, Outcome, Phase, Task},
    plugins::calls::Scope,
};

/// How an operation came to this process.
pub(super) enum Origin {
    /// It was just accepted.
    New,
    /// An earlier process left it; this is what it has of what it held there.
    Left(Option<Left>),
}

/// Writes an operation down and gives it its task; an operation that is known already is found.
pub(super) async fn submit(
    engine: &Engine,
    id: Option<OperationId>,
    task: Task,
    terms: Terms,
) -> Result<Operation, Error> {
    let inner = &engine.inner;
    inner.check_open()?;
    let workload = inner.workload(task.item())?;
    if offered(&task).is_some_and(|operation| !workload.offers(operation)) {
        let message = format!("workload `{}` offers no such {}", workload.name(), task.verb());
        let advice = "ask for one of the operations that its plugin's manifest lists";
        return Err(Error::request("operation.unsupported", message, advice));
    }
    let id = id.unwrap_or_else(|| {
        let now = inner.services.environment.now();
        let unique = inner.services.environment.random() as u32;
        OperationId::new(format!("{}-{}-{unique:08x}", task.verb(), now.as_unix_ms()))
    });
    first_run(&id)?;
    let status = loop {
        match inner.enlist(&id)? {
            Enlisted::First(entry) => {
                // On a task of its own: whoever drops this future must not leave an operation
                // behind that is accepted and has no task.
                let (id, task) = (id.clone(), task.clone());
                let accepting = Accepting { id, task, terms, made_of: None };
                let accepting = accept(Arc::clone(inner), entry, accepting);
                let accepted = inner.services.tokio.spawn(accepting).await;
                let accepted = accepted.map_err(|error| {
                    Error::stopped("the operation was not accepted").caused_by(error)
                })?;
                break accepted?.0;
            }
            Enlisted::Before(mut live) => {
                // The sender goes if it could not be accepted.
                let _ = live.stage.wait_for(|stage| *stage != Stage::Submitted).await;
                if let Some(status) = inner.services.catalog.operation(id.clone()).await? {
                    break status;
                }
            }
        }
    };
    if status.task != task {
        let message = format!("operation `{id}` is something else: {}", status.task.verb());
        return Err(Error::request("operation.id_taken", message, "choose another id"));
    }
    Ok(Operation::new(engine.clone(), id))
}

/// What a manifest calls the task, if that can be asked for.
fn offered(task: &Task) -> Option<plugin_sdk::Operation> {
    match task {
        Task::Backup { kind, .. } => Some(plugin_sdk::Operation::Backup(*kind)),
        Task::Restore { .. } => Some(plugin_sdk::Operation::Restore),
        Task::Other { .. } => None,
    }
}

/// An operation to write down.
pub(super) struct Accepting {
    pub(super) id: OperationId,
    pub(super) task: Task,
    pub(super) terms: Terms,
    /// The call that it is made of, if it is made of one.
    pub(super) made_of: Option<(MadeOf, Arc<Waiting>)>,
}

/// Writes an operation down, and carries it out if it is new.
pub(super) async fn accept(
    inner: Arc<Inner>,
    entry: Entry,
    accepting: Accepting,
) -> Result<(OperationStatus, Accepted), Error> {
    let Accepting { id, task, terms, made_of } = accepting;
    let (made_of, call) = made_of.unzip();
    let now = inner.services.environment.now();
    match inner.services.catalog.accept(id.clone(), task, terms, made_of, now).await {
        Ok((status, Accepted::New)) => {
            // From here on a step may ask for it, and none before.
            if let Some(call) = call {
                inner.services.callers.open_for(&id, call);
            }
            carry(&inner, entry, status.clone(), Origin::New);
            Ok((status, Accepted::New))
        }
        Ok((status, Accepted::Known)) => {
            inner.live().remove(&id);
            Ok((status, Accepted::Known))
        }
        Err(error) => {
            inner.live().remove(&id);
            Err(error)
        }
    }
}

/// Gives an operation its task.
pub(super) fn carry(inner: &Arc<Inner>, entry: Entry, status: OperationStatus, origin: Origin) {
    let Entry { cancel, stage } = entry;
    stage.send_replace(Stage::Going);
    let inner = Arc::clone(inner);
    inner.services.callers.open(&status.id);
    inner.services.tokio.clone().spawn(async move {
        let id = status.id.clone();
        let executed = execute(&inner, status, origin, &cancel).await;
        inner.services.callers.close(&id);
        match executed {
            Ok(()) => {
                inner.live().remove(&id);
                stage.send_replace(Stage::Ended);
            }
            // It stays among the live ones: it has not ended, and says so at a shutdown.
            Err(error) if inner.is_closed() => {
                tracing::debug!(operation = %id, %error, "the operation was stopped");
            }
            Err(error) => {
                let why = reasons(&error);
                tracing::warn!(operation = %id, why, "the operation stands still");
                inner.services.is_stuck(&id, why);
            }
        }
    });
}

/// An error and everything behind it, in one line.
fn reasons(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
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
        Ok(None) => {
            let fault = Fault::new(Class::Cancelled, "cancelled", CANCELLED);
            (Phase::Cancelled, None, Some(fault))
        }
        Err(Halt::Failed(fault)) if fault.class() == Class::Cancelled => {
            (Phase::Cancelled, None, Some(fault))
        }
        Err(Halt::Failed(fault)) => (Phase::Failed, None, Some(fault)),
        Err(Halt::StandsStill(error)) => return Err(error),
    };
    let fault = match phase {
        // Its caller knows better why.
        Phase::Cancelled => inner.services.callers.why(&id).or(fault),
        _ => fault,
    };
    let now = inner.services.environment.now();
    inner.services.catalog.advance(id.clone(), phase, outcome, fault, now).await?;
    inner.services.tell(Event::Phase { operation: id, phase });
    Ok(())
}

/// Why an operation did not come to a good end.
pub(super) enum Halt {
    /// It ended, badly.
    Failed(Fault),
    /// It cannot go on in this process.
    StandsStill(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Stopped | ErrorKind::State => Halt::StandsStill(error),
            _ => Halt::Failed(error.fault().clone()),
        }
    }
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Halt::Failed(fault)
    }
}

impl From<RuntimeError> for Halt {
    /// Whatever keeps the runtime from driving a run, the run is in the journal and goes on in a
    /// process that has what is missing.
    fn from(error: RuntimeError) -> Self {
        Halt::StandsStill(error.into())
    }
}

/// What the journal says of a run that was cancelled.
pub(super) const CANCELLED: &str = "the operation was cancelled";

/// Does the operation's work; `None` if it was cancelled before a run existed.
async fn carry_out(
    inner: &Inner,
    mut status: OperationStatus,
    origin: Origin,
    cancel: &Cancellation,
) -> Result<Option<Outcome>, Halt> {
    let services = &inner.services;
    let id = status.id.clone();
    let item = status.task.item().clone();
    // An operation whose plugin is missing waits for it.
    inner.workload(&item).map_err(Halt::StandsStill)?;
    if status.phase == Phase::Accepted {
        let Some(decided) = unless_cancelled(cancel, decide(inner, &status)).await else {
            return Ok(None);
        };
        // Not to be cancelled: what was decided is written down whole, or not at all.
        match decided? {
            Decided::Skip(skip) => return Ok(Some(alias(inner, &status, skip).await?)),
            Decided::Run(planned) => {
                status.run = Some(queue(inner, &status, &planned).await?);
                status.phase = Phase::Queued;
            }
        }
        services.tell(Event::Phase { operation: id.clone(), phase: Phase::Queued });
    }
    let run = status.run.clone().ok_or_else(|| {
        Halt::Failed(Fault::bug("operation.no_run", format!("operation `{id}` has no run")))
    })?;
    let planned = services.catalog.planned(id.clone()).await?.ok_or_else(|| {
        Halt::Failed(Fault::bug("operation.no_plan", format!("operation `{id}` has no plan")))
    })?;
    let pass = match enter(inner, &mut status, &planned, &run, origin, cancel).await? {
        Entered::Here(pass) => pass,
        Entered::Followed(outcome) => return Ok(Some(outcome)),
    };
    tend(services, &pass);
    let chain = planned.chain.iter().cloned();
    let scope = Scope::new(run.clone(), id.clone(), item, chain, Arc::clone(&pass));
    // It is forgotten when the run ends. A run that cannot end here keeps what it excludes.
    let scope = services.admit(scope);
    let outcome = work(inner, &status, &run, planned.plan.reason, &scope, cancel).await;
    if let Err(Halt::StandsStill(error)) = &outcome
        && !inner.is_closed()
    {
        services.give_back(&pass, &error.to_string());
    }
    outcome
}

/// How an operation with a run came to what it needs.
enum Entered {
    Here(Arc<Pass>),
    /// It needs nothing: another one has done its work.
    Followed(Outcome),
}

/// Waits for what the operation needs. One that was at work before has its exclusions already.
async fn enter(
    inner: &Inner,
    status: &mut OperationStatus,
    planned: &Planned,
    run: &RunId,
    origin: Origin,
    cancel: &Cancellation,
) -> Result<Entered, Halt> {
    let (id, door) = (status.id.clone(), inner.door.clone());
    if let Origin::Left(Some(Left { pass, taking })) = origin {
        // What a cancel leads to does not wait for capacity.
        unless_cancelled(cancel, taking).await;
        return Ok(Entered::Here(pass));
    }
    if status.phase == Phase::Running {
        // What a cancel leads to is work, too, and excludes others: it waits for that.
        let permit = acquire(inner, status, &planned.plan).await.map_err(Halt::StandsStill)?;
        return Ok(Entered::Here(Pass::new(id, door, permit)));
    }
    match admit(inner, status, planned, cancel).await {
        // Whoever had the permit before may have given its capacity back.
        Ok(Admitted::In(permit)) if permit.coalesced_into().is_some() => {
            Ok(Entered::Here(Pass::away(id, door, permit)))
        }
        Ok(Admitted::In(permit)) => Ok(Entered::Here(Pass::new(id, door, permit))),
        Ok(Admitted::Followed(end)) => {
            give_up(inner, run, status.follows.as_ref()).await?;
            Ok(Entered::Followed(end?))
        }
        Ok(Admitted::Cancelled) => {
            inner.runtime.revoke(run, Ending::Cancelled, cancelled()).await?;
            Err(Halt::Failed(cancelled()))
        }
        Err(error) => Err(refused(inner, run, error).await),
    }
}

/// Lets the run execute, and says what came of it.
async fn work(
    inner: &Inner,
    status: &OperationStatus,
    run: &RunId,
    reason: Option<String>,
    scope: &Scope,
    cancel: &Cancellation,
) -> Result<Option<Outcome>, Halt> {
    let (services, id) = (&inner.services, &status.id);
    let snapshot = inner.runtime.inspect(run).await?;
    let state = snapshot.map(|snapshot| snapshot.state).unwrap_or_default();
    let entered = Event::State { operation: id.clone(), state };
    let handle = if status.phase != Phase::Running {
        let now = services.environment.now();
        services.catalog.advance(id.clone(), Phase::Running, None, None, now).await?;
        services.tell(Event::Phase { operation: id.clone(), phase: Phase::Running });
        services.tell(entered);
        inner.runtime.launch(run).await?
    } else if cancel.is_requested() {
        // Its graph says what follows. What that undoes does not wait for capacity.
        scope.pass.excuse();
        inner.runtime.cancel(run, CANCELLED).await?
    } else {
        services.tell(entered);
        // Also a run that waits for an operator: starting the engine again lets it go on.
        inner.runtime.resume(run).await?
    };
    if unless_cancelled(cancel, handle.end()).await.is_none() {
        scope.pass.excuse();
        inner.runtime.cancel(run, CANCELLED).await?;
    }
    finish(inner, status, run, reason, handle).await
}

/// Ends a run that will never be admitted; nothing of it has run.
async fn refused(inner: &Inner, run: &RunId, error: Error) -> Halt {
    let halt = Halt::from(error);
    if let Halt::Failed(fault) = &halt
        && let Err(error) = inner.runtime.revoke(run, Ending::Failed, fault.clone()).await
    {
        tracing::warn!(%run, %error, "a run that was refused stays in the journal");
    }
    halt
}

/// Waits for the run's end, and says what came of it in the operation's words.
async fn finish(
    inner: &Inner,
    status: &OperationStatus,
    run: &RunId,
    reason: Option<String>,
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
            tidy(inner, item, &status.id).await;
            Ok(Some(Outcome::BackedUp { point, stats, reason }))
        }
        Task::Restore { point, .. } => {
            let report = serde_json::from_slice(end.data.as_bytes()).unwrap_or_default();
            Ok(Some(Outcome::Restored { point: point.clone(), report }))
        }
        Task::Other { .. } => {
            let result = serde_json::from_slice(end.data.as_bytes()).unwrap_or_default();
            Ok(Some(Outcome::Done { result }))
        }
    }
}

/// What can be done after a point was made. The point exists, so none of it is a failure.
pub(super) async fn tidy(inner: &Inner, item: &ItemId, operation: &OperationId) {
    let released = inner.services.release_abandoned(item, operation).await;
    let copied = inner.points(item).await.map(drop);
    for error in [released, copied].into_iter().filter_map(Result::err) {
        tracing::warn!(%item, %error, "left for the next backup to tidy up");
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

/// The first run of an operation, by its name.
pub(super) fn first_run(id: &OperationId) -> Result<RunId, Error> {
    let valid = !id.as_str().contains('/') && (1..=180).contains(&id.as_str().len());
    let run = valid.then(|| RunId::new(format!("{id}/1")).ok()).flatten();
    run.ok_or_else(|| {
        let message = format!("`{id}` cannot name an operation");
        let advice = "use 1 to 180 ASCII letters, digits and -_.:@";
        Error::request("operation.id", message, advice)
    })
}

/// `work`, unless somebody cancels first.
pub(super) async fn unless_cancelled<T>(
    cancel: &Cancellation,
    work: impl Future<Output = T>,
) -> Option<T> {
    let cancelled = cancel.requested();
    pin_mut!(work, cancelled);
    // What was asked for before the work began comes first.
    match select(cancelled, work).await {
        Either::Left(((), _)) => None,
        Either::Right((done, _)) => Some(done),
    }
}
