//! A call that no step has taken yet.
//!
//! **How.** The connection lies behind a lock, with the future that tells when the caller hangs
//! up. Whoever takes it out, a step or the host, is the only one to have it; the call's task, which
//! polls that future, is woken and finds the place empty.
//!
//! A caller that closes only the half that it writes to has said everything, and may still listen.
//! The runtime tells that it has, and nothing after that, so such a caller is looked at now and
//! then.

use std::{
    fmt,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use fsm_core::Environment;
use futures::future::{BoxFuture, FutureExt};
use plugin_sdk::IncomingCall;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{io::Interest, net::UnixStream, sync::OwnedSemaphorePermit};

/// How soon a caller that has said everything is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A call that waits for a step.
pub(crate) struct Waiting {
    pub(crate) call: IncomingCall,
    state: Mutex<State>,
}

struct State {
    /// `None` once somebody has taken it.
    held: Option<Held>,
    /// No step will come for it any more.
    is_unserved: bool,
    /// The call's task.
    waker: Option<Waker>,
}

struct Held {
    // Before the connection, which it has a part in.
    hangs_up: BoxFuture<'static, ()>,
    connection: Arc<UnixStream>,
    /// Its place among those who may wait.
    place: OwnedSemaphorePermit,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// A step has taken the call.
    Taken,
    /// The caller has closed its end.
    HungUp,
    /// No step will come: the operation has ended.
    Unserved,
    /// The caller cannot wait any longer.
    Impatient,
    /// The engine stops.
    Stopped,
}

impl Waiting {
    pub(crate) fn new(
        call: IncomingCall,
        connection: UnixStream,
        place: OwnedSemaphorePermit,
        environment: &Arc<dyn Environment>,
    ) -> Arc<Self> {
        let connection = Arc::new(connection);
        let hangs_up = hangs_up(Arc::clone(&connection), Arc::clone(environment)).boxed();
        let held = Some(Held { hangs_up, connection, place });
        let state = Mutex::new(State { held, is_unserved: false, waker: None });
        Arc::new(Waiting { call, state })
    }

    /// Takes the call, for a step; once. The connection blocks from now on.
    pub(crate) fn take(&self) -> Option<(IncomingCall, OwnedFd)> {
        let (connection, place) = self.give_up()?;
        drop(place);
        let connection = connection.into_std().ok()?;
        connection.set_nonblocking(false).ok()?;
        Some((self.call.clone(), connection.into()))
    }

    /// Takes the connection back from the line, to hang up, and the call's place; `None` if a step
    /// has it.
    pub(crate) fn give_up(&self) -> Option<(UnixStream, OwnedSemaphorePermit)> {
        let mut state = self.lock();
        let Held { hangs_up, connection, place } = state.held.take()?;
        let waker = state.waker.take();
        drop(state);
        drop(hangs_up);
        if let Some(waker) = waker {
            waker.wake();
        }
        Some((Arc::into_inner(connection)?, place))
    }

    /// No step will come for it.
    pub(super) fn is_unserved(&self) {
        let waker = {
            let mut state = self.lock();
            state.is_unserved = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until it is taken, or comes to nothing by itself.
    pub(super) async fn over(&self) -> Over {
        std::future::poll_fn(|cx| self.poll_over(cx)).await
    }

    fn poll_over(&self, cx: &mut Context<'_>) -> Poll<Over> {
        let mut state = self.lock();
        let is_unserved = state.is_unserved;
        let Some(held) = &mut state.held else { return Poll::Ready(Over::Taken) };
        if is_unserved {
            return Poll::Ready(Over::Unserved);
        }
        if held.hangs_up.poll_unpin(cx).is_ready() {
            // Not to be polled again, whoever asks.
            held.hangs_up = std::future::ready(()).boxed();
            return Poll::Ready(Over::HungUp);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn hangs_up(connection: Arc<UnixStream>, environment: Arc<dyn Environment>) {
    // Ready when the other side will write no more, whatever lies there unread.
    let _ = connection.ready(Interest::PRIORITY).await;
    while !is_gone(&connection) {
        environment.sleep_until(environment.now() + LOOK_AGAIN).await;
    }
}

/// Whether nobody is at the other end.
fn is_gone(connection: &UnixStream) -> bool {
    let mut look = [PollFd::new(connection, PollFlags::empty())];
    let found = poll(&mut look, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    found.is_err() || !look[0].revents().is_empty()
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("id", &self.call.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use std::{io::Read, os::unix::net::UnixStream as Caller};

    use fsm_core::testing::ManualEnvironment;
    use plugin_sdk::{OperationId, Peer};
    use tokio::{io::AsyncWriteExt, sync::Semaphore};

    use super::*;

    fn waiting() -> (UnixStream, Arc<Waiting>, Arc<Semaphore>) {
        waiting_by(&(Arc::new(ManualEnvironment::default()) as Arc<dyn Environment>))
    }

    fn waiting_by(time: &Arc<dyn Environment>) -> (UnixStream, Arc<Waiting>, Arc<Semaphore>) {
        let (caller, here) = UnixStream::pair().unwrap();
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        let call = IncomingCall::new(OperationId::new("call"), "door", Peer::new(0, 0, 0), "");
        (caller, Waiting::new(call, here, place, time), places)
    }

    /// Lets every task run as far as it gets.
    async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_call_that_is_taken_ends_its_wait_and_frees_its_place() {
        let (caller, waiting, places) = waiting();
        let watching = Arc::clone(&waiting);
        let over = tokio::spawn(async move { watching.over().await });
        tokio::task::yield_now().await;
        assert_eq!(places.available_permits(), 0);
        let (call, connection) = waiting.take().unwrap();
        assert_eq!((call.endpoint.as_str(), places.available_permits()), ("door", 1));
        assert_eq!(over.await.unwrap(), Over::Taken);
        assert!(waiting.take().is_none() && waiting.give_up().is_none());
        // It blocks, and there is no other end than the one that was taken.
        let mut caller = Caller::from(std::os::fd::OwnedFd::from(caller.into_std().unwrap()));
        caller.set_nonblocking(false).unwrap();
        let taken = Caller::from(connection);
        let reading = std::thread::spawn(move || (&taken).read(&mut [0; 1]).map(|_| taken));
        std::io::Write::write_all(&mut caller, b"x").unwrap();
        drop(reading.join().unwrap().unwrap());
        assert_eq!(caller.read(&mut [0; 1]).unwrap(), 0);
    }

    #[tokio::test]
    async fn who_hangs_up_is_noticed_whatever_it_has_said() {
        for says in [&b""[..], b"and so on"] {
            let (mut caller, waiting, _) = waiting();
            caller.write_all(says).await.unwrap();
            let watching = Arc::clone(&waiting);
            let over = tokio::spawn(async move { watching.over().await });
            settle().await;
            assert!(!over.is_finished(), "what it says is no hanging up");
            drop(caller);
            assert_eq!(over.await.unwrap(), Over::HungUp);
            assert_eq!(waiting.over().await, Over::HungUp);
        }
    }

    #[tokio::test]
    async fn who_has_said_everything_still_waits_until_it_hangs_up() {
        let time = Arc::new(ManualEnvironment::default());
        let (mut caller, waiting, _) = waiting_by(&(Arc::clone(&time) as Arc<dyn Environment>));
        caller.write_all(b"all of it").await.unwrap();
        caller.shutdown().await.unwrap();
        let watching = Arc::clone(&waiting);
        let over = tokio::spawn(async move { watching.over().await });
        for _ in 0..3 {
            settle().await;
            time.advance(LOOK_AGAIN);
        }
        settle().await;
        assert!(!over.is_finished(), "it listens");
        drop(caller);
        settle().await;
        time.advance(LOOK_AGAIN);
        assert_eq!(over.await.unwrap(), Over::HungUp);
    }

    #[tokio::test]
    async fn a_call_that_nobody_comes_for_can_still_be_answered() {
        let (mut caller, waiting, _) = waiting();
        waiting.is_unserved();
        assert_eq!(waiting.over().await, Over::Unserved);
        waiting.give_up().unwrap().0.write_all(b"no").await.unwrap();
        let mut heard = String::new();
        drop(waiting);
        tokio::io::AsyncReadExt::read_to_string(&mut caller, &mut heard).await.unwrap();
        assert_eq!(heard, "no");
    }
}
