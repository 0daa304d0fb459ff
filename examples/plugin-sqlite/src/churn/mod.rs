//! Whether a database has changed since its last backup, without opening it.
//!
//! **Promise.** [`compare`] never says [`Verdict::Unchanged`] when a transaction
//! was committed between the two fingerprints. It may say
//! [`Verdict::Unknown`] when none was; then a backup is simply made.
//!
//! **How.** The evidence differs by where the newest content is:
//!
//! - A write-ahead log with committed frames is the newest content. Its salts
//!   name the generation and its checksum runs over every frame, so an equal
//!   last commit means that nothing was committed. The header's change counter
//!   says nothing here: commits to a log do not move it.
//! - Without such frames the database file is all there is. Its counter moves
//!   with a commit in rollback mode, but neither in WAL mode nor after the first
//!   commit of a connection in exclusive locking mode, so the file system's time
//!   stamps must be equal too. These have a grain: a write in the same tick as
//!   the one before leaves no trace. A fingerprint is therefore only
//!   *settled*, and can only prove equality, if the file was last written at
//!   least [`GRAIN`] before.
//! - A rollback journal in use means a transaction in flight: nothing is proved.
//!
//! Take the fingerprint to keep **before** the snapshot that it belongs to: a
//! commit between the two is then seen as a change next time.

mod wal;

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::database::{beside, open_regular, read_header, real_path};
use crate::error::Error;
use crate::header::Header;
use crate::raw_file::{FileId, RawFile};
use wal::{Commit, Generation, Scan};

/// The coarsest grain of time stamps that is reckoned with (FAT has two seconds).
pub const GRAIN: Duration = Duration::from_secs(3);

/// What can be told of a database's state from outside. Serializes to a few dozen bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    state: State,
    /// The file was read twice with the same result.
    is_stable: bool,
    /// The file's last write is further back than the grain of its time stamps.
    is_settled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    file: FileState,
    header: Option<Header>,
    log: LogState,
    journal: JournalState,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileState {
    id: FileId,
    bytes: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    /// As `modified`, but cannot be set by a program (equal to it where the system has none).
    status_changed: (i64, i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum LogState {
    /// No log, an empty one, or one without a committed frame: the file is the newest content.
    Unused,
    /// The log's last commit is the newest content.
    Committed(Generation, Commit),
    /// There are bytes that SQLite would not accept as a log's header.
    Unreadable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum JournalState {
    Unused,
    InUse,
}

/// What two fingerprints prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No transaction was committed in between.
    Unchanged,
    /// The database is not the same any more.
    Changed(Reason),
    /// Neither can be proved.
    Unknown(Reason),
}

/// Why a [`Verdict`] is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Another file has the database's name now.
    Replaced,
    /// The header or the file's size differs.
    Header,
    /// The log holds newer commits.
    LogCommit,
    /// The log that held the newest content is gone or was restarted.
    LogGone,
    /// The log could not be understood.
    LogUnreadable,
    /// The file was written to, perhaps only by a checkpoint.
    FileTouched,
    /// The last write was too recent for time stamps to show the next one.
    TooRecent,
    /// A rollback journal shows a transaction in flight, or one to be rolled back.
    OpenTransaction,
    /// The database kept changing while it was looked at.
    Busy,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replaced => "another file has its name",
            Self::Header => "its header or size differs",
            Self::LogCommit => "its log holds newer commits",
            Self::LogGone => "its log was checkpointed and restarted",
            Self::LogUnreadable => "its log could not be understood",
            Self::FileTouched => "its file was written to",
            Self::TooRecent => "it had been written to just before the last look",
            Self::OpenTransaction => "a transaction is in flight",
            Self::Busy => "it kept changing during the look",
        })
    }
}

/// Compares what was seen at the last backup with what is seen now. Pure.
#[must_use]
pub fn compare(old: &Fingerprint, new: &Fingerprint) -> Verdict {
    use Verdict::{Changed, Unchanged, Unknown};

    if !old.is_stable || !new.is_stable {
        return Unknown(Reason::Busy);
    }
    let is_settled = old.is_settled;
    let (old, new) = (&old.state, &new.state);
    if old.file.id != new.file.id {
        return Changed(Reason::Replaced);
    }
    match (old.log, new.log) {
        (LogState::Unreadable, _) | (_, LogState::Unreadable) => {
            return Unknown(Reason::LogUnreadable);
        }
        (LogState::Committed(..), LogState::Unused) => return Unknown(Reason::LogGone),
        (before, after) if before != after => return Changed(Reason::LogCommit),
        _ => {}
    }
    if old.header != new.header || old.file.bytes != new.file.bytes {
        return Changed(Reason::Header);
    }
    if old.journal == JournalState::InUse || new.journal == JournalState::InUse {
        return Unknown(Reason::OpenTransaction);
    }
    if old.file != new.file {
        return Unknown(Reason::FileTouched);
    }
    if new.log == LogState::Unused && !is_settled {
        return Unknown(Reason::TooRecent);
    }
    Unchanged
}

impl Fingerprint {
    /// Looks at the database at `path`: two small reads, and its log if it has one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`], [`ErrorKind::Denied`],
    /// [`ErrorKind::NotADatabase`], [`ErrorKind::Io`]. A database that merely
    /// cannot be judged is not an error: [`compare`] says so.
    ///
    /// [`ErrorKind::Missing`]: crate::error::ErrorKind::Missing
    /// [`ErrorKind::Denied`]: crate::error::ErrorKind::Denied
    /// [`ErrorKind::NotADatabase`]: crate::error::ErrorKind::NotADatabase
    /// [`ErrorKind::Io`]: crate::error::ErrorKind::Io
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::read_at(path, SystemTime::now())
    }

    /// Like [`read`](Self::read), with the caller's clock.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub fn read_at(path: &Path, now: SystemTime) -> Result<Self, Error> {
        const ATTEMPTS: usize = 4;

        let path = &real_path(path)?;
        let mut state = State::read(path)?;
        let mut is_stable = false;
        for _ in 0..ATTEMPTS {
            let again = State::read(path)?;
            is_stable = again == state;
            state = again;
            if is_stable {
                break;
            }
        }
        let is_settled = state.file.is_settled(now);
        Ok(Self { state, is_stable, is_settled })
    }
}

impl State {
    fn read(path: &Path) -> Result<Self, Error> {
        let file = open_regular(path)?;
        let metadata = file.metadata().map_err(|error| Error::io(path, error))?;
        let log_path = beside(path, "-wal");
        let journal_path = beside(path, "-journal");
        Ok(Self {
            file: FileState::of(&metadata),
            header: read_header(&file, path)?,
            log: read_log(&log_path).map_err(|error| Error::io(&log_path, error))?,
            journal: read_journal(&journal_path)
                .map_err(|error| Error::io(&journal_path, error))?,
        })
    }
}

impl FileState {
    fn of(metadata: &Metadata) -> Self {
        let (modified, status_changed) = stamps(metadata);
        Self { id: FileId::of(metadata), bytes: metadata.len(), modified, status_changed }
    }

    fn is_settled(&self, now: SystemTime) -> bool {
        let Some(horizon) = now.checked_sub(GRAIN) else { return false };
        let Ok(horizon) = horizon.duration_since(UNIX_EPOCH) else { return false };
        let horizon = (horizon.as_secs().cast_signed(), i64::from(horizon.subsec_nanos()));
        self.modified.max(self.status_changed) < horizon
    }
}

#[cfg(unix)]
fn stamps(metadata: &Metadata) -> ((i64, i64), (i64, i64)) {
    use std::os::unix::fs::MetadataExt;
    ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()))
}

#[cfg(not(unix))]
fn stamps(metadata: &Metadata) -> ((i64, i64), (i64, i64)) {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    // An unknown time is one that never settles.
    let stamp = since.map_or((i64::MAX, 0), |since| {
        (since.as_secs().cast_signed(), i64::from(since.subsec_nanos()))
    });
    (stamp, stamp)
}

/// Opens a file that may be absent.
fn open_if_there(path: &Path) -> io::Result<Option<RawFile>> {
    match RawFile::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_log(path: &Path) -> io::Result<LogState> {
    const READ_BYTES: usize = 1 << 20;

    let Some(file) = open_if_there(path)? else { return Ok(LogState::Unused) };
    let mut header = [0; Scan::HEADER_BYTES];
    let length = file.read_at(&mut header, 0)?;
    if length == 0 {
        return Ok(LogState::Unused);
    }
    let Some(mut scan) = Scan::start(&header[..length]) else { return Ok(LogState::Unreadable) };
    let frame_bytes = scan.frame_bytes();
    let mut buffer = vec![0; (READ_BYTES / frame_bytes).max(1) * frame_bytes];
    let mut offset = Scan::HEADER_BYTES as u64;
    loop {
        let length = file.read_at(&mut buffer, offset)?;
        offset += length as u64;
        let goes_on = buffer[..length].chunks(frame_bytes).all(|frame| scan.push(frame));
        if !goes_on || length < buffer.len() {
            break;
        }
    }
    Ok(match scan.finish() {
        (generation, Some(commit)) => LogState::Committed(generation, commit),
        (_, None) => LogState::Unused,
    })
}

fn read_journal(path: &Path) -> io::Result<JournalState> {
    let Some(file) = open_if_there(path)? else { return Ok(JournalState::Unused) };
    // A journal that is kept after its transaction is truncated or has its header zeroed.
    let mut start = [0; 28];
    let length = file.read_at(&mut start, 0)?;
    if start[..length].iter().all(|&byte| byte == 0) {
        Ok(JournalState::Unused)
    } else {
        Ok(JournalState::InUse)
    }
}

#[cfg(test)]
mod tests;
