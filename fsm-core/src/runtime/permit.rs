//! A place among the runs of one origin that have a step at work.

use std::sync::Arc;

use super::{inner::Inner, table::LaneId};

/// The place, given back to whoever is next in line when it is dropped.
pub(super) struct Permit {
    inner: Arc<Inner>,
    lane: LaneId,
}

impl Permit {
    /// A place that the table has already counted.
    pub(super) fn new(inner: Arc<Inner>, lane: LaneId) -> Self {
        Permit { inner, lane }
    }

    /// A place, if there is a free one and nobody in line for it.
    pub(super) fn try_enter(inner: &Arc<Inner>, lane: LaneId) -> Option<Self> {
        let entered = inner.table().enter(lane, inner.concurrency);
        entered.then(|| Permit { inner: Arc::clone(inner), lane })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.table().leave(self.lane);
        self.inner.dispatch(self.lane);
    }
}
