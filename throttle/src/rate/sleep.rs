//! How to let time pass without knowing the runtime.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A future that is ready once some time has passed.
pub type Sleeping = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A way to let time pass, lent by the runtime of the host.
///
/// The implementer guarantees that the future is not ready earlier than asked for, on the
/// [`Clock`](crate::Clock) that it is used with. Being late costs throughput up to the
/// burst and nothing beyond it.
///
/// # Examples
///
/// With tokio it is one line: `Box::pin(tokio::time::sleep(duration))`.
pub trait Sleep: Send + Sync + 'static {
    /// A future that is ready after `duration`, counted from this call.
    fn sleep(&self, duration: Duration) -> Sleeping;
}
