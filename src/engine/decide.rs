//! What an operation needs: the workload decides, and the decision is written down.

use fsm_core::{Fault, RunId};
use plugin_sdk::{Decision, ItemId, PointId, PointMeta, RestoreRequest, Wanted};
use throttle::{Priority, Request, Resource};

use super::{
    coverage::check_until,
    execute::{first_run, tidy},
    handle::{Inner, Points},
};
use crate::{
    Error, ErrorKind,
    catalog::Planned,
    convert,
    events::Event,
    operation::{OperationStatus, Outcome, Task},
};

/// What is to be done.
pub(super) enum Decided {
    Skip(Skip),
    Run(Planned),
}

/// A backup that needs no run.
pub(super) enum Skip {
    /// A point is to be made of the data of another one.
    Alias { reason: String, of: PointMeta },
    /// An earlier process made it, and died before it could say so.
    Made { point: PointId, of: PointId },
}

/// Has the workload decide.
pub(super) async fn decide(inner: &Inner, status: &OperationStatus) -> Result<Decided, Error> {
    let workload = inner.workload(status.task.item())?;
    // What is made of a call has its plan already.
    let given = match &status.called_by {
        Some(_) => inner.services.catalog.planned(status.id.clone()).await?,
        None => None,
    };
    let given = match (given, &status.task) {
        (Some(given), Task::Backup { .. } | Task::Other { .. }) => return Ok(Decided::Run(given)),
        (given, _) => given,
    };
    let mut probe = Request::new(status.id.as_str())
        .capacity(Resource::node(), "probes", 1)
        .priority(status.priority.unwrap_or(Priority::Normal));
    if let Some(deadline) = status.deadline {
        probe = probe.deadline(inner.door.moment(deadline));
    }
    let _permit = inner.door.acquire(probe).await?;
    match &status.task {
        Task::Backup { item, kind, even_if_unchanged } => {
            let points = inner.points(item).await?.readable;
            let own = point_of(&first_run(&status.id)?);
            if let Some(made) = points.iter().find(|point| point.id == own)
                && let Some(of) = &made.alias_of
            {
                return Ok(Decided::Skip(Skip::Made { point: own, of: of.clone() }));
            }
            let mut wanted = Wanted::new(status.id.clone(), *kind);
            if *even_if_unchanged {
                wanted = wanted.even_if_unchanged();
            }
            match workload.decide(item, wanted, points.clone()).await? {
                Decision::Run(plan) => Ok(Decided::Run(Planned { plan, chain: Vec::new() })),
                Decision::Skip { reason, unchanged_since } => {
                    let of = points.into_iter().find(|point| point.id == unchanged_since);
                    let of = of.ok_or_else(|| {
                        let message =
                            format!("it skips because of unknown point {unchanged_since}");
                        Fault::bug("plugin.contract", message)
                    })?;
                    Ok(Decided::Skip(Skip::Alias { reason, of }))
                }
                _ => Err(Fault::bug("plugin.contract", "an unknown decision").into()),
            }
        }
        Task::Restore { item, point, target, overwrite, until } => {
            let Points { readable: points, mut unreadable } = inner.points(item).await?;
            let Some(last) = points.iter().find(|known| known.id == *point) else {
                if !unreadable.is_empty() {
                    // It may be one of these; nobody can tell.
                    return Err(unreadable.swap_remove(0));
                }
                let message = format!("item {item} has no recovery point `{point}`");
                return Err(Fault::user("point.unknown", message)
                    .advise("list the item's points and choose one of them")
                    .into());
            };
            if let Some(until) = until {
                check_until(until, last, workload.manifest())?;
            }
            let chain = workload.plan(item, &points, point, until.as_ref()).await?;
            let ids: Vec<PointId> = chain.iter().map(|point| point.id.clone()).collect();
            verify_present(inner, item, &ids).await?;
            let mut request = RestoreRequest::new(status.id.clone(), item.clone(), chain);
            request.target.clone_from(target);
            request.overwrite = *overwrite;
            request.until.clone_from(until);
            let plan = match given {
                Some(given) => given.plan,
                None => workload.restore(request).await?,
            };
            Ok(Decided::Run(Planned { plan, chain: ids }))
        }
        Task::Other { .. } => {
            let message = format!("operation `{}` has no plan", status.id);
            Err(Fault::bug("operation.no_plan", message).into())
        }
    }
}

/// Journals the decision together with the first record of its run.
pub(super) async fn queue(
    inner: &Inner,
    status: &OperationStatus,
    planned: &Planned,
) -> Result<RunId, Error> {
    let run = first_run(&status.id)?;
    let machine = inner.workload(status.task.item())?.machine_name(&planned.plan.machine);
    let first = inner.runtime.first_record(run.clone(), &machine, planned.plan.input.clone());
    let first = first.map_err(|error| {
        let fault =
            Fault::bug("plugin.contract", "it planned with a machine that it does not have");
        Error::new(ErrorKind::Plugin, fault).caused_by(error)
    })?;
    inner.services.catalog.decided(status.id.clone(), planned, first).await?;
    Ok(run)
}

/// Seals the data of an unchanged point again: it is as good as a new one, at a new time.
pub(super) async fn alias(
    inner: &Inner,
    status: &OperationStatus,
    skip: Skip,
) -> Result<Outcome, Error> {
    let (services, item) = (&inner.services, status.task.item());
    let (reason, of) = match skip {
        Skip::Alias { reason, of } => (reason, of),
        Skip::Made { point, of } => {
            let reason = "nothing had changed when an earlier process looked".to_owned();
            return Ok(Outcome::Skipped { reason, point, alias_of: of });
        }
    };
    let point = point_of(&first_run(&status.id)?);
    let now = services.environment.now();
    let request = convert::alias_request(&point, services.epoch, &of, now)?;
    services.item(item).await?.seal(request).await?;
    services.tell(Event::Sealed { item: item.clone(), point: point.clone() });
    tidy(inner, item, &status.id).await;
    Ok(Outcome::Skipped { reason, point, alias_of: of.id })
}

/// The point that a run makes, or an alias instead of it.
fn point_of(run: &RunId) -> PointId {
    PointId::new(run.as_str())
}

/// Checks that every object that a restore needs is in the archive, before its target is touched.
async fn verify_present(inner: &Inner, item: &ItemId, chain: &[PointId]) -> Result<(), Error> {
    let archived = inner.services.item(item).await?;
    let entries = archived.listing().await?.points;
    for id in chain {
        if let Some(entry) = entries.iter().find(|entry| entry.id.as_str() == id.as_str()) {
            archived.read(entry).await?.verify_present().await?;
        }
    }
    Ok(())
}
