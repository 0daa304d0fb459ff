//! What operations wait for, as the embedder sees it.

use plugin_sdk::OperationId;
use throttle::{Snapshot, Waiting};

use super::handle::Inner;
use crate::operation::{OperationStatus, WaitsFor};

/// Adds to each status what is known in this process alone.
pub(super) fn annotate(inner: &Inner, statuses: &mut [OperationStatus]) {
    if statuses.iter().all(|status| status.phase.is_final()) && inner.services.stuck().is_empty() {
        return;
    }
    let snapshot = inner.door.admission.snapshot();
    let stuck = inner.services.stuck();
    for status in statuses {
        status.stuck = stuck.get(&status.id).cloned();
        if !status.phase.is_final() {
            status.waits_for = waits_for(&snapshot, &status.id);
        }
    }
}

/// What the operation `id` waits for; `None` if it does not.
fn waits_for(snapshot: &Snapshot, id: &OperationId) -> Option<WaitsFor> {
    let is_it = |waiter: &&Waiting| {
        waiter.owner == id.as_str() || waiter.coalesced.iter().any(|one| one == id.as_str())
    };
    let waiter = snapshot.waiters.iter().find(is_it)?;
    let behind = waiter.blockers.iter().map(|blocker| OperationId::new(blocker.owner.as_str()));
    Some(WaitsFor {
        what: waiter.waits_for.to_string(),
        behind: behind.collect(),
        sentence: waiter.to_string(),
    })
}
