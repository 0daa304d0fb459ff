//! The thread that writes: groups of jobs, one transaction each.
//!
//! **How.** Whatever is queued while a commit is on its way to the disk becomes the next
//! transaction; there is no timer. If nothing is queued, the next transaction begins while the
//! writer looks for its first job: whoever asks again as soon as it is answered does not wait for
//! that.
//!
//! An append to one run needs no savepoint, because its first statement is the guard: a conflict
//! has changed nothing. If it fails later on, SQLite itself has failed, and the transaction goes as
//! a whole. Work that others lend, and appends to several runs, run inside a savepoint and fail
//! alone.
//!
//! The write-ahead log is brought into the file here, after the acknowledgements and not by
//! SQLite inside a commit, which would hide an error. A sync that fails there is as bad as any.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
        mpsc::{self, TryRecvError},
    },
    time::Duration,
};

use futures::channel::oneshot;
use rusqlite::{Connection, ErrorCode};

use super::{
    append::{append, is_contiguous},
    lock::Lock,
    sealed::Sealed,
    store::BUSY_TIMEOUT,
    work::{Acknowledge, Keep, Work},
};
use crate::{JournalError, JournalErrorKind};

/// As many jobs share one transaction at most; more would only delay the first.
const GROUP_MAX: usize = 1_024;
/// The log is brought into the file whenever it has grown by this many pages.
const CHECKPOINT_PAGES: u32 = 500;

/// As often the writer looks for another job before it sleeps: about as long as somebody who is
/// woken by an answer needs to ask again. Meanwhile other tools cannot write to the file, which
/// under load is nearly always.
const NEXT_SOON: u32 = 100;
const BEGIN: &str = "BEGIN IMMEDIATE";

/// What the writer can be asked for.
pub(super) enum Job {
    Append { records: Arc<Vec<Sealed>>, done: oneshot::Sender<Result<(), JournalError>> },
    Work(Work),
    Checkpoint { done: oneshot::Sender<Result<(), JournalError>> },
    Release { done: oneshot::Sender<Result<(), JournalError>> },
}

impl Job {
    /// Whether it may share a transaction. Work that fails with an error of its own type does not
    /// tell whether SQLite has rolled the transaction back, and why: it gets one for itself, so
    /// that nobody else has to be told.
    fn shares(&self) -> bool {
        match self {
            Job::Append { .. } => true,
            Job::Work(work) => work.is_plain,
            Job::Checkpoint { .. } | Job::Release { .. } => false,
        }
    }

    fn refuse(self, kind: JournalErrorKind) {
        match self {
            Job::Append { done, .. } | Job::Checkpoint { done } | Job::Release { done } => {
                let _ = done.send(Err(JournalError::new(kind, "state database")));
            }
            Job::Work(work) => work.refuse(kind),
        }
    }
}

/// How much a writer has done, for tests and metrics.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) transactions: AtomicU64,
    pub(super) jobs: AtomicU64,
}

/// The writing connection and what is known of its file.
pub(super) struct Writer {
    connection: Connection,
    counters: Arc<Counters>,
    poisoned: bool,
    /// Pages in the log after the last commit.
    log_pages: Arc<AtomicU32>,
    /// The log is brought into the file when it has this many.
    checkpoint_at: u32,
    /// Whether a transaction has begun for the next job.
    has_begun: bool,
    /// Whether others may have the file while this writer does nothing.
    released: bool,
    /// Keeps others from the file. Declared last: whoever opens the file next does not meet the
    /// connection.
    lock: Lock,
}

impl Writer {
    pub(super) fn new(
        mut connection: Connection,
        lock: Lock,
        counters: Arc<Counters>,
    ) -> rusqlite::Result<Self> {
        let log_pages = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&log_pages);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            seen.store(pages.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        }))?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Writer {
            connection,
            counters,
            poisoned: false,
            log_pages,
            checkpoint_at: CHECKPOINT_PAGES,
            has_begun: false,
            released: false,
            lock,
        })
    }

    pub(super) fn run(&mut self, queue: &mpsc::Receiver<Job>) {
        let mut jobs = VecDeque::new();
        while let Some(first) = self.next(queue) {
            jobs.push_back(first);
            while jobs.len() < GROUP_MAX
                && let Ok(next) = queue.try_recv()
            {
                jobs.push_back(next);
            }
            // One transaction as a rule; more if it breaks before all jobs had their turn.
            while let Some(first) = jobs.front() {
                if let Job::Release { .. } = first {
                    if let Some(Job::Release { done }) = jobs.pop_front() {
                        let _ = done.send(self.release());
                    }
                } else if let Some(kind) = self.refuses() {
                    if let Some(job) = jobs.pop_front() {
                        job.refuse(kind);
                    }
                } else if let Job::Checkpoint { .. } = first {
                    if let Some(Job::Checkpoint { done }) = jobs.pop_front() {
                        let outcome = self.checkpoint();
                        self.step_aside();
                        let _ = done.send(outcome);
                    }
                } else {
                    self.commit_some(&mut jobs);
                }
            }
        }
    }

    /// Waits for the next job. `None` once nobody can ask any more.
    fn next(&mut self, queue: &mpsc::Receiver<Job>) -> Option<Job> {
        match queue.try_recv() {
            Ok(job) => return Some(job),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => self.begin_ahead(),
        }
        // Whoever has just been answered need not wake a thread that has not gone to sleep.
        for _ in 0..NEXT_SOON {
            match queue.try_recv() {
                Ok(job) => return Some(job),
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => std::thread::yield_now(),
            }
        }
        self.end_idle();
        queue.recv().ok()
    }

    /// Begins the transaction of the next job, unless somebody else is writing.
    fn begin_ahead(&mut self) {
        if self.released || self.poisoned {
            return;
        }
        let begin = || {
            self.connection.busy_timeout(Duration::ZERO)?;
            execute(&self.connection, BEGIN)
        };
        // Whatever is the matter, it is tried again for the next job, which hears of it then.
        self.has_begun = begin().is_ok();
        let _ = self.connection.busy_timeout(BUSY_TIMEOUT);
    }

    /// Begins a transaction, unless one has begun.
    fn begin(&mut self) -> rusqlite::Result<()> {
        match std::mem::take(&mut self.has_begun) {
            true => Ok(()),
            false => execute(&self.connection, BEGIN),
        }
    }

    /// Ends the transaction that was begun for a job that did not come.
    fn end_idle(&mut self) {
        self.has_begun = false;
        if !self.connection.is_autocommit() {
            // Should it fail, the next transaction cannot begin, and somebody hears of that.
            let _ = execute(&self.connection, "ROLLBACK");
        }
    }

    /// Commits those at the front of `jobs` that can share a transaction, and answers them.
    fn commit_some(&mut self, jobs: &mut VecDeque<Job>) {
        let mut answers = Vec::with_capacity(jobs.len());
        let begun = self.begin();
        let result = transact(&self.connection, begun, jobs, &mut answers);
        match &result {
            Ok(()) => {
                self.counters.jobs.fetch_add(answers.len() as u64, Ordering::Relaxed);
                self.counters.transactions.fetch_add(1, Ordering::Relaxed);
            }
            Err(broken) => self.note(broken),
        }
        self.step_aside();
        for answer in answers {
            answer.give(result.as_ref().copied().map_err(Broken::to_error));
        }
        // Of a file that others may have by now, they see to that.
        if result.is_ok() && !self.released {
            self.checkpoint_if_due();
        }
    }

    fn checkpoint_if_due(&mut self) {
        let pages = self.log_pages.load(Ordering::Relaxed);
        if pages < self.checkpoint_at.saturating_sub(CHECKPOINT_PAGES) {
            // It has begun anew.
            self.checkpoint_at = CHECKPOINT_PAGES;
        }
        if pages >= self.checkpoint_at {
            self.checkpoint_at = pages + CHECKPOINT_PAGES;
            // Nobody waits for it; the error was noted.
            let _ = self.checkpoint();
        }
    }

    fn checkpoint(&mut self) -> Result<(), JournalError> {
        self.end_idle();
        let checkpoint = || {
            let mut pragma = self.connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?;
            pragma.query_row([], |_| Ok(()))
        };
        checkpoint().map_err(|error| {
            let broken = Broken::from(error);
            self.note(&broken);
            broken.to_error()
        })
    }

    /// Why nothing is written now, if so. If it is, the file is locked.
    fn refuses(&self) -> Option<JournalErrorKind> {
        if self.poisoned {
            return Some(JournalErrorKind::Poisoned);
        }
        if !self.released {
            return None;
        }
        self.lock.again().err().map(|error| error.kind())
    }

    /// Lets others have the file, if they may, before anybody hears that this writer is done.
    fn step_aside(&self) {
        if self.released {
            // Should it fail, the next one who wants the file hears that it is in use.
            let _ = self.lock.let_go();
        }
    }

    /// From here on others may have the file between what this writer does.
    fn release(&mut self) -> Result<(), JournalError> {
        self.end_idle();
        self.released = true;
        self.lock.let_go()
    }

    fn note(&mut self, broken: &Broken) {
        self.poisoned = broken.poisons;
        let (error, poisoned) = (&broken.text, broken.poisons);
        tracing::error!(error, poisoned, "the state database could not be written");
    }
}

/// A transaction that was not committed.
struct Broken {
    kind: JournalErrorKind,
    text: String,
    /// Whether nothing may be acknowledged any more.
    poisons: bool,
}

impl Broken {
    /// SQLite answers a full disk, or an I/O error, in the middle of a statement by rolling back
    /// all of the transaction: those before it lose their changes too.
    fn underneath(kind: JournalErrorKind) -> Self {
        let full = kind == JournalErrorKind::Full;
        Broken {
            kind: if full { kind } else { JournalErrorKind::Storage },
            text: "work in the same transaction failed, and all of it was rolled back".to_owned(),
            poisons: !full,
        }
    }

    /// As [`Broken::underneath`], of work that tells nobody why.
    fn alone() -> Self {
        Broken { poisons: false, ..Broken::underneath(JournalErrorKind::Storage) }
    }

    fn to_error(&self) -> JournalError {
        JournalError::new(self.kind, "state database").caused_by(self.text.clone())
    }
}

impl From<rusqlite::Error> for Broken {
    fn from(error: rusqlite::Error) -> Self {
        // A full disk rolls the transaction back and leaves the file whole; a transaction that
        // could not begin because somebody else writes has changed nothing. After any other
        // failure (a failed sync above all) nobody knows what the disk holds, and trying again
        // would acknowledge pages that the kernel has dropped.
        let harmless = [ErrorCode::DiskFull, ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked];
        let poisons = !error.sqlite_error_code().is_some_and(|code| harmless.contains(&code));
        Broken { kind: super::error::kind(&error), text: error.to_string(), poisons }
    }
}

/// What is to be said once a transaction has ended.
enum Answer {
    Append(oneshot::Sender<Result<(), JournalError>>, Result<(), JournalError>),
    Work(Acknowledge),
    /// It panicked; whoever waits hears of the dropped channel.
    Nobody,
}

impl Answer {
    fn give(self, durable: Result<(), JournalError>) {
        match self {
            Answer::Append(done, outcome) => {
                // A conflict with what was not committed is none.
                let conflict = |error: &JournalError| error.kind() == JournalErrorKind::Conflict;
                let _ = done.send(match outcome {
                    Err(error) if !conflict(&error) => Err(error),
                    outcome => durable.and(outcome),
                });
            }
            Answer::Work(acknowledge) => acknowledge(durable),
            Answer::Nobody => {}
        }
    }
}

/// Does the jobs at the front of `jobs` that can share a transaction, once it has `begun`. Those
/// that had their turn leave an answer.
fn transact(
    connection: &Connection,
    begun: rusqlite::Result<()>,
    jobs: &mut VecDeque<Job>,
    answers: &mut Vec<Answer>,
) -> Result<(), Broken> {
    if let Err(error) = begun {
        let broken = Broken::from(error);
        // A release has its turn all the same.
        while let Some(job) = jobs.pop_front_if(|job| !matches!(job, Job::Release { .. })) {
            job.refuse(broken.kind);
        }
        return Err(broken);
    }
    let done = do_group(connection, jobs, answers);
    let done = done.and_then(|()| Ok(execute(connection, "COMMIT")?));
    if done.is_err() && !connection.is_autocommit() {
        // Should this fail too: the next transaction cannot begin then.
        let _ = execute(connection, "ROLLBACK");
    }
    done
}

fn do_group(
    connection: &Connection,
    jobs: &mut VecDeque<Job>,
    answers: &mut Vec<Answer>,
) -> Result<(), Broken> {
    while let Some(job) = jobs.pop_front_if(|job| job.shares() || answers.is_empty()) {
        let shares = job.shares();
        match job {
            Job::Append { records, done } => {
                let outcome = append_whole(connection, &records)?;
                let failed = outcome.as_ref().err().map(JournalError::kind);
                answers.push(Answer::Append(done, outcome));
                if let Some(kind) = failed.filter(|kind| *kind != JournalErrorKind::Conflict) {
                    return Err(Broken::underneath(kind));
                }
            }
            Job::Work(work) => do_work(connection, work, answers)?,
            Job::Checkpoint { .. } | Job::Release { .. } => {
                unreachable!("it has its turn between transactions")
            }
        }
        if !shares {
            break;
        }
    }
    Ok(())
}

/// Writes `records`, all or none unless the error is no conflict.
fn append_whole(
    connection: &Connection,
    records: &[Sealed],
) -> Result<Result<(), JournalError>, Broken> {
    if is_contiguous(records) {
        return Ok(append(connection, records));
    }
    execute(connection, "SAVEPOINT job")?;
    let outcome = append(connection, records);
    if !connection.is_autocommit() {
        if outcome.is_err() {
            execute(connection, "ROLLBACK TO job")?;
        }
        execute(connection, "RELEASE job")?;
    }
    Ok(outcome)
}

fn do_work(connection: &Connection, work: Work, answers: &mut Vec<Answer>) -> Result<(), Broken> {
    execute(connection, "SAVEPOINT job")?;
    let is_plain = work.is_plain;
    let (keep, answer) = match work.run(connection) {
        Some(done) => (done.keep, Answer::Work(done.acknowledge)),
        None => (Keep::Nothing(None), Answer::Nobody),
    };
    answers.push(answer);
    if connection.is_autocommit() {
        let kind = match keep {
            Keep::Nothing(Some(kind)) => kind,
            // It was alone in a transaction that was never committed: nobody lost anything.
            Keep::Nothing(None) if !is_plain => return Err(Broken::alone()),
            _ => JournalErrorKind::Storage,
        };
        return Err(Broken::underneath(kind));
    }
    if keep != Keep::Changes {
        execute(connection, "ROLLBACK TO job")?;
    }
    Ok(execute(connection, "RELEASE job")?)
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}
