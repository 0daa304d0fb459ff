//! What an operation holds while it works: its plan's claims, in the throttle's words.

use fsm_core::Fault;
use plugin_sdk::{Claim, RunPlan};
use throttle::{Permit, Request, Resource};

use super::handle::Inner;
use crate::{
    Error,
    admission::DATA,
    operation::{OperationStatus, Phase, Task},
};

/// Waits for everything that the plan claims, or until the operation's deadline.
pub(super) async fn acquire(
    inner: &Inner,
    status: &OperationStatus,
    plan: &RunPlan,
) -> Result<Permit, Error> {
    let mut request = claims(inner, status, plan)?;
    // Work that has begun is carried to its end, however late it is.
    if let Some(deadline) = status.deadline.filter(|_| status.phase != Phase::Running) {
        request = request.deadline(inner.door.moment(deadline));
    }
    Ok(inner.door.acquire(request).await?)
}

/// A plan's claims in the throttle's words, in the place of the operation's arrival.
pub(super) fn claims(
    inner: &Inner,
    status: &OperationStatus,
    plan: &RunPlan,
) -> Result<Request, Error> {
    let item = status.task.item();
    let workload = item.workload();
    let mut request = Request::new(status.id.as_str());
    let mut streams: u32 = 0;
    let mut classes = Vec::new();
    for claim in &plan.claims {
        match claim {
            // A sum that cannot be counted is more than there is.
            Claim::Streams { count } => streams = count.saturating_add(streams),
            Claim::Item { class } => {
                classes.push(class.as_str());
                request = request.exclusion(workload, Resource::item(item.as_str()), class);
            }
            Claim::Instance { class } => {
                classes.push(class.as_str());
                let instance = format!("{workload}/{}", item.instance());
                request = request.exclusion(workload, Resource::instance(instance), class);
            }
            _ => {
                let message = "the plugin claims something that this agent does not know";
                let fault = Fault::permanent("plugin.claim", message);
                return Err(fault.advise("upgrade this agent, or use an older plugin").into());
            }
        }
    }
    if classes.is_empty() {
        classes.push(DATA);
        request = request.exclusion(workload, Resource::item(item.as_str()), DATA);
    }
    let policy = inner.policies.of(workload).ok_or_else(|| inner.unknown_workload(item))?;
    for claim in inner.lanes.claims(item, classes[0], &policy, streams.max(1)) {
        request = request.claim(claim);
    }
    if let Some(priority) = status.priority {
        request = request.priority(priority);
    }
    if let Some(key) = coalesce_key(status, plan) {
        request = request.coalesce_key(key);
    }
    let waited = inner.services.environment.now().since(status.created_at);
    Ok(request.already_waited(waited))
}

/// What makes two backups of an item one, where the policy says that one is enough: the same
/// machine makes the same kind of point. Two restores never are, nor is what was made of a call.
fn coalesce_key(status: &OperationStatus, plan: &RunPlan) -> Option<String> {
    if status.called_by.is_some() {
        // Its caller has bytes that nobody else has.
        return None;
    }
    match &status.task {
        Task::Backup { kind, even_if_unchanged, .. } => {
            let forced = if *even_if_unchanged { " even if unchanged" } else { "" };
            Some(format!("{} {kind}{forced}", plan.machine))
        }
        Task::Restore { .. } | Task::Other { .. } => None,
    }
}
