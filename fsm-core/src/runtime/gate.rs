//! One launch of a run at a time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::lock::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::RunId;

/// A lock for each run that somebody starts or resumes right now.
///
/// Between reading where a run stands and launching its task nobody else may launch it: the other
/// task might come to an end meanwhile, and what was read would be launched a second time.
#[derive(Default)]
pub(super) struct Gates {
    gates: Mutex<BTreeMap<RunId, Arc<AsyncMutex<()>>>>,
}

/// The right to launch a run; given back when it is dropped.
pub(super) struct Gate<'g> {
    gates: &'g Gates,
    run: RunId,
    held: Option<OwnedMutexGuard<()>>,
}

impl Gates {
    /// Waits until nobody else launches `run`.
    pub(super) async fn pass(&self, run: &RunId) -> Gate<'_> {
        let lock = Arc::clone(self.lock().entry(run.clone()).or_default());
        // Made before the wait, so that a waiter that gives up cleans up too.
        let mut gate = Gate { gates: self, run: run.clone(), held: None };
        gate.held = Some(lock.lock_owned().await);
        gate
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RunId, Arc<AsyncMutex<()>>>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.held = None;
        let mut gates = self.gates.lock();
        if gates.get(&self.run).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            gates.remove(&self.run);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn one_passes_at_a_time_and_nothing_is_left_behind() {
        let gates = Gates::default();
        let (one, other) = (RunId::new("one").unwrap(), RunId::new("other").unwrap());
        let first = gates.pass(&one).now_or_never().unwrap();
        assert!(gates.pass(&other).now_or_never().is_some());
        let mut second = Box::pin(gates.pass(&one));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(gates.pass(&one).now_or_never().is_none(), "a waiter that gives up");
        drop(first);
        drop(second.now_or_never().unwrap());
        assert!(gates.lock().is_empty());
    }
}
