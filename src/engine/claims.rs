//! What an operation holds while it works: its plan's claims, in the throttle's words.

use fsm_core::Fault;
use plugin_sdk::{Claim, RunPlan};
use throttle::{Class, Permit, Policy, Request, Resource};

use super::handle::Inner;
use crate::{Error, operation::OperationStatus};

/// The kind of work that a plan without claims does, and the only one that a manifest without
/// rules knows: one at a time on each item.
const DATA: &str = "data";

/// The rules of a workload, as its manifest declares them.
pub(super) fn policy(declared: &Policy) -> Policy {
    match *declared == Policy::new() {
        true => Policy::new().class(Class::new(DATA)),
        false => declared.clone(),
    }
}

/// Waits for everything that the plan claims.
pub(super) async fn acquire(
    inner: &Inner,
    status: &OperationStatus,
    plan: &RunPlan,
    held: Option<&Permit>,
) -> Result<Permit, Error> {
    let mut request = claims(status, plan, Part::Everything)?;
    if let Some(held) = held {
        // The exclusions are back already; what is asked for again are the streams.
        request = claims(status, plan, Part::Capacity)?.lent_by(held);
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
pub(super) fn claims(
    status: &OperationStatus,
    plan: &RunPlan,
    part: Part,
) -> Result<Request, Fault> {
    let item = status.task.item();
    let workload = item.workload();
    let mut request = Request::new(status.id.as_str());
    let mut streams = 0;
    let excludes = |claim: &Claim| !matches!(claim, Claim::Streams { .. });
    if part != Part::Capacity && !plan.claims.iter().any(excludes) {
        request = request.exclusion(workload, Resource::item(item.as_str()), DATA);
    }
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
            _ => {
                let message = "the plugin claims something that this agent does not know";
                let fault = Fault::permanent("plugin.claim", message);
                return Err(fault.advise("upgrade this agent, or use an older plugin"));
            }
        }
    }
    if part != Part::Exclusions {
        request = request.capacity(Resource::node(), "streams", streams.max(1));
    }
    Ok(request)
}
