//! Work in progress on the other side: polled, cancelled, dropped.
//!
//! **Contract of the four functions.** `poll` is called by one thread at a time and never after
//! `drop`. `cancel` asks the work to stop; it may be called at any time before `drop`, from any
//! thread, any number of times, also during a poll and after the end. `drop` abandons whatever is
//! left. None of them lets a panic out; a panic of the work itself is the answer
//! [`AbiPoll::Panicked`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use abi_stable::StableAbi;

use super::bytes::AbiBytes;
use super::guard::{contain, contain_quietly};
use super::reply::{AbiReply, Reply, TaskFault};
use super::waker::{AbiWaker, WakerCache, with_waker};
use fsm_core::Cancellation;

/// A boxed future that can change threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The answer to a poll, as it crosses.
#[repr(C, u8)]
#[derive(StableAbi, Debug)]
pub enum AbiPoll<T> {
    /// Not yet; the waker that was shown will be woken.
    Pending,
    /// The value.
    Ready(T),
    /// The other side panicked; the text of the panic.
    Panicked(AbiBytes),
}

/// A task as it crosses.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiTask {
    pub(super) data: *mut (),
    pub(super) poll: unsafe extern "C" fn(*mut (), *const AbiWaker) -> AbiPoll<AbiReply>,
    pub(super) cancel: unsafe extern "C" fn(*const ()),
    pub(super) drop: unsafe extern "C" fn(*mut ()),
}

// SAFETY: the only constructor takes a `Send` future and a `Send + Sync` token.
unsafe impl Send for AbiTask {}
// SAFETY: a shared reference reaches only `cancel`, which may be called from any thread.
unsafe impl Sync for AbiTask {}

impl fmt::Debug for AbiTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbiTask").finish_non_exhaustive()
    }
}

struct Work {
    /// `None` once it has ended, so that what it held is free before the task itself is dropped.
    future: Option<BoxFuture<Result<Reply, TaskFault>>>,
    cancel: Cancellation,
}

impl AbiTask {
    /// A task that runs `future` and raises `cancel` when it is asked to stop.
    pub(super) fn new(future: BoxFuture<Result<Reply, TaskFault>>, cancel: Cancellation) -> Self {
        let data = Box::into_raw(Box::new(Work { future: Some(future), cancel })).cast();
        Self { data, poll, cancel: cancel_work, drop: drop_work }
    }

    /// A task that has failed already.
    pub(super) fn panicked(text: String) -> Self {
        let answer = std::future::ready(Err(TaskFault::Panicked(text)));
        Self::new(Box::pin(answer), Cancellation::new())
    }
}

impl Drop for AbiTask {
    fn drop(&mut self) {
        // SAFETY: called once, here; `&mut self` rules a poll out.
        unsafe { (self.drop)(self.data) }
    }
}

unsafe extern "C" fn poll(data: *mut (), waker: *const AbiWaker) -> AbiPoll<AbiReply> {
    // SAFETY: `data` is the box of `new` and not yet dropped. Only `future` is borrowed, and only
    // polls touch it, one at a time; a concurrent `cancel` borrows the other field.
    let future = unsafe { &mut (*data.cast::<Work>()).future };
    let polled = contain(|| {
        let Some(running) = future else { return Poll::Ready(Err(TaskFault::Finished)) };
        // SAFETY: the caller's waker is valid for this call.
        unsafe { with_waker(waker, |cx| running.as_mut().poll(cx)) }
    });
    let answer = match polled {
        Ok(Poll::Pending) => return AbiPoll::Pending,
        Ok(Poll::Ready(answer)) => answer,
        Err(text) => Err(TaskFault::Panicked(text)),
    };
    let ended = future.take();
    contain_quietly("dropping what a task held", move || drop(ended));
    match contain(|| AbiReply::from_answer(answer)) {
        Ok(Ok(reply)) => AbiPoll::Ready(reply),
        Ok(Err(text)) | Err(text) => AbiPoll::Panicked(text.into()),
    }
}

unsafe extern "C" fn cancel_work(data: *const ()) {
    // SAFETY: `data` is the box of `new` and not yet dropped; see `poll` for the borrow.
    let cancel = unsafe { &(*data.cast::<Work>()).cancel };
    contain_quietly("cancelling", || cancel.request());
}

unsafe extern "C" fn drop_work(data: *mut ()) {
    contain_quietly("dropping a task", || {
        // SAFETY: `data` is the box of `new`; this is the one call of `drop`.
        drop(unsafe { Box::from_raw(data.cast::<Work>()) });
    });
}

/// A task of the other side, as a future of this one.
pub(crate) struct ForeignTask {
    /// `None` once it has answered: the other side's part is dropped at once.
    task: Option<AbiTask>,
    wakers: WakerCache,
}

impl ForeignTask {
    pub(crate) fn new(task: AbiTask) -> Self {
        Self { task: Some(task), wakers: WakerCache::default() }
    }

    /// Asks the work to stop; nothing happens if it has ended.
    #[cfg_attr(not(feature = "host"), allow(dead_code))] // only hosts cancel
    pub(crate) fn cancel(&self) {
        if let Some(task) = &self.task {
            // SAFETY: the task is not dropped, and `cancel` may be called at any time before.
            unsafe { (task.cancel)(task.data) }
        }
    }
}

impl Future for ForeignTask {
    type Output = Result<Reply, TaskFault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(task) = &mut this.task else { return Poll::Ready(Err(TaskFault::Finished)) };
        let waker = this.wakers.address_of(cx.waker());
        // SAFETY: the task is not dropped, `&mut self` makes this the only poll, and the cache
        // keeps the waker valid.
        let answer = match unsafe { (task.poll)(task.data, waker) } {
            AbiPoll::Pending => return Poll::Pending,
            AbiPoll::Ready(reply) => reply.into_answer(),
            AbiPoll::Panicked(text) => Err(TaskFault::Panicked(text.to_text())),
        };
        this.task = None;
        Poll::Ready(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use bytes::Bytes;
    use futures::executor::block_on;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Pending twice, woken once here and once from another thread, then ready.
    struct Twice {
        polls: usize,
        kept: Option<Waker>,
        clones: Arc<AtomicUsize>,
    }
    impl Future for Twice {
        type Output = Result<Reply, TaskFault>;
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            if !self.kept.as_ref().is_some_and(|kept| kept.will_wake(cx.waker())) {
                self.kept = Some(cx.waker().clone());
                self.clones.fetch_add(1, Ordering::SeqCst);
            }
            self.polls += 1;
            match self.polls {
                1 => cx.waker().wake_by_ref(),
                2 => {
                    let kept = cx.waker().clone();
                    std::thread::spawn(move || kept.wake()).join().expect("the thread ends");
                }
                _ => return Poll::Ready(Ok(Reply::ok("done"))),
            }
            Poll::Pending
        }
    }

    fn task(
        future: impl Future<Output = Result<Reply, TaskFault>> + Send + 'static,
    ) -> ForeignTask {
        ForeignTask::new(AbiTask::new(Box::pin(future), Cancellation::new()))
    }

    #[cfg_attr(miri, ignore = "Miri gives one table of a waker several addresses")]
    #[test]
    fn many_polls_clone_the_waker_once_and_a_later_poll_says_finished() {
        let clones = Arc::new(AtomicUsize::new(0));
        let mut task = task(Twice { polls: 0, kept: None, clones: clones.clone() });
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut task).poll(&mut cx).is_pending());
        assert!(Pin::new(&mut task).poll(&mut cx).is_pending());
        let Poll::Ready(Ok(reply)) = Pin::new(&mut task).poll(&mut cx) else { panic!("ready") };
        assert_eq!(reply.result, Ok(Bytes::from("done")));
        assert_eq!(clones.load(Ordering::SeqCst), 1);
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        assert!(matches!(Pin::new(&mut task).poll(&mut cx), Poll::Ready(Err(TaskFault::Finished))));
    }

    struct DropPanics;
    impl Drop for DropPanics {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }

    #[test]
    fn a_panic_in_poll_is_an_answer_and_a_panic_in_drop_is_contained() {
        let answer = block_on(task(async { panic!("row {}", 7) }));
        assert_eq!(answer.map(|_| ()), Err(TaskFault::Panicked("row 7".into())));
        let held = DropPanics;
        drop(task(async move {
            let _held = held;
            std::future::pending().await
        }));
    }

    #[test]
    fn cancel_raises_the_token_before_during_and_after() {
        let token = Cancellation::new();
        let waits = token.requested();
        let future = async move {
            waits.await;
            Ok(Reply::error("cancelled"))
        };
        let mut task = ForeignTask::new(AbiTask::new(Box::pin(future), token.clone()));
        task.cancel();
        task.cancel();
        let reply = block_on(&mut task).expect("an answer");
        assert_eq!(reply.result, Err(Bytes::from("cancelled")));
        task.cancel();
        assert!(token.is_requested());
    }
}
