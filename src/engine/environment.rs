//! Time, tasks and chance from tokio and the operating system.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, SystemTime},
};

use fsm_core::{Environment, Timestamp};
use futures::future::BoxFuture;
use tokio::runtime::Handle;

/// However far away a deadline is, the wall clock is looked at again after this long: somebody
/// may have set it.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The [`Environment`] of a process that runs tokio.
#[derive(Clone, Debug)]
pub(crate) struct TokioEnvironment {
    handle: Handle,
}

impl TokioEnvironment {
    /// An environment whose tasks run on `handle`.
    pub(crate) fn new(handle: Handle) -> Self {
        TokioEnvironment { handle }
    }
}

impl Environment for TokioEnvironment {
    fn now(&self) -> Timestamp {
        let since_epoch =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let environment = self.clone();
        Box::pin(async move {
            loop {
                let left = at.since(environment.now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
            }
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.handle.spawn(task);
    }

    fn random(&self) -> u64 {
        // Each `RandomState` is keyed from the operating system's randomness and differs from the
        // one before; jitter needs no more.
        RandomState::new().build_hasher().finish()
    }
}

impl throttle::Sleep for TokioEnvironment {
    fn sleep(&self, duration: Duration) -> throttle::Sleeping {
        Box::pin(tokio::time::sleep(duration))
    }
}
