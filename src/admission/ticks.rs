//! The one task that tells the admission when something is due.
//!
//! **How.** It sleeps until the time that [`Admission::tick`](throttle::Admission::tick) names. A
//! request that begins to wait wakes it, as its deadline may be the first one. A grant, which is
//! to be taken back if nobody comes for it, wakes nobody; but only who waits is granted something,
//! so while somebody does, the task looks again after as long as a grant lasts. While nobody
//! waits, it sleeps.

use std::{pin::pin, time::Duration};

use futures::future::select;
use tokio::{runtime::Handle, task::AbortHandle};

use super::door::Door;

/// How long a grant waits for whoever asked for it.
pub(super) const CLAIM_WITHIN: Duration = Duration::from_secs(30);

/// The task; it ends with this.
#[derive(Debug)]
pub(crate) struct Ticking(AbortHandle);

impl Ticking {
    /// Begins to tick the admission of `door`.
    pub(crate) fn begin(door: Door, tokio: &Handle) -> Self {
        Ticking(tokio.spawn(tick(door)).abort_handle())
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn tick(door: Door) {
    while !door.admission.is_closed() {
        let due = door.admission.tick();
        let again = door.is_waited_at().then(|| door.now() + CLAIM_WITHIN);
        let news = pin!(door.news.notified());
        match due.into_iter().chain(again).min() {
            Some(next) => {
                select(pin!(door.time.sleep_until(next)), news).await;
            }
            None => news.await,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use fsm_core::{Environment, Timestamp, testing::ManualEnvironment};
    use futures::future::{BoxFuture, FutureExt};
    use throttle::{Limits, Request, Resource};

    use super::*;
    use crate::admission::Time;

    /// Counts how often somebody sleeps.
    #[derive(Clone, Debug, Default)]
    struct Counted {
        clock: Arc<ManualEnvironment>,
        sleeps: Arc<AtomicUsize>,
    }

    impl Environment for Counted {
        fn now(&self) -> Timestamp {
            self.clock.now()
        }

        fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
            self.sleeps.fetch_add(1, Ordering::SeqCst);
            self.clock.sleep_until(at)
        }

        fn spawn(&self, task: BoxFuture<'static, ()>) {
            self.clock.spawn(task);
        }

        fn random(&self) -> u64 {
            self.clock.random()
        }
    }

    fn door() -> (Door, Counted, Ticking) {
        let counted = Counted::default();
        let limits = Limits::new().node("streams", 1).claim_within(CLAIM_WITHIN);
        let door = Door::new(limits, Time::given(Arc::new(counted.clone())));
        door.admission.open();
        let ticking = Ticking::begin(door.clone(), &Handle::current());
        (door, counted, ticking)
    }

    fn stream(owner: &str) -> Request {
        Request::new(owner).capacity(Resource::node(), "streams", 1)
    }

    /// Lets every task run as far as it gets.
    async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_grant_that_nobody_comes_for_goes_to_the_next() {
        let (door, time, _ticking) = door();
        let held = door.acquire(stream("held")).await.unwrap();
        let mut idle = Box::pin(door.acquire(stream("idle")));
        assert!((&mut idle).now_or_never().is_none());
        let next = tokio::spawn({
            let door = door.clone();
            async move { door.acquire(stream("next")).await }
        });
        settle().await;
        // From now on `idle` has the stream, and does not look.
        drop(held);
        settle().await;
        time.clock.advance(CLAIM_WITHIN - Duration::from_secs(1));
        settle().await;
        assert!(!next.is_finished(), "it has time to come");
        time.clock.advance(CLAIM_WITHIN);
        settle().await;
        assert!(next.is_finished());
        drop(next.await.unwrap().unwrap());
        drop(idle.await.unwrap());
    }

    #[tokio::test]
    async fn who_has_nothing_to_do_sleeps() {
        let (door, time, _ticking) = door();
        settle().await;
        drop(door.acquire(stream("one")).await.unwrap());
        time.clock.advance(CLAIM_WITHIN * 10);
        settle().await;
        assert_eq!(time.sleeps.load(Ordering::SeqCst), 0, "nobody has waited yet");

        let held = door.acquire(stream("held")).await.unwrap();
        let waiting = tokio::spawn({
            let door = door.clone();
            async move { door.acquire(stream("waiting")).await }
        });
        for _ in 0..10 {
            settle().await;
            time.clock.advance(CLAIM_WITHIN);
        }
        settle().await;
        assert!(time.sleeps.load(Ordering::SeqCst) <= 11, "once for as long as a grant lasts");
        drop(held);
        drop(waiting.await.unwrap().unwrap());
    }
}
