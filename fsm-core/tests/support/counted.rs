//! An environment that counts the tasks of a runtime.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use fsm_core::{Environment, Timestamp, testing::ManualEnvironment};
use futures::future::BoxFuture;

#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) environment: ManualEnvironment,
    spawned: Arc<AtomicUsize>,
    live: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct Living(Arc<AtomicUsize>);

impl Drop for Living {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Counted {
    pub(crate) fn new(environment: ManualEnvironment) -> Self {
        let (spawned, live, most) = Default::default();
        Counted { environment, spawned, live, most }
    }

    /// How many tasks there are.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    /// How many tasks have begun since the last time that somebody asked.
    pub(crate) fn spawned(&self) -> usize {
        self.spawned.swap(0, Ordering::SeqCst)
    }

    /// How many tasks there were at most at a time since the last time that somebody asked.
    pub(crate) fn most(&self) -> usize {
        self.most.swap(self.live(), Ordering::SeqCst)
    }
}

impl Environment for Counted {
    fn now(&self) -> Timestamp {
        self.environment.now()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        self.environment.sleep_until(at)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.spawned.fetch_add(1, Ordering::SeqCst);
        let live = self.live.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(live, Ordering::SeqCst);
        let living = Living(Arc::clone(&self.live));
        self.environment.spawn(Box::pin(async move {
            let _living = living;
            task.await;
        }));
    }

    fn random(&self) -> u64 {
        self.environment.random()
    }
}
