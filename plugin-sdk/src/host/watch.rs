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
use std::thread::Thread;
use std::time::Duration;

use bytes::Bytes;
use fsm_core::{Environment, Timestamp};

use super::instance::{Backend, PluginInstance, Work};
use crate::abi::HostCalls;

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
    calls: BTreeMap<u64, Entry>,
}

/// A call as it is kept: what costs something is made when somebody asks.
struct Entry {
    what: Arc<str>,
    since: Timestamp,
    thread: Thread,
}

/// A call that has not returned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenCall {
    /// Its number, in the order of calls.
    pub number: u64,
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
        let old = open.calls.iter().filter(|(_, call)| now.since(call.since) > age);
        let mut old: Vec<OpenCall> = old.map(|(number, call)| call.told(*number)).collect();
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
        let call = Entry { what, since: self.0.clock.now(), thread: std::thread::current() };
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
        let open = self.lock();
        f.debug_list().entries(open.calls.iter().map(|(number, call)| call.told(*number))).finish()
    }
}

impl Entry {
    fn told(&self, number: u64) -> OpenCall {
        let thread = self.thread.name().unwrap_or_default().to_owned();
        OpenCall { number, what: Arc::clone(&self.what), since: self.since, thread }
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

impl Work for Watched<Pin<Box<dyn Work>>> {
    fn cancel(&self) {
        if let Some(work) = &self.work {
            self.watch.calling(Arc::clone(&self.what), || work.cancel());
        }
    }
}

impl PluginInstance {
    /// The same instance; whatever is called of the plugin's code in the course of a request is in
    /// the list of `watch` for its time, as `what`.
    ///
    /// A plugin in a process of its own keeps no thread of the host's, and is never in the list
    /// for long.
    #[must_use]
    pub fn watched(self, watch: Watch, what: impl Into<Arc<str>>) -> Self {
        let what = what.into();
        self.over(|backend| Arc::new(WatchedBackend { backend, watch, what }))
    }
}

/// A plugin's code, each call of which is in the list.
struct WatchedBackend {
    backend: Arc<dyn Backend>,
    watch: Watch,
    what: Arc<str>,
}

impl Backend for WatchedBackend {
    fn start(&self, request: Bytes, host: Arc<dyn HostCalls>) -> Pin<Box<dyn Work>> {
        let start = || self.backend.start(request, host);
        let work = self.watch.calling(Arc::clone(&self.what), start);
        Box::pin(self.watch.polling(Arc::clone(&self.what), work))
    }

    fn apart(&self) -> Option<Arc<dyn Backend>> {
        let (watch, what) = (self.watch.clone(), Arc::clone(&self.what));
        let apart = |backend| Arc::new(WatchedBackend { backend, watch, what }) as Arc<dyn Backend>;
        self.backend.apart().map(apart)
    }
}

impl<F> fmt::Debug for Watched<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("what", &self.what).finish_non_exhaustive()
    }
}
