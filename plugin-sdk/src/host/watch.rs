//! Which of a plugin's functions are being called right now, and since when.
//!
//! A host polls a plugin's tasks on its own threads. A job of the default kind runs on a thread of
//! the plugin's, so that such a poll returns at once; a job that is polled in place
//! ([`Place::Inline`](crate::abi::Place::Inline)), and every function that a plugin written without
//! care gets wrong, may keep the host's thread instead. Nothing in the process can take the thread
//! back. What can be done is to notice, to name the plugin, and to stop sending it work.
//!
//! **Promise.** A call is in the list from before it is made until after it has returned or
//! panicked. Looking at the list waits for no call.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use fsm_core::{Environment, Timestamp};

/// The list of calls under way. Clones are the same list.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use fsm_core::{Environment, Timestamp, testing::ManualEnvironment};
/// use plugin_sdk::host::Watch;
///
/// let clock = Arc::new(ManualEnvironment::new(Timestamp::from_unix_ms(0)));
/// let watch = Watch::new(clock.clone());
/// let seen = watch.calling("acme: plan", || {
///     clock.advance(Duration::from_secs(40));
///     watch.older_than(Duration::from_secs(30))
/// });
/// assert_eq!(&*seen[0].what, "acme: plan");
/// assert!(watch.older_than(Duration::ZERO).is_empty());
/// ```
#[derive(Clone)]
pub struct Watch(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Environment>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    calls: BTreeMap<u64, OpenCall>,
}

/// A call that has not returned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenCall {
    /// What is being called, in the words of whoever called it.
    pub what: Arc<str>,
    /// When it was called.
    pub since: Timestamp,
    /// The name of the host's thread that waits for it, empty if it has none.
    pub thread: String,
}

impl Watch {
    /// An empty list, with the time of `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Environment>) -> Self {
        Self(Arc::new(Inner { clock, open: Mutex::default() }))
    }

    /// The calls that were made longer ago than `age` and have not returned, oldest first.
    #[must_use]
    pub fn older_than(&self, age: Duration) -> Vec<OpenCall> {
        let now = self.0.clock.now();
        let open = self.lock();
        let old = open.calls.values().filter(|call| now.since(call.since) > age);
        let mut old: Vec<OpenCall> = old.cloned().collect();
        old.sort_by_key(|call| call.since);
        old
    }

    /// Makes a call that is in the list for its time.
    pub fn calling<R>(&self, what: impl Into<Arc<str>>, call: impl FnOnce() -> R) -> R {
        let _listed = self.list(what.into());
        call()
    }

    /// `work`, each poll of which, and whose drop, is in the list for its time.
    pub fn polling<F: Future + Unpin>(&self, what: impl Into<Arc<str>>, work: F) -> Watched<F> {
        Watched { watch: self.clone(), what: what.into(), work: Some(work) }
    }

    fn list(&self, what: Arc<str>) -> Listed<'_> {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        let call = OpenCall { what, since: self.0.clock.now(), thread };
        let mut open = self.lock();
        open.next += 1;
        let number = open.next;
        open.calls.insert(number, call);
        Listed { watch: self, number }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // No code that can panic runs under this lock.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().calls.values()).finish()
    }
}

struct Listed<'a> {
    watch: &'a Watch,
    number: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.watch.lock().calls.remove(&self.number);
    }
}

/// The future of [`Watch::polling`].
#[must_use = "a future does nothing until it is polled"]
pub struct Watched<F> {
    watch: Watch,
    what: Arc<str>,
    /// `None` while and after it is dropped.
    work: Option<F>,
}

impl<F: Future + Unpin> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let _listed = this.watch.list(this.what.clone());
        match &mut this.work {
            Some(work) => Pin::new(work).poll(cx),
            // Only `drop` empties it.
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        let _listed = self.watch.list(self.what.clone());
        drop(self.work.take());
    }
}

impl<F> fmt::Debug for Watched<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("what", &self.what).finish_non_exhaustive()
    }
}
