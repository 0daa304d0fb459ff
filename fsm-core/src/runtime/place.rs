//! The runs that have a task in this process.

use std::{collections::BTreeMap, sync::Arc};

use super::{Inner, handle::RunHandle};
use crate::RunId;

/// The runs that have a task.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) runs: BTreeMap<RunId, RunHandle>,
    /// How many tasks have gone: as long as it stands still, what was read of a run without a
    /// task is what its journal says.
    pub(super) gone: u64,
    /// No task begins any more.
    pub(super) stopping: bool,
}

/// A task's entry among the active runs, given back when it is dropped: also when the executor
/// drops the task before its end, or before its beginning.
pub(super) struct Place {
    inner: Arc<Inner>,
    run: RunId,
}

impl Place {
    pub(super) fn new(inner: Arc<Inner>, run: RunId) -> Self {
        Place { inner, run }
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let forgotten = {
            let mut tasks = self.inner.tasks();
            tasks.gone += 1;
            tasks.runs.remove(&self.run)
        };
        drop(forgotten);
    }
}
