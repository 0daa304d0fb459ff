//! What operations wait for, as the embedder sees it.

use std::{collections::HashMap, iter};

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
    let waiters = by_owner(&snapshot);
    let stuck = inner.services.stuck();
    for status in statuses {
        status.stuck = stuck.get(&status.id).cloned();
        if !status.phase.is_final() {
            status.waits_for = waiters.get(status.id.as_str()).copied().map(waits_for);
        }
    }
}

/// Each waiter by the operations that it stands for; of several the first in line.
fn by_owner(snapshot: &Snapshot) -> HashMap<&str, &Waiting> {
    snapshot
        .waiters
        .iter()
        .rev()
        .flat_map(|waiter| {
            let owners = iter::once(&waiter.owner).chain(&waiter.coalesced);
            owners.map(move |owner| (owner.as_str(), waiter))
        })
        .collect()
}

fn waits_for(waiter: &Waiting) -> WaitsFor {
    let behind = waiter.blockers.iter().map(|blocker| OperationId::new(blocker.owner.as_str()));
    WaitsFor {
        what: waiter.waits_for.to_string(),
        behind: behind.collect(),
        sentence: waiter.to_string(),
    }
}
