//! One consistent moment of a live database, read as the bytes of a database file.
//!
//! **Promise.** The bytes are a complete, standalone database that holds exactly
//! the transactions committed before [`Snapshot::begin`], whatever is written
//! meanwhile. The source is not written to and not checkpointed.
//!
//! **What writers notice.** In WAL mode nothing, except that the log cannot
//! restart while the snapshot lives and grows by what is written. In rollback
//! mode a transaction cannot *commit* while the snapshot lives: its writer waits,
//! up to its own busy timeout.
//!
//! **How.** A read transaction is held from `begin` to the end, and every page is
//! read through SQLite's pager, which finds it in the log or in the file, by the
//! virtual table `sqlite_dbpage` (<https://sqlite.org/dbpage.html>). That table is
//! a compile-time option of SQLite; this workspace sets it in
//! `.cargo/config.toml`. A build without it falls back on the online backup API,
//! under the same read transaction, into a temporary file that is streamed from:
//! equally consistent, but it costs the database's size in temporary space.
//!
//! The header is kept as it is, so that the copy of a database in WAL mode opens
//! in WAL mode.

use std::io;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OptionalExtension};
use tempfile::NamedTempFile;

use crate::database::Database;
use crate::error::{Error, ErrorKind};

/// How a snapshot gets at the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// Straight from the source, page by page.
    Pages,
    /// From a temporary copy that was made by the online backup API.
    Copy,
}

/// A held read transaction and a position in its bytes.
///
/// Owns its [`Database`], so that it can move between threads. Dropping it ends
/// the transaction.
#[derive(Debug)]
pub struct Snapshot {
    database: Database,
    copy: Option<NamedTempFile>,
    page_size: u32,
    page_count: u32,
    position: u64,
}

impl Snapshot {
    /// Begins the read transaction, at the newest committed state.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Locked`] when a writer excludes readers for longer than the
    /// database's busy timeout; [`ErrorKind::Full`] or [`ErrorKind::Io`] when
    /// the fallback cannot make its copy.
    pub fn begin(database: Database) -> Result<Self, Error> {
        let has_pages = database
            .connection()
            .query_row("SELECT 1 FROM pragma_module_list WHERE name = 'sqlite_dbpage'", [], |_| {
                Ok(())
            })
            .optional()
            .map_err(|error| Error::sqlite(database.path(), error))?
            .is_some();
        if has_pages {
            Self::hold(database)
        } else {
            tracing::debug!(database = %database.path().display(), "sqlite_dbpage is not built in");
            Self::begin_by_copy(database, &std::env::temp_dir())
        }
    }

    /// Like [`begin`](Self::begin), by way of a temporary copy in the directory `scratch`.
    ///
    /// Returns once the copy is complete; the copy disappears with the snapshot.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin).
    pub fn begin_by_copy(database: Database, scratch: &Path) -> Result<Self, Error> {
        let mut snapshot = Self::hold(database)?;
        snapshot.copy = Some(copy(&snapshot.database, scratch)?);
        Ok(snapshot)
    }

    fn hold(database: Database) -> Result<Self, Error> {
        let sql = |query: &str| {
            database
                .connection()
                .query_row(query, [], |row| row.get::<_, u32>(0))
                .map_err(|error| Error::sqlite(database.path(), error))
        };
        database
            .connection()
            .execute_batch("BEGIN")
            .map_err(|error| Error::sqlite(database.path(), error))?;
        // `BEGIN` is lazy; the first read fixes the moment.
        sql("SELECT count(*) FROM sqlite_schema")?;
        let page_size = sql("PRAGMA page_size")?;
        let page_count = sql("PRAGMA page_count")?;
        Ok(Self { database, copy: None, page_size, page_count, position: 0 })
    }

    /// The size of one page in bytes, `512..=65536`.
    #[must_use]
    pub fn page_size(&self) -> u32 {
        self.page_size
    }

    /// The number of pages; 0 for a database that has never been written to.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        self.page_count
    }

    /// The length of the whole snapshot in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        u64::from(self.page_size) * u64::from(self.page_count)
    }

    /// How many bytes have been read; the next [`read_into`](Self::read_into) goes on from here.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How this snapshot gets at the pages.
    #[must_use]
    pub fn method(&self) -> Method {
        if self.copy.is_some() { Method::Copy } else { Method::Pages }
    }

    /// Fills the start of `buffer` with the next whole pages and returns their length in bytes.
    ///
    /// 0 means that the snapshot has been read to its end. After an error the
    /// position stands where it was, so that the call can be repeated.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if `buffer` is smaller than a page;
    /// [`ErrorKind::Corrupt`] or [`ErrorKind::Io`] if a page cannot be read.
    pub fn read_into(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let page_bytes = self.page_size as usize;
        let remaining = self.len_bytes() - self.position;
        let fitting = buffer.len() / page_bytes * page_bytes;
        let length = usize::try_from(remaining).map_or(fitting, |rest| rest.min(fitting));
        if length == 0 && remaining > 0 {
            return Err(Error::new(ErrorKind::Invalid, self.database.path())
                .with_advice("lend a buffer of at least one page"));
        }
        let target = &mut buffer[..length];
        match &self.copy {
            Some(copy) => read_copy(copy, self.position, target)?,
            None => self.read_pages(target)?,
        }
        self.position += length as u64;
        Ok(length)
    }

    fn read_pages(&self, target: &mut [u8]) -> Result<(), Error> {
        let at = |error| Error::sqlite(self.database.path(), error);
        let mut statement = self
            .database
            .connection()
            .prepare("SELECT data FROM sqlite_dbpage('main') WHERE pgno = ?1")
            .map_err(at)?;
        let first = self.position / u64::from(self.page_size) + 1;
        for (number, page) in (first..).zip(target.chunks_exact_mut(self.page_size as usize)) {
            // Page numbers have 32 bits, so this cast keeps the value.
            let mut rows = statement.query([number as i64]).map_err(at)?;
            let data = match rows.next().map_err(at)? {
                Some(row) => row.get_ref(0).map_err(at)?.as_blob().ok(),
                None => None,
            };
            match data {
                Some(data) if data.len() == page.len() => page.copy_from_slice(data),
                _ => {
                    return Err(Error::new(ErrorKind::Corrupt, self.database.path())
                        .caused_by(format!("page {number} could not be read")));
                }
            }
        }
        Ok(())
    }
}

/// Copies the state that `source` has open in its read transaction.
fn copy(source: &Database, scratch: &Path) -> Result<NamedTempFile, Error> {
    const PAGES_A_STEP: i32 = 4096;

    let copy = tempfile::Builder::new()
        .prefix("sqlite-snapshot-")
        .tempfile_in(scratch)
        .map_err(|error| Error::io(scratch, error))?;
    let at = |error| Error::sqlite(copy.path(), error);
    let mut target = Connection::open(copy.path()).map_err(at)?;
    // The copy need not survive a crash, nor be rolled back.
    target.pragma_update(None, "synchronous", "OFF").map_err(at)?;
    target.pragma_update(None, "journal_mode", "OFF").map_err(at)?;
    let backup = Backup::new(source.connection(), &mut target).map_err(at)?;
    loop {
        match backup.step(PAGES_A_STEP).map_err(at)? {
            StepResult::Done => break,
            StepResult::More => {}
            _ => return Err(Error::new(ErrorKind::Locked, source.path())),
        }
    }
    drop(backup);
    target.close().map_err(|(_, error)| at(error))?;
    Ok(copy)
}

fn read_copy(copy: &NamedTempFile, position: u64, target: &mut [u8]) -> Result<(), Error> {
    use std::io::{Read, Seek, SeekFrom};

    let mut file = copy.as_file();
    file.seek(SeekFrom::Start(position))
        .and_then(|_| file.read_exact(target))
        .map_err(|error: io::Error| Error::io(copy.path(), error))
}
