//! Where a test's runs are kept, over the deaths of its processes.

use fsm_core::{Journal, MemoryJournal, testing::Intercepted};

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
    pub(crate) fn open(&self) -> Intercepted {
        match self {
            Medium::Memory(journal) => any(journal.clone()),
            #[cfg(feature = "sqlite")]
            Medium::Sqlite(directory) => {
                use fsm_core::sqlite::{SqliteJournal, Store};
                let store = Store::open(&directory.path().join("state.db")).unwrap();
                any(SqliteJournal::new(store).unwrap())
            }
        }
    }
}

/// A journal whose type is forgotten.
fn any(journal: impl Journal) -> Intercepted {
    Intercepted::new(journal, |journal, records| journal.append(records))
}
