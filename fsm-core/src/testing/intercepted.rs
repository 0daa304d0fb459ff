//! A journal whose writes somebody else decides about.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::future::BoxFuture;

use crate::{
    Journal, JournalError, Loaded, Page, Pruned, Record, Retention, RunId, RunSnapshot, RunSummary,
    Timestamp,
};

/// A journal that hands each write to a closure, together with the journal that it stands for;
/// everything else goes through. Clones are the same journal.
///
/// The closure decides what becomes of the write, and what the writer hears of it: it may look
/// first, write late, answer late or never, fail before or after the records have landed.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use fsm_core::{JournalError, JournalErrorKind, MemoryJournal, testing::Intercepted};
///
/// let writes = AtomicU32::new(0);
/// let third_write_fails = Intercepted::new(MemoryJournal::new(), move |journal, records| {
///     let fails = writes.fetch_add(1, Ordering::SeqCst) == 2;
///     async move {
///         if fails {
///             return Err(JournalError::new(JournalErrorKind::Full, "the third write"));
///         }
///         journal.append(records).await
///     }
/// });
/// ```
#[derive(Clone)]
pub struct Intercepted {
    journal: Arc<dyn Journal>,
    append: Arc<OnAppend>,
    unanswered: Arc<AtomicUsize>,
}

type Written = Result<(), JournalError>;
type OnAppend =
    dyn Fn(Arc<dyn Journal>, Vec<Record>) -> BoxFuture<'static, Written> + Send + Sync + 'static;

impl Intercepted {
    /// Stands for `journal`; `append` is called for each write, with the journal and the records.
    pub fn new<F, Fut>(journal: impl Journal, append: F) -> Self
    where
        F: Fn(Arc<dyn Journal>, Vec<Record>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Written> + Send + 'static,
    {
        Intercepted::over(Arc::new(journal), append)
    }

    /// As [`new`](Intercepted::new), for a journal whose type is forgotten.
    pub fn over<F, Fut>(journal: Arc<dyn Journal>, append: F) -> Self
    where
        F: Fn(Arc<dyn Journal>, Vec<Record>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Written> + Send + 'static,
    {
        let append: Arc<OnAppend> =
            Arc::new(move |journal, records| Box::pin(append(journal, records)));
        Intercepted { journal, append, unanswered: Arc::default() }
    }

    /// How many calls wait for their answer.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::SeqCst)
    }

    /// Counts `call` as unanswered until it completes or is dropped.
    fn count<T: Send + 'static>(&self, call: BoxFuture<'static, T>) -> BoxFuture<'static, T> {
        let counted = Counted::one_more(&self.unanswered);
        Box::pin(async move {
            let _counted = counted;
            call.await
        })
    }
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn one_more(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Counted(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Journal for Intercepted {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), JournalError>> {
        self.count((self.append)(Arc::clone(&self.journal), records))
    }

    fn load(&self, run: &RunId) -> BoxFuture<'static, Result<Option<RunSnapshot>, JournalError>> {
        self.count(self.journal.load(run))
    }

    fn unfinished(
        &self,
        after: Option<&RunId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Loaded>, JournalError>> {
        self.count(self.journal.unfinished(after, limit))
    }

    fn list(&self, page: Page) -> BoxFuture<'static, Result<Vec<RunSummary>, JournalError>> {
        self.count(self.journal.list(page))
    }

    fn history(&self, run: &RunId) -> BoxFuture<'static, Result<Vec<Record>, JournalError>> {
        self.count(self.journal.history(run))
    }

    fn head(&self, run: &RunId) -> BoxFuture<'static, Result<Option<u64>, JournalError>> {
        self.count(self.journal.head(run))
    }

    fn prune(
        &self,
        retention: Retention,
        now: Timestamp,
    ) -> BoxFuture<'static, Result<Pruned, JournalError>> {
        self.count(self.journal.prune(retention, now))
    }
}

impl fmt::Debug for Intercepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intercepted").field("unanswered", &self.unanswered()).finish()
    }
}
