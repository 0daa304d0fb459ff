//! Where a test's runs are kept, over the deaths of its processes.

use std::sync::Arc;

use fsm_core::{
    Journal, JournalError, Loaded, MemoryJournal, Page, Pruned, Record, Retention, RunId,
    RunSnapshot, RunSummary, Timestamp,
};
use futures::future::BoxFuture;

pub(crate) enum Medium {
    Memory(MemoryJournal),
    #[cfg(feature = "sqlite")]
    Sqlite(tempfile::TempDir),
}

impl Medium {
    pub(crate) fn memory() -> Self {
        Medium::Memory(MemoryJournal::new())
    }

    #[cfg(feature = "sqlite")]
    pub(crate) fn sqlite() -> Self {
        Medium::Sqlite(tempfile::tempdir().unwrap())
    }

    /// The journal as a new process opens it.
    pub(crate) fn open(&self) -> AnyJournal {
        match self {
            Medium::Memory(journal) => AnyJournal(Arc::new(journal.clone())),
            #[cfg(feature = "sqlite")]
            Medium::Sqlite(directory) => {
                use fsm_core::sqlite::{SqliteJournal, Store};
                let store = Store::open(&directory.path().join("state.db")).unwrap();
                AnyJournal(Arc::new(SqliteJournal::new(store).unwrap()))
            }
        }
    }
}

#[derive(Clone)]
pub(crate) struct AnyJournal(pub(crate) Arc<dyn Journal>);

impl Journal for AnyJournal {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), JournalError>> {
        self.0.append(records)
    }

    fn load(&self, run: &RunId) -> BoxFuture<'static, Result<Option<RunSnapshot>, JournalError>> {
        self.0.load(run)
    }

    fn unfinished(
        &self,
        after: Option<&RunId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Loaded>, JournalError>> {
        self.0.unfinished(after, limit)
    }

    fn list(&self, page: Page) -> BoxFuture<'static, Result<Vec<RunSummary>, JournalError>> {
        self.0.list(page)
    }

    fn head(&self, run: &RunId) -> BoxFuture<'static, Result<Option<u64>, JournalError>> {
        self.0.head(run)
    }

    fn prune(
        &self,
        retention: Retention,
        now: Timestamp,
    ) -> BoxFuture<'static, Result<Pruned, JournalError>> {
        self.0.prune(retention, now)
    }

    fn history(&self, run: &RunId) -> BoxFuture<'static, Result<Vec<Record>, JournalError>> {
        self.0.history(run)
    }
}
