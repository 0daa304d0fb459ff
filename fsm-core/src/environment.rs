//! Time, tasks and chance: what a runtime needs from whoever embeds it.

use std::fmt;

use futures::future::BoxFuture;

use crate::Timestamp;

/// The outside of a [`Runtime`](crate::Runtime): a clock, timers, a place to run tasks, and
/// random numbers for jitter. An embedder adapts its async runtime in a dozen lines; tests use
/// [`ManualEnvironment`](crate::testing::ManualEnvironment).
pub trait Environment: Send + Sync + fmt::Debug + 'static {
    /// The wall time.
    fn now(&self) -> Timestamp;

    /// Completes when the wall time has reached `at`. May complete early; never hangs when the
    /// clock is set back by more than the implementer can notice.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()>;

    /// Runs `task` to its end, concurrently with others.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// A number drawn evenly from all of `u64`.
    fn random(&self) -> u64;
}
