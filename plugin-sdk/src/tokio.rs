//! A runtime of tokio's that belongs to the plugin.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;

use tokio::runtime::{Builder, Runtime};

use crate::abi::{BoxFuture, Executor};

/// Runs a plugin's jobs on a tokio runtime of its own, whatever the host runs on.
///
/// Timers, sockets, `spawn` and `spawn_blocking` work in jobs that run on it
/// ([`Place::On`](crate::abi::Place::On)), and in jobs that the host polls with the runtime entered
/// ([`Place::Within`](crate::abi::Place::Within)): in their polls, and when they are dropped.
///
/// ```
/// # use std::sync::Arc;
/// use plugin_sdk::{Config, Fault, TokioExecutor, abi::Place};
///
/// struct Acme {
///     tokio: Arc<TokioExecutor>,
/// }
///
/// // In `Workload::open`:
/// fn open(config: Config) -> Result<Acme, Fault> {
///     Ok(Acme { tokio: Arc::new(TokioExecutor::new(config.workers())?) })
/// }
///
/// // In `Workload::place`:
/// fn place(acme: &Acme) -> Place {
///     Place::On(acme.tokio.clone())
/// }
/// # let acme = open(Config::default())?;
/// # assert_eq!(format!("{:?}", place(&acme)), "On(..)");
/// # Ok::<(), Fault>(())
/// ```
///
/// A job that blocks holds one of the runtime's threads; what blocks belongs into
/// `tokio::task::spawn_blocking` or [`blocking`](crate::blocking). Dropping the executor drops the
/// jobs that are left, at their next `await`, and waits for nothing.
pub struct TokioExecutor {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl TokioExecutor {
    /// A runtime with `workers` threads: as many as the host has said
    /// ([`Config::workers`](crate::Config::workers)).
    ///
    /// # Errors
    ///
    /// What the operating system says when it gives no threads.
    pub fn new(workers: NonZeroUsize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers.get())
            .thread_name("plugin-tokio")
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime) })
    }
}

impl Executor for TokioExecutor {
    fn spawn(&self, work: BoxFuture<()>) -> io::Result<()> {
        let runtime = self.runtime.as_ref().ok_or_else(|| io::Error::other("shut down"))?;
        drop(runtime.spawn(work));
        Ok(())
    }

    fn enter(&self, work: &mut dyn FnMut()) {
        let _entered = self.runtime.as_ref().map(Runtime::enter);
        work();
    }
}

impl Drop for TokioExecutor {
    fn drop(&mut self) {
        // The last handle may go on a thread of a runtime, which must not wait for another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for TokioExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokioExecutor").finish_non_exhaustive()
    }
}
