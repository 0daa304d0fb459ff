//! The request to stop, as a value that many may hold.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

/// A request to stop. Clones are the same request; once made it stays.
///
/// ```
/// use fsm_core::Cancellation;
///
/// let cancellation = Cancellation::new();
/// let seen_by_step = cancellation.clone();
/// cancellation.request();
/// assert!(seen_by_step.is_requested());
/// futures::executor::block_on(seen_by_step.requested());
/// ```
#[derive(Clone, Default)]
pub struct Cancellation {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    requested: bool,
    /// One waker per waiting future, by the future's own number.
    waiting: Vec<(u64, Waker)>,
    next: u64,
}

impl Cancellation {
    /// Nothing is requested yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop, and wakes everyone who waits for that.
    pub fn request(&self) {
        let waiting = {
            let mut inner = self.lock();
            inner.requested = true;
            std::mem::take(&mut inner.waiting)
        };
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    /// Whether somebody asked to stop.
    pub fn is_requested(&self) -> bool {
        self.lock().requested
    }

    /// Waits until somebody asks to stop.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub fn requested(&self) -> Requested {
        Requested { cancellation: self.clone(), number: None }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancellation").field("requested", &self.is_requested()).finish()
    }
}

/// The future of [`Cancellation::requested`].
#[derive(Debug)]
#[must_use = "a future does nothing until it is polled"]
pub struct Requested {
    cancellation: Cancellation,
    number: Option<u64>,
}

impl Future for Requested {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut inner = this.cancellation.lock();
        if inner.requested {
            return Poll::Ready(());
        }
        let number = *this.number.get_or_insert_with(|| {
            inner.next += 1;
            inner.next
        });
        match inner.waiting.iter_mut().find(|(waiting, _)| *waiting == number) {
            Some((_, waker)) => {
                let old = std::mem::replace(waker, cx.waker().clone());
                // A waker's own drop may drop a task, and with it a future like this one.
                drop(inner);
                drop(old);
            }
            None => inner.waiting.push((number, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Requested {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut inner = self.cancellation.lock();
            let place = inner.waiting.iter().position(|(waiting, _)| *waiting == number);
            let waiting = place.map(|place| inner.waiting.swap_remove(place));
            drop(inner);
            drop(waiting);
        }
    }
}
