//! The wait until nobody holds a permit.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::shared::{DrainId, Shared};
use crate::sync::Arc;

/// The wait until nobody holds a permit, from [`Admission::drain`](crate::Admission::drain).
///
/// # Cancel safety
///
/// Dropping the future changes nothing.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Drain {
    shared: Arc<Shared>,
    id: Option<DrainId>,
}

impl Drain {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, id: None }
    }
}

impl Future for Drain {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.shared.poll_drained(&mut this.id, context.waker().clone())
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.stop_draining(id);
        }
    }
}
