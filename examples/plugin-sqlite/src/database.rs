//! A live database, opened so that it is never written to.
//!
//! **Promise.** Opening, reading and closing change no byte of the database and
//! never checkpoint its write-ahead log, not even as the last connection. A
//! database in WAL mode may be left with an empty `-wal` and a `-shm` beside it:
//! SQLite needs them for reading, and gives them the database's owner and mode.
//!
//! **One copy of SQLite.** POSIX locks are lost when two copies of the SQLite
//! library in one process open the same file
//! (<https://sqlite.org/howtocorrupt.html>, section 2.2.1). A host that has the
//! database open through its own copy runs this plugin in a child process.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, ErrorKind};
use crate::header::Header;
pub use crate::header::JournalMode;
use crate::raw_file::{FileId, Pin, RawFile};

/// How thoroughly [`Database::check`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// `PRAGMA quick_check`: every page's structure.
    Quick,
    /// `PRAGMA integrity_check`: also that indexes and tables agree.
    Full,
}

/// An open, read-only database.
#[derive(Debug)]
pub struct Database {
    // Dropped before the pin, which must outlive SQLite's descriptors.
    connection: Connection,
    path: PathBuf,
    _pin: Pin,
}

impl Database {
    /// Opens the database at `path` for reading and checks that it can be read now.
    ///
    /// Waits up to `busy_timeout` for locks, here and in later calls. A file of
    /// zero bytes is an empty database, as it is to SQLite. Symbolic links are
    /// resolved, because SQLite keeps its log beside the real file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`], [`ErrorKind::Denied`]; [`ErrorKind::NotADatabase`]
    /// for a directory, another format or an encrypted file;
    /// [`ErrorKind::Locked`] (retryable) when a writer excludes readers;
    /// [`ErrorKind::NeedsRecovery`] for a hot rollback journal, which only a
    /// writer may play back; [`ErrorKind::Corrupt`] for a damaged schema or a
    /// truncated file.
    pub fn open_read_only(path: &Path, busy_timeout: Duration) -> Result<Self, Error> {
        let path = real_path(path)?;
        let raw = open_regular(&path)?;
        let metadata = raw.metadata().map_err(|error| Error::io(&path, error))?;
        read_header(&raw, &path)?;
        let pin = Pin::new(FileId::of(&metadata));
        drop(raw);

        let at = |error| Error::sqlite(&path, error);
        let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY, busy_timeout)?;
        // The first statement takes a lock, opens the log and reads the schema.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(at)?;
        let opened = fs::metadata(&path).map_err(|error| Error::io(&path, error))?;
        if FileId::of(&opened) != FileId::of(&metadata) {
            return Err(Error::new(ErrorKind::Locked, &path)
                .with_advice("try again; the file was replaced while it was being opened"));
        }
        Ok(Self { connection, path, _pin: pin })
    }

    /// Opens a file that nobody else can reach, without locks and without files beside it.
    pub(crate) fn open_private(path: &Path) -> Result<Self, Error> {
        let path = real_path(path)?;
        let metadata = fs::metadata(&path).map_err(|error| Error::io(&path, error))?;
        let pin = Pin::new(FileId::of(&metadata));
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let connection = connect(Path::new(&immutable_uri(&path)), flags, Duration::ZERO)
            .map_err(|error| Error::new(error.kind(), &path).caused_by(error))?;
        Ok(Self { connection, path, _pin: pin })
    }

    /// Checks the structure of the whole database, reading all of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] with SQLite's first finding as the cause, or what
    /// kept the check from running.
    pub fn check(&self, check: Check) -> Result<(), Error> {
        let sql = match check {
            Check::Quick => "PRAGMA quick_check(1)",
            Check::Full => "PRAGMA integrity_check(1)",
        };
        let finding: String = self
            .connection
            .query_row(sql, [], |row| row.get(0))
            .map_err(|error| Error::sqlite(&self.path, error))?;
        if finding == "ok" {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::Corrupt, &self.path).caused_by(finding))
        }
    }

    /// The absolute path of the database file, symbolic links resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// Opens a connection that leaves the log alone when it closes.
pub(crate) fn connect(
    path: &Path,
    flags: OpenFlags,
    busy_timeout: Duration,
) -> Result<Connection, Error> {
    let at = |error| Error::sqlite(path, error);
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(at)?;
    connection.busy_timeout(busy_timeout).map_err(at)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(at)?;
    // The schema of somebody else's database is data, not code.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false).map_err(at)?;
    Ok(connection)
}

/// Reads and checks the header; `None` is a file of zero bytes.
pub(crate) fn read_header(file: &RawFile, path: &Path) -> Result<Option<Header>, Error> {
    let mut bytes = [0; Header::BYTES];
    let length = file.read_at(&mut bytes, 0).map_err(|error| Error::io(path, error))?;
    if length == 0 {
        return Ok(None);
    }
    match Header::parse(&bytes[..length]) {
        Some(header) => Ok(Some(header)),
        None => Err(Error::new(ErrorKind::NotADatabase, path)),
    }
}

/// The path that SQLite derives the names of `-wal` and `-journal` from.
pub(crate) fn real_path(path: &Path) -> Result<PathBuf, Error> {
    fs::canonicalize(path).map_err(|error| Error::io(path, error))
}

/// Opens a file to look at it; refuses a directory, a device or a pipe before it is opened, as
/// opening a pipe waits for whoever writes to it.
pub(crate) fn open_regular(path: &Path) -> Result<RawFile, Error> {
    let at = |error| Error::io(path, error);
    if !fs::metadata(path).map_err(at)?.is_file() {
        return Err(Error::new(ErrorKind::NotADatabase, path)
            .with_advice("give the path of a database file, not of a directory or a device"));
    }
    RawFile::open(path).map_err(at)
}

/// `path` with a suffix as SQLite appends it: `a.db` and `-wal` give `a.db-wal`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A URI for a file that will not change (<https://sqlite.org/uri.html>).
fn immutable_uri(path: &Path) -> String {
    use std::fmt::Write as _;

    let mut uri = String::from("file:");
    for &byte in OsStr::as_encoded_bytes(path.as_os_str()) {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                uri.push(char::from(byte));
            }
            other => write!(uri, "%{other:02x}").expect("writing to a string cannot fail"),
        }
    }
    uri.push_str("?immutable=1");
    uri
}
