//! One SQLite file that several owners share.

use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::channel::oneshot;
use rusqlite::{Connection, OpenFlags};

use super::{
    error::about,
    lock::Lock,
    sealed::Sealed,
    work::{Work, dropped, read_loop},
    worker::{Worker, block_on},
    writer::{Counters, Job, Writer},
};
use crate::{JournalError, JournalErrorKind};

/// `MERC` in the file's header (offset 68), so that no other program's file is taken for ours.
const APPLICATION_ID: i32 = 0x4d45_5243;
/// How long the store waits for another tool that has locked the file.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a new file. A commit writes whole pages, and few bytes of them are new.
const PAGE_BYTES: i64 = 2048;
/// `PRAGMA synchronous` as SQLite reads FULL back.
const SYNCHRONOUS_FULL: i64 = 2;

/// A durable store in one file. Clones are the same store; the last one that is dropped closes
/// the file after what is queued is written.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    counters: Arc<Counters>,
    // Dropped in this order: the connection that closes last must be one that can write, so that
    // nothing but the file itself is left behind.
    reader: Worker<Work>,
    writer: Worker<Job>,
}

impl Store {
    /// Opens the store at `path`, or makes it. The directory must exist.
    ///
    /// One store at a time has a file open, in all processes, until it is
    /// [released](Store::release) or its last clone is dropped. An empty file beside it, `path` and
    /// `-lock`, is locked for that and stays there; the lock goes with the process. Whoever only
    /// reads the file with another tool needs none.
    ///
    /// # Errors
    ///
    /// [`JournalErrorKind::InUse`] if another store has the file open,
    /// [`JournalErrorKind::Unsupported`] if the file belongs to another program,
    /// [`JournalErrorKind::Damaged`] if SQLite cannot read it, [`JournalErrorKind::Storage`] if
    /// it cannot be opened, or cannot be made durable.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let storage = |error: std::io::Error| {
            JournalError::new(JournalErrorKind::Storage, path.display().to_string())
                .caused_by(error)
        };
        let unusable = |error| about(path.display().to_string(), error);
        let connection = Connection::open(path).map_err(unusable)?;
        prepare(&connection, path)?;
        let lock = Lock::take(path)?;
        // The directory entry is as much part of the promise as the file.
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(storage)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reading = Connection::open_with_flags(path, flags).map_err(unusable)?;
        reading.busy_timeout(BUSY_TIMEOUT).map_err(unusable)?;
        let counters = Arc::new(Counters::default());
        let mut writer = Writer::new(connection, lock, Arc::clone(&counters)).map_err(unusable)?;
        let writer = Worker::spawn("mercury-store", move |queue| writer.run(&queue));
        let reader = Worker::spawn("mercury-store-read", move |queue| read_loop(&reading, &queue));
        let (reader, writer) = (reader.map_err(storage)?, writer.map_err(storage)?);
        let inner = Inner { path: path.to_owned(), counters, reader, writer };
        let store = Store { inner: Arc::new(inner) };
        store.migrate(
            "store",
            &["CREATE TABLE schema_version (
                   owner TEXT PRIMARY KEY, version INTEGER NOT NULL
               ) STRICT, WITHOUT ROWID"],
        )?;
        Ok(store)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Brings the tables of `owner` up to date: runs the `steps` that the file has not seen yet,
    /// all or none. A step is never edited once it was released; changes are new steps.
    ///
    /// Blocks until it is durable.
    ///
    /// # Errors
    ///
    /// [`JournalErrorKind::Unsupported`] if a newer version of `owner` has written the file.
    pub fn migrate(
        &self,
        owner: &'static str,
        steps: &'static [&'static str],
    ) -> Result<(), JournalError> {
        block_on(self.write(move |tx| {
            let seen = version(tx, owner)?;
            if seen > steps.len() {
                let subject = format!("tables of `{owner}`, version {seen}");
                return Err(JournalError::new(JournalErrorKind::Unsupported, subject));
            }
            if seen == steps.len() {
                return Ok(());
            }
            for step in &steps[seen..] {
                tx.execute_batch(step)?;
            }
            tx.execute(
                "INSERT INTO schema_version VALUES (?1, ?2)
                 ON CONFLICT (owner) DO UPDATE SET version = excluded.version",
                (owner, steps.len()),
            )?;
            Ok(())
        }))
    }

    /// Runs `work` in a transaction on the writer's thread. Its changes are durable when the
    /// future answers `Ok`; if `work` fails, they never happened.
    ///
    /// `work` may share its transaction with others' work, and does not begin or end one.
    ///
    /// # Errors
    ///
    /// What `work` returns; a [`JournalError`] if the transaction could not be committed, of kind
    /// [`JournalErrorKind::Poisoned`] after an earlier one could not.
    ///
    /// # Cancel safety
    ///
    /// The work is queued at once and is done although the future was dropped.
    pub fn write<T, E, F>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'static + use<T, E, F>
    where
        T: Send + 'static,
        E: From<JournalError> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let (work, result) = Work::new(work);
        self.inner.writer.send(Job::Work(work));
        result
    }

    /// Runs `work` on the reader's thread, over what is committed when it first looks. It reads
    /// inside a transaction, and does not begin or end one.
    ///
    /// # Errors
    ///
    /// What `work` returns.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub fn read<T, E, F>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'static + use<T, E, F>
    where
        T: Send + 'static,
        E: From<JournalError> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let (work, result) = Work::new(work);
        self.inner.reader.send(work);
        result
    }

    /// Writes `records`, all or none.
    pub(super) fn append(
        &self,
        records: Vec<Sealed>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send + 'static + use<> {
        // Shared, so that they are freed by whoever waits for them, as a rule: the writer's thread
        // has that much less to do for all others.
        let records = Arc::new(records);
        let shared = Arc::clone(&records);
        let appended = self.ask(|done| Job::Append { records: shared, done });
        async move {
            let outcome = appended.await;
            drop(records);
            outcome
        }
    }

    /// Brings what the write-ahead log holds into the file itself, as far as nobody reads older
    /// pages. The store does that by itself from time to time; what was acknowledged is durable
    /// either way.
    ///
    /// # Errors
    ///
    /// [`JournalErrorKind::Full`] if there is no space for it, which harms nothing;
    /// [`JournalErrorKind::Storage`] if writing failed, after which nothing is acknowledged any
    /// more.
    ///
    /// # Cancel safety
    ///
    /// It is done although the future was dropped.
    pub fn checkpoint(
        &self,
    ) -> impl Future<Output = Result<(), JournalError>> + Send + 'static + use<> {
        self.ask(|done| Job::Checkpoint { done })
    }

    /// Writes what is queued, and lets another store open the file although clones of this one are
    /// alive. They still read, and still write while no other store has the file open; else that is
    /// refused: [`JournalErrorKind::InUse`].
    ///
    /// # Errors
    ///
    /// [`JournalError`] if the file could not be unlocked. What was queued hears for itself what
    /// became of it.
    ///
    /// # Cancel safety
    ///
    /// It is done although the future was dropped.
    pub fn release(
        &self,
    ) -> impl Future<Output = Result<(), JournalError>> + Send + 'static + use<> {
        self.ask(|done| Job::Release { done })
    }

    fn ask<J>(
        &self,
        job: J,
    ) -> impl Future<Output = Result<(), JournalError>> + Send + 'static + use<J>
    where
        J: FnOnce(oneshot::Sender<Result<(), JournalError>>) -> Job,
    {
        let (done, result) = oneshot::channel();
        self.inner.writer.send(job(done));
        async move { result.await.unwrap_or_else(|_| Err(dropped())) }
    }

    /// Transactions committed, and pieces of work that shared them.
    pub fn commits(&self) -> (u64, u64) {
        let Counters { transactions, jobs } = &*self.inner.counters;
        (transactions.load(Ordering::Relaxed), jobs.load(Ordering::Relaxed))
    }
}

/// Makes the connection durable, and checks that it is.
fn prepare(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    try_prepare(connection, path)
        .unwrap_or_else(|error| Err(about(path.display().to_string(), error)))
}

fn try_prepare(connection: &Connection, path: &Path) -> rusqlite::Result<Result<(), JournalError>> {
    let subject = |what: &str| format!("{} ({what})", path.display());
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let application: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && (application != 0 || tables != 0) {
        let subject = subject("another program's file");
        return Ok(Err(JournalError::new(JournalErrorKind::Unsupported, subject)));
    }
    if connection.is_readonly(rusqlite::MAIN_DB)? {
        let subject = subject("the file may not be written");
        return Ok(Err(JournalError::new(JournalErrorKind::Storage, subject)));
    }
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    if write_ahead(connection)? != "wal" {
        let subject = subject("this file system does not support write-ahead logging");
        return Ok(Err(JournalError::new(JournalErrorKind::Storage, subject)));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    // An unknown word would be taken for NORMAL without a warning, so the answer is checked.
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if synchronous != SYNCHRONOUS_FULL {
        let subject = subject("`synchronous` does not read back as FULL");
        return Ok(Err(JournalError::new(JournalErrorKind::Storage, subject)));
    }
    if application != APPLICATION_ID {
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    Ok(Ok(()))
}

/// How many steps of `owner` the file has seen.
fn version(tx: &Connection, owner: &str) -> rusqlite::Result<usize> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE name = 'schema_version'";
    if !tx.prepare(sql)?.exists([])? {
        return Ok(0);
    }
    let mut select = tx.prepare("SELECT version FROM schema_version WHERE owner = ?1")?;
    let mut rows = select.query([owner])?;
    rows.next()?.map_or(Ok(0), |row| row.get(0))
}

/// Asks for a write-ahead log. Answers which kind of log there is.
fn write_ahead(connection: &Connection) -> rusqlite::Result<String> {
    let mut pragma = connection.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = pragma.query([])?;
    let mode = rows.next()?.map_or(Ok(String::new()), |row| row.get(0))?;
    // SQLite answers before it has written that to the file: only the last step fails if it
    // cannot.
    while rows.next()?.is_some() {}
    Ok(mode)
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.inner.path).finish_non_exhaustive()
    }
}
