//! The threads behind a store: one writes, one reads.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread::{JoinHandle, Thread},
};

use futures::channel::oneshot;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::{JournalError, JournalErrorKind};

/// As many jobs share one transaction at most; more would only delay the first.
const GROUP_MAX: usize = 1_024;

/// Something to do with a connection, or to be told why that is not possible.
///
/// Answers whether its changes stay, and what to do once it is known whether they are durable.
type Job = Box<dyn FnOnce(Result<&Connection, JournalErrorKind>) -> (Keep, Acknowledge) + Send>;
type Acknowledge = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Changes,
    /// Why, if the work failed with an error of the store.
    Nothing(Option<JournalErrorKind>),
}

/// How much a writer has done, for tests and metrics.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) transactions: AtomicU64,
    pub(super) jobs: AtomicU64,
}

/// A thread with a connection, and the queue to it. Dropping the value finishes what is queued.
pub(super) struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    pub(super) counters: Arc<Counters>,
}

impl Worker {
    /// A thread that groups jobs into transactions.
    pub(super) fn writer(connection: Connection) -> std::io::Result<Self> {
        Worker::spawn("mercury-store", connection, write_loop)
    }

    /// A thread that runs jobs one by one on a connection that cannot write.
    pub(super) fn reader(connection: Connection) -> std::io::Result<Self> {
        Worker::spawn("mercury-store-read", connection, read_loop)
    }

    fn spawn(
        name: &str,
        connection: Connection,
        run: fn(Connection, mpsc::Receiver<Job>, &Counters),
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let counters = Arc::new(Counters::default());
        let seen = Arc::clone(&counters);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(connection, queue, &seen))?;
        Ok(Worker { jobs: Some(jobs), thread: Some(thread), counters })
    }

    /// Queues `work`; its result comes once it is durable.
    pub(super) fn run<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: From<JournalError> + Send + 'static,
    {
        let (done, result) = oneshot::channel::<Result<T, E>>();
        let job: Job = Box::new(move |connection| {
            let outcome = match connection {
                Ok(connection) => work(connection),
                Err(kind) => Err(JournalError::new(kind, "state database").into()),
            };
            let keep = match &outcome {
                Ok(_) => Keep::Changes,
                Err(error) => Keep::Nothing(
                    (error as &dyn Any).downcast_ref::<JournalError>().map(JournalError::kind),
                ),
            };
            let acknowledge: Acknowledge = Box::new(move |durable| {
                let outcome = match (outcome, durable) {
                    (Ok(_), Err(error)) => Err(error.into()),
                    (outcome, _) => outcome,
                };
                // Nobody may be waiting any more.
                let _ = done.send(outcome);
            });
            (keep, acknowledge)
        });
        // A closed queue drops the job, and with it `done`: the receiver hears of that.
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
        async move {
            result.await.unwrap_or_else(|_| {
                let stopped = JournalError::new(JournalErrorKind::Storage, "state database")
                    .caused_by("the store's thread dropped the work, or the work panicked");
                Err(stopped.into())
            })
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // The last owner may be a job on this very thread; it cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

fn write_loop(mut connection: Connection, queue: mpsc::Receiver<Job>, counters: &Counters) {
    let mut poisoned = false;
    while let Ok(first) = queue.recv() {
        let mut group = VecDeque::from([first]);
        while group.len() < GROUP_MAX
            && let Ok(next) = queue.try_recv()
        {
            group.push_back(next);
        }
        // One transaction as a rule; more if it breaks before all jobs had their turn.
        while !group.is_empty() {
            if poisoned {
                for job in group.drain(..) {
                    let (_, acknowledge) = job(Err(JournalErrorKind::Poisoned));
                    acknowledge(Ok(()));
                }
                break;
            }
            let mut acknowledgements = Vec::with_capacity(group.len());
            let result = commit(&mut connection, &mut group, &mut acknowledgements);
            match &result {
                Ok(()) => {
                    counters.jobs.fetch_add(acknowledgements.len() as u64, Ordering::Relaxed);
                    counters.transactions.fetch_add(1, Ordering::Relaxed);
                }
                Err(broken) => {
                    poisoned = broken.poisons;
                    tracing::error!(
                        error = broken.text,
                        poisoned,
                        "the state database could not be written"
                    );
                }
            }
            for acknowledge in acknowledgements.into_iter().flatten() {
                acknowledge(match &result {
                    Ok(()) => Ok(()),
                    Err(broken) => Err(JournalError::new(broken.kind, "state database")
                        .caused_by(broken.text.clone())),
                });
            }
        }
    }
}

/// A transaction that was not committed.
struct Broken {
    kind: JournalErrorKind,
    text: String,
    /// Whether anything may still be acknowledged.
    poisons: bool,
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

/// Runs jobs of `group` in one transaction. Those that had their turn leave an entry in
/// `acknowledgements`: `None` for one that panicked, whose caller hears of the dropped channel.
fn commit(
    connection: &mut Connection,
    group: &mut VecDeque<Job>,
    acknowledgements: &mut Vec<Option<Acknowledge>>,
) -> Result<(), Broken> {
    let tx = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(tx) => tx,
        Err(error) => {
            let broken = Broken::from(error);
            // None of the jobs runs: they are told why.
            acknowledgements.extend(group.drain(..).map(|job| Some(job(Err(broken.kind)).1)));
            return Err(broken);
        }
    };
    while let Some(job) = group.pop_front() {
        tx.execute_batch("SAVEPOINT job")?;
        let kept = match catch_unwind(AssertUnwindSafe(|| job(Ok(&tx)))) {
            Ok((keep, acknowledge)) => {
                acknowledgements.push(Some(acknowledge));
                keep
            }
            Err(payload) => {
                std::mem::forget(payload);
                acknowledgements.push(None);
                Keep::Nothing(None)
            }
        };
        if tx.is_autocommit() {
            // SQLite answers a full disk, or an I/O error, in the middle of a statement by
            // rolling back all of the transaction: those before this job lose their changes too.
            // The file stays whole. If the job's error says that reading or writing failed,
            // nothing more is acknowledged all the same.
            let (kind, poisons) = match kept {
                Keep::Nothing(Some(kind)) => (kind, kind != JournalErrorKind::Full),
                _ => (JournalErrorKind::Storage, false),
            };
            let text = "work in the same transaction failed, and all of it was rolled back";
            return Err(Broken { kind, text: text.to_owned(), poisons });
        }
        if kept != Keep::Changes {
            tx.execute_batch("ROLLBACK TO job")?;
        }
        tx.execute_batch("RELEASE job")?;
    }
    Ok(tx.commit()?)
}

fn read_loop(connection: Connection, queue: mpsc::Receiver<Job>, counters: &Counters) {
    while let Ok(job) = queue.recv() {
        counters.jobs.fetch_add(1, Ordering::Relaxed);
        match catch_unwind(AssertUnwindSafe(|| job(Ok(&connection)))) {
            Ok((_, acknowledge)) => acknowledge(Ok(())),
            Err(payload) => std::mem::forget(payload),
        }
    }
}

/// Waits for `future` on this thread. Unlike an executor's `block_on` it may be called inside
/// another one.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}
