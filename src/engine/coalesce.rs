//! Operations of which one is enough: the second ends with the outcome of the first.
//!
//! Where a workload's policy says so, a backup that waits for the same as another one is one with
//! it. Whoever comes for their permit first does the work; the other one **follows** it, which is
//! written down, so that it holds over a restart. The follower ends as the other one has ended,
//! with the same outcome or fault. Only a cancel is nobody's but the one's who was cancelled: then
//! the follower does the work itself, and of several the first one does it for the others.

use fsm_core::{Cancellation, Ending, Fault, RunId};
use plugin_sdk::OperationId;
use throttle::{AcquireErrorKind, Permit};

use super::{
    claims::acquire,
    execute::{CANCELLED, unless_cancelled},
    handle::Inner,
};
use crate::{
    Error,
    catalog::Planned,
    error::EXPIRED,
    events::Event,
    operation::{OperationStatus, Outcome, Phase},
};

/// What an operation that wanted to be admitted came to.
pub(super) enum Admitted {
    /// It may work.
    In(Permit),
    /// It was cancelled while it waited.
    Cancelled,
    /// Another one has done its work.
    Followed(Result<Outcome, Fault>),
}

/// Waits until the operation may work, or another one has done its work.
pub(super) async fn admit(
    inner: &Inner,
    status: &mut OperationStatus,
    planned: &Planned,
    cancel: &Cancellation,
) -> Result<Admitted, Error> {
    let mut permit = None;
    loop {
        if let Some(lead) = status.follows.clone() {
            let Some(end) = unless_cancelled(cancel, outcome_of(inner, status, &lead)).await else {
                return Ok(Admitted::Cancelled);
            };
            if let Some(end) = end? {
                return Ok(Admitted::Followed(end));
            }
            follow(inner, status, None).await?;
            if let Some(shared) = permit.take() {
                // The shares of a permit do not exclude each other: neither a step of the one
                // that was cancelled, which may not have let go yet, nor the other followers.
                let let_go = inner.services.let_go(&lead);
                if unless_cancelled(cancel, let_go).await.is_none() {
                    return Ok(Admitted::Cancelled);
                }
                match next(inner, &shared, &lead) {
                    Some(next) if next == status.id => {
                        return in_time(inner, status).map(|()| Admitted::In(shared));
                    }
                    Some(next) => {
                        permit = Some(shared);
                        follow(inner, status, Some(next)).await?;
                        continue;
                    }
                    // An operator has taken it away.
                    None => drop(shared),
                }
            }
        }
        let Some(acquired) = unless_cancelled(cancel, acquire(inner, status, &planned.plan)).await
        else {
            return Ok(Admitted::Cancelled);
        };
        match acquired {
            Ok(granted) => match granted.coalesced_into() {
                None => return in_time(inner, status).map(|()| Admitted::In(granted)),
                Some(lead) => {
                    let lead = OperationId::new(lead);
                    permit = Some(granted);
                    follow(inner, status, Some(lead)).await?;
                }
            },
            Err(error) => match lead_of(&error) {
                // It came for the permit when the work was done.
                Some(lead) => {
                    permit = None;
                    follow(inner, status, Some(lead)).await?;
                }
                None => return Err(error),
            },
        }
    }
}

/// Of those who share a permit the one that does the work after `lead`: the same for all of them,
/// whenever they ask.
fn next(inner: &Inner, permit: &Permit, lead: &OperationId) -> Option<OperationId> {
    let holders = inner.door.admission.snapshot().holders;
    let holder = holders.into_iter().find(|holder| holder.id == permit.id())?;
    let owners = std::iter::once(holder.owner).chain(holder.shared_with).map(OperationId::new);
    owners.filter(|owner| owner != lead).min()
}

/// Ends a run that another one has done the work of.
pub(super) async fn give_up(
    inner: &Inner,
    run: &RunId,
    lead: Option<&OperationId>,
) -> Result<(), Error> {
    let lead = lead.map_or("another operation", OperationId::as_str);
    let fault = Fault::new(
        fsm_core::Class::Cancelled,
        "operation.coalesced",
        format!("{lead} did its work"),
    );
    inner.runtime.revoke(run, Ending::Cancelled, fault).await?;
    Ok(())
}

/// Whether the operation may still begin.
fn in_time(inner: &Inner, status: &OperationStatus) -> Result<(), Error> {
    let now = inner.services.environment.now();
    if status.phase == Phase::Running || status.deadline.is_none_or(|deadline| now < deadline) {
        return Ok(());
    }
    let message = format!("the deadline of operation {} passed before it could begin", status.id);
    let fault = Fault::retryable(EXPIRED, message);
    Err(fault.advise("ask again, with a later deadline").into())
}

fn lead_of(error: &Error) -> Option<OperationId> {
    let acquire = error.part::<throttle::AcquireError>()?;
    match acquire.kind() {
        AcquireErrorKind::Coalesced { into } => Some(OperationId::new(into.as_str())),
        _ => None,
    }
}

async fn follow(
    inner: &Inner,
    status: &mut OperationStatus,
    lead: Option<OperationId>,
) -> Result<(), Error> {
    let services = &inner.services;
    let now = services.environment.now();
    services.catalog.follow(status.id.clone(), lead.clone(), now).await?;
    if let Some(into) = lead.clone() {
        services.tell(Event::Coalesced { operation: status.id.clone(), into });
    }
    status.follows = lead;
    Ok(())
}

/// How `lead` ended; `None` if it was cancelled, or there is none.
async fn outcome_of(
    inner: &Inner,
    status: &OperationStatus,
    lead: &OperationId,
) -> Result<Option<Result<Outcome, Fault>>, Error> {
    let live = inner.live().get(lead).cloned();
    if let Some(live) = live {
        live.gone().await;
    }
    let Some(led) = inner.services.catalog.operation(lead.clone()).await? else { return Ok(None) };
    match (led.phase, led.outcome, led.fault) {
        (Phase::Cancelled, ..) => Ok(None),
        (Phase::Failed, _, Some(fault)) => Ok(Some(Err(fault))),
        (Phase::Succeeded | Phase::Skipped, Some(outcome), _) => Ok(Some(Ok(outcome))),
        _ => {
            let message =
                format!("operation {} is one with {lead}, which has not ended", status.id);
            Err(Error::stopped(message))
        }
    }
}

/// What the journal says of a follower that was cancelled.
pub(super) fn cancelled() -> Fault {
    Fault::new(fsm_core::Class::Cancelled, "cancelled", CANCELLED)
}
