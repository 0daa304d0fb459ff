//! What a start does with what an earlier process has left.

use std::sync::Arc;

use fsm_core::{Class, Fault};
use futures::future::{BoxFuture, FutureExt};
use plugin_sdk::OperationId;
use throttle::AcquireErrorKind;

use super::{
    claims::claims,
    execute::{Origin, carry},
    handle::{Enlisted, Inner},
};
use crate::{
    Error,
    admission::{Pass, Taken},
    operation::{OperationStatus, Phase},
};

/// An operation that could not take back at a start what it had excluded before.
///
/// Somebody else has it, which cannot have been so while both worked: the rules have changed
/// meanwhile, say. Or they do not know it any more. It waits for it again, and nothing of it runs
/// before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostExclusion {
    /// Which operation.
    pub operation: OperationId,
    /// Who has what it had; nobody if it is not known any more.
    pub held_by: Vec<OperationId>,
    /// The whole of it in words.
    pub why: String,
}

/// What an operation has of what it held before.
pub(super) struct Left {
    pub(super) pass: Arc<Pass>,
    /// The wait for its capacity; in line already.
    pub(super) taking: BoxFuture<'static, Taken>,
}

/// Gives every unfinished operation its task again.
///
/// All exclusions are taken back before anything new is admitted. Two operations that cannot both
/// have held theirs are reported, and the younger one waits like a new one. For its capacity an
/// operation queues at the place of its arrival, before anybody else can have that.
pub(super) async fn unfinished(inner: &Arc<Inner>) -> Result<(), Error> {
    let services = &inner.services;
    let mut left = Vec::new();
    for status in services.catalog.unfinished().await? {
        let held = match status.phase {
            Phase::Running => take_back(inner, &status).await?,
            _ => None,
        };
        left.push((status, held.map(|permit| in_line(inner, permit))));
    }
    inner.door.admission.open();
    // All of them are known before the first one looks for another.
    let mut tasks = Vec::new();
    for (status, held) in left {
        tracing::info!(operation = %status.id, phase = %status.phase, "continuing");
        if let Enlisted::First(entry) = inner.enlist(&status.id)? {
            lose_call(inner, &status).await?;
            if status.cancel_at.is_some() || has_lost_its_call(&status) {
                entry.cancel.request();
            }
            tasks.push((entry, status, held.map(look)));
        }
    }
    for (entry, status, held) in tasks {
        carry(inner, entry, status, Origin::Left(held));
    }
    Ok(())
}

/// Whether the operation was made of a call that no step will take any more.
fn has_lost_its_call(status: &OperationStatus) -> bool {
    status.called_by.is_some() && status.phase != Phase::Running
}

/// Cancels what was made of a call and had not begun: the caller has gone with the process that
/// held its connection.
async fn lose_call(inner: &Inner, status: &OperationStatus) -> Result<(), Error> {
    if !has_lost_its_call(status) {
        return Ok(());
    }
    let services = &inner.services;
    services.callers.open(&status.id);
    let why = "the call was lost with the agent's process before the operation began";
    services.callers.explain(&status.id, Fault::new(Class::Cancelled, "call.lost", why));
    services.catalog.cancel(status.id.clone(), services.environment.now()).await
}

/// Puts an operation that has its exclusions back in line for its capacity.
fn in_line(inner: &Inner, permit: throttle::Permit) -> Left {
    let operation = OperationId::new(permit.owner());
    let pass = Pass::away(operation, inner.door.clone(), permit);
    let taken = Arc::clone(&pass);
    let taking = async move { taken.take().await }.boxed();
    // Nothing is granted before the opening; polled once, it is in line by then.
    look(Left { pass, taking })
}

/// Takes what an operation has been granted meanwhile.
fn look(left: Left) -> Left {
    let Left { pass, mut taking } = left;
    let taken = (&mut taking).now_or_never();
    let taking = taken.map_or(taking, |taken| futures::future::ready(taken).boxed());
    Left { pass, taking }
}

/// What the operation excluded; `None` if it cannot have that.
async fn take_back(
    inner: &Inner,
    status: &OperationStatus,
) -> Result<Option<throttle::Permit>, Error> {
    let Some(planned) = inner.services.catalog.planned(status.id.clone()).await? else {
        return Ok(None);
    };
    let adopted = claims(inner, status, &planned.plan)
        .and_then(|request| Ok(inner.door.admission.adopt_exclusions(request)?));
    let error = match adopted {
        Ok(permit) => return Ok(Some(permit)),
        Err(error) => error,
    };
    tracing::warn!(operation = %status.id, %error, "exclusions are lost");
    let Some(refused) = error.part::<throttle::AcquireError>() else { return Ok(None) };
    let conflicts = match refused.kind() {
        AcquireErrorKind::Conflicting { conflicts } => &**conflicts,
        _ => &[],
    };
    let holder = |conflict: &throttle::Conflict| OperationId::new(conflict.holder.as_str());
    let what = |conflict: &throttle::Conflict| {
        let throttle::Conflict { resource, class, holder, holder_class, .. } = conflict;
        format!("{resource}: {holder} has it for {holder_class}, and it is wanted for {class}")
    };
    let why = match conflicts {
        [] => refused.to_string(),
        _ => conflicts.iter().map(what).collect::<Vec<_>>().join("; "),
    };
    let (operation, held_by) = (status.id.clone(), conflicts.iter().map(holder).collect());
    inner.lost().push(LostExclusion { operation, held_by, why });
    Ok(None)
}
