//! Where a plugin's jobs run.
//!
//! **Promise.** A job that blocks its thread blocks nobody else: by default each job has a thread
//! of the plugin's own, and the host only polls for its answer. Dropping the answer aborts the job
//! at its next `await`; a panic in it, or in dropping it, stays on its thread.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::{AbortHandle, Abortable};

use super::guard::{contain, contain_quietly};
use super::reply::{Reply, TaskFault};
use super::task::BoxFuture;
use fsm_core::Cancellation;

/// Runs jobs somewhere else than on the caller's thread.
pub trait Executor: Send + Sync + 'static {
    /// Runs `work` to its end. Returns at once. `work` never panics.
    ///
    /// # Errors
    ///
    /// Any, if it cannot be run; `work` is dropped and its waiter is told.
    fn spawn(&self, work: BoxFuture<()>) -> io::Result<()>;

    /// Runs `work`, here and now and once, in the context that jobs on this executor have: with
    /// the timers of its runtime, say. By default there is none.
    fn enter(&self, work: &mut dyn FnMut()) {
        work();
    }
}

/// The future of the job's answer; the job itself runs on `executor`.
pub(super) fn run_on(
    executor: &dyn Executor,
    job: BoxFuture<Reply>,
    cancel: Cancellation,
) -> BoxFuture<Result<Reply, TaskFault>> {
    let (tell, answer) = oneshot::channel();
    let (abort, registration) = AbortHandle::new_pair();
    let mut job = Contained(Some(Abortable::new(job, registration)));
    let work = async move {
        let ended = (&mut job).await;
        // Whatever the job held is gone before the host hears of its end.
        drop(job);
        // Nobody listens if the answer was abandoned.
        let _ = tell.send(ended);
    };
    if let Err(error) = executor.spawn(Box::pin(work)) {
        let fault = TaskFault::Panicked(format!("the plugin could not run the job: {error}"));
        return Box::pin(std::future::ready(Err(fault)));
    }
    Box::pin(Answer { answer, abort, cancel })
}

/// The same for a job that whoever polls for its answer runs.
pub(super) fn run_here(
    job: BoxFuture<Reply>,
    cancel: Cancellation,
) -> BoxFuture<Result<Reply, TaskFault>> {
    let abandoned = Abandoned(cancel);
    Box::pin(async move {
        let answer = job.await;
        drop(abandoned);
        Ok(answer)
    })
}

/// The same in the context of `executor`: each poll, and the job's drop.
pub(super) fn run_within(
    executor: Arc<dyn Executor>,
    job: BoxFuture<Reply>,
    cancel: Cancellation,
) -> BoxFuture<Result<Reply, TaskFault>> {
    run_here(Box::pin(Within { executor, job: Some(job) }), cancel)
}

struct Within {
    executor: Arc<dyn Executor>,
    /// `None` while and after it is dropped.
    job: Option<BoxFuture<Reply>>,
}

impl Future for Within {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let Self { executor, job } = &mut *self;
        let mut polled = Poll::Pending;
        if let Some(job) = job {
            executor.enter(&mut || polled = job.as_mut().poll(cx));
        }
        polled
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        let Self { executor, job } = self;
        executor.enter(&mut || drop(job.take()));
    }
}

/// Raises the token of a job that nobody waits for any more, for what the job has started elsewhere.
struct Abandoned(Cancellation);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.request();
    }
}

/// A job that ends in its panic instead of spreading it.
struct Contained(Option<Abortable<BoxFuture<Reply>>>);

impl Future for Contained {
    type Output = Result<Reply, TaskFault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(job) = &mut self.0 else { return Poll::Ready(Err(TaskFault::Finished)) };
        match contain(|| Pin::new(job).poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(reply))) => Poll::Ready(Ok(reply)),
            Ok(Poll::Ready(Err(_aborted))) => Poll::Ready(Err(TaskFault::Revoked)),
            Err(panic) => Poll::Ready(Err(TaskFault::Panicked(panic))),
        }
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        let job = self.0.take();
        contain_quietly("dropping a job", move || drop(job));
    }
}

/// The waiting end of a job.
struct Answer {
    answer: oneshot::Receiver<Result<Reply, TaskFault>>,
    abort: AbortHandle,
    cancel: Cancellation,
}

impl Future for Answer {
    type Output = Result<Reply, TaskFault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map(|told| {
            told.unwrap_or_else(|_| {
                Err(TaskFault::Panicked("the plugin's executor dropped the job".to_owned()))
            })
        })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // A job that never awaits can still look at its token.
        self.cancel.request();
        self.abort.abort();
    }
}

/// The executor of this library: a thread a job, kept for a while for the next one.
pub(crate) fn own() -> Arc<Own> {
    static OWN: LazyLock<Arc<Own>> = LazyLock::new(|| Arc::new(Own::new()));
    OWN.clone()
}

/// Waits for `future` on this thread, which may be waiting for another one already: a job on a
/// thread of its own may block it with a wait.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    // A flag for each wait: a wake that is for the outer future is not lost on the inner one.
    let sleeper = Arc::new(Sleeper { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(sleeper.clone());
    let mut cx = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        while !sleeper.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

struct Sleeper {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

/// An executor with a thread for each job under way.
///
/// The number of threads is the number of jobs that run at once, which the host's admission
/// bounds; a fixed number would let one blocked job stop another.
#[derive(Debug)]
pub struct Own(Arc<Pool>);

#[derive(Default)]
struct Pool {
    /// The threads without work. The one that was busy last is the next: what it needs is still
    /// at hand, and the others grow old.
    idle: Mutex<Vec<Arc<Seat>>>,
}

/// Where a thread of the pool waits.
struct Seat {
    thread: Thread,
    work: Mutex<Option<BoxFuture<()>>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle().len()).finish()
    }
}

impl Own {
    /// An executor without threads yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::default())
    }
}

impl Default for Own {
    fn default() -> Self {
        Self::new()
    }
}

impl Executor for Own {
    fn spawn(&self, work: BoxFuture<()>) -> io::Result<()> {
        let seat = self.0.idle().pop();
        if let Some(seat) = seat {
            *seat.work() = Some(work);
            seat.thread.unpark();
            return Ok(());
        }
        let pool = self.0.clone();
        thread::Builder::new()
            .name("plugin-job".to_owned())
            .spawn(move || pool.work_off(work))
            .map(drop)
    }
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<Arc<Seat>>> {
        // No code that can panic runs under this lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work_off(&self, first: BoxFuture<()>) {
        let seat = Arc::new(Seat { thread: thread::current(), work: Mutex::default() });
        let mut next = Some(first);
        while let Some(work) = next {
            contain_quietly("running a job", move || wait(work));
            next = self.wait(&seat);
        }
    }

    /// The next work for a thread that has none; `None` if there is none for long.
    fn wait(&self, seat: &Arc<Seat>) -> Option<BoxFuture<()>> {
        self.idle().push(seat.clone());
        let until = Instant::now() + IDLE;
        loop {
            if let Some(work) = seat.work().take() {
                return Some(work);
            }
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                thread::park_timeout(left);
                continue;
            }
            let mut idle = self.idle();
            match idle.iter().position(|other| Arc::ptr_eq(other, seat)) {
                Some(at) => {
                    idle.remove(at);
                    return None;
                }
                // Somebody has just chosen this thread, and is about to say for what.
                None => {
                    drop(idle);
                    thread::park_timeout(IDLE);
                }
            }
        }
    }
}

impl Seat {
    fn work(&self) -> MutexGuard<'_, Option<BoxFuture<()>>> {
        // Nor under this one.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc;

    use futures::executor::block_on;

    use super::*;

    #[test]
    fn jobs_that_block_do_not_hold_each_other_up_and_threads_are_reused() {
        let own = Own::new();
        let together = Arc::new(Barrier::new(3));
        for _ in 0..2 {
            let together = together.clone();
            own.spawn(Box::pin(async move {
                together.wait();
            }))
            .expect("a thread");
        }
        together.wait();
        // Wait until both threads are idle, which they report under the lock.
        while own.0.idle().len() < 2 {
            thread::yield_now();
        }
        let (tell, told) = mpsc::channel();
        own.spawn(Box::pin(async move {
            let name = thread::current().name().map(ToOwned::to_owned);
            tell.send(name).expect("the test listens");
        }))
        .expect("a thread");
        assert_eq!(told.recv().expect("the job runs"), Some("plugin-job".to_owned()));
    }

    struct Refuses;
    impl Executor for Refuses {
        fn spawn(&self, _: BoxFuture<()>) -> io::Result<()> {
            Err(io::Error::other("no threads"))
        }
    }
    struct Loses;
    impl Executor for Loses {
        fn spawn(&self, _: BoxFuture<()>) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_job_that_cannot_run_has_an_answer_all_the_same() {
        let job = || -> BoxFuture<Reply> { Box::pin(std::future::pending()) };
        for executor in [&Refuses as &dyn Executor, &Loses] {
            let answer = block_on(run_on(executor, job(), Cancellation::new()));
            assert!(matches!(answer, Err(TaskFault::Panicked(_))), "{answer:?}");
        }
    }

    #[test]
    fn an_abandoned_answer_drops_the_job_and_raises_its_token() {
        struct Tells(mpsc::Sender<()>);
        impl Drop for Tells {
            fn drop(&mut self) {
                self.0.send(()).expect("the test listens");
                panic!("in drop, on the job's thread");
            }
        }
        let (tell, told) = mpsc::channel();
        let held = Tells(tell);
        let cancel = Cancellation::new();
        let job: BoxFuture<Reply> = Box::pin(async move {
            let _held = held;
            std::future::pending().await
        });
        drop(run_on(&Own::new(), job, cancel.clone()));
        told.recv().expect("the job was dropped");
        assert!(cancel.is_requested());
    }

    #[test]
    fn a_wait_inside_a_wait_keeps_the_wakes_of_the_outer_one() {
        let (tell, told) = oneshot::channel::<u32>();
        let (go, gone) = oneshot::channel::<()>();
        let mut told = Some(told);
        let mut gone = Some(gone);
        let other = thread::spawn(move || {
            tell.send(7).expect("the outer wait listens");
            go.send(()).expect("the inner wait listens");
        });
        let outer = std::future::poll_fn(|cx| {
            if let Some(gone) = gone.take() {
                // Its waker is known before the inner wait begins, which then outlasts its wake.
                if let Some(told) = &mut told
                    && let Poll::Ready(told) = Pin::new(told).poll(cx)
                {
                    return Poll::Ready(told);
                }
                wait(gone).expect("it is sent");
                return Poll::Pending;
            }
            told.as_mut().map_or(Poll::Pending, |told| Pin::new(told).poll(cx))
        });
        assert_eq!(wait(outer), Ok(7));
        other.join().expect("the thread ends");
    }
}
