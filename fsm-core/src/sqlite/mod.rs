//! The durable store: one SQLite file, one writer thread, group commit.
//!
//! **Promise.** What [`Store::write`] acknowledges survives a power cut: the file is in WAL mode
//! with `synchronous=FULL`, read back and checked at open. Whatever is queued while a commit is
//! on its way to the disk becomes the next transaction, so many writers share one sync.
//!
//! After a write or a sync that failed nothing is acknowledged until the store is opened again
//! ([`JournalErrorKind::Poisoned`](crate::JournalErrorKind::Poisoned)); a full disk alone
//! ([`JournalErrorKind::Full`](crate::JournalErrorKind::Full)) costs what was in that transaction,
//! and the same write may succeed later.
//!
//! **How.** SQLite has one writer at a time anyway; giving it one thread replaces lock contention
//! by a queue. Lent work runs inside a savepoint, so that what fails leaves no trace and does
//! not fail its neighbours. Reads have a thread and a connection of their own and never wait for
//! a sync.
//!
//! While the store is open, and after a crash, it is three files: `x.db`, `x.db-wal`, `x.db-shm`.
//! Whoever copies it copies all of them, or lets SQLite do it (`sqlite3 x.db '.backup copy.db'`).
//! Looking at it with any SQLite tool is fine at any time. One process uses it at a time.
//!
//! The store is lent to others (`write(|tx| …)`): each owner has tables under its own prefix and
//! its own row in `schema_version`, and one transaction may hold records of several owners.
//!
//! ```
//! use fsm_core::{JournalError, sqlite::Store};
//!
//! # let directory = tempfile::tempdir()?;
//! let store = Store::open(&directory.path().join("state.db"))?;
//! store.migrate("notes", &["CREATE TABLE notes_note (text TEXT NOT NULL)"])?;
//! let rows = futures::executor::block_on(store.write(|tx| {
//!     tx.execute("INSERT INTO notes_note VALUES ('hello')", [])?;
//!     Ok::<_, JournalError>(tx.query_row("SELECT count(*) FROM notes_note", [], |row| row.get::<_, u32>(0))?)
//! }))?;
//! assert_eq!(rows, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod append;
mod chain;
mod error;
mod journal;
mod lock;
mod prune;
mod schema;
mod sealed;
mod store;
mod work;
mod worker;
mod writer;

pub use self::{journal::SqliteJournal, store::Store};
pub use rusqlite;
