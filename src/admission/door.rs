//! The admission that every operation goes through.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fsm_core::Timestamp;
use throttle::{AcquireError, Admission, Clock, Instant, Limits, Permit, Request};
use tokio::sync::Notify;

use super::time::Time;

/// The admission, and who has to know when somebody begins to wait. Clones are the same door.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) admission: Admission,
    pub(super) time: Time,
    /// How many wait at this moment.
    waiting: Arc<AtomicUsize>,
    /// Somebody has begun to wait, and may have a deadline.
    pub(super) news: Arc<Notify>,
}

impl Door {
    /// A door that lets nobody in before it is opened.
    pub(crate) fn new(limits: Limits, time: Time) -> Self {
        let admission = Admission::recovering(limits, time.clone());
        Door { admission, time, waiting: Arc::default(), news: Arc::default() }
    }

    /// Waits for everything that the request claims.
    pub(crate) async fn acquire(&self, request: Request) -> Result<Permit, AcquireError> {
        self.attended(self.admission.acquire(request)).await
    }

    /// Waits for the capacity that a permit gave back.
    pub(super) async fn reacquire(&self, permit: &Permit) -> Result<(), AcquireError> {
        self.attended(permit.reacquire()).await
    }

    /// The moment of the admission at which the wall clock will show `at`.
    pub(crate) fn moment(&self, at: Timestamp) -> Instant {
        self.time.moment(at)
    }

    /// The admission's present moment.
    pub(super) fn now(&self) -> Instant {
        self.time.now()
    }

    /// Whether somebody waits who may be granted something at any moment.
    pub(super) fn is_waited_at(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    async fn attended<T>(&self, wait: impl Future<Output = T>) -> T {
        let mut wait = pin!(wait);
        let mut counted = None;
        poll_fn(|cx| {
            let polled = wait.as_mut().poll(cx);
            if polled.is_pending() && counted.is_none() {
                counted = Some(Counted::new(&self.waiting));
                self.news.notify_one();
            }
            polled
        })
        .await
    }
}

/// One of those who wait, for as long as it does.
struct Counted<'w>(&'w AtomicUsize);

impl<'w> Counted<'w> {
    fn new(waiting: &'w AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Counted(waiting)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
