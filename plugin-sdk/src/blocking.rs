//! Code that blocks, while its request is served on.

use std::fmt;
use std::future::Future;

use fsm_core::{Cancellation, Fault};
use futures::channel::oneshot;

use crate::abi::{Executor, contain, own, wait};

/// What a blocking function has of its request.
///
/// See [`blocking`].
pub struct Blocking {
    abandoned: Cancellation,
}

impl Blocking {
    /// Waits for a future, on this thread: for a buffer of a [`Sink`](crate::Sink), say.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        wait(future)
    }

    /// Whether nobody waits for the function any more. One that takes long should look now and
    /// then, and return.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.is_requested()
    }
}

impl fmt::Debug for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").field("is_abandoned", &self.is_abandoned()).finish()
    }
}

/// Runs a function that blocks on a thread of the plugin's own, and waits for it without blocking.
///
/// A step has a thread of its own already ([`Place::Own`](crate::abi::Place::Own)), and may block
/// it. This is for a step that does more than one thing at a time, or that runs on an executor of
/// its author's: what else it awaits goes on meanwhile. Sinks and sources can be moved into the
/// function and back out of it.
///
/// ```
/// # futures::executor::block_on(async {
/// use plugin_sdk::{Fault, blocking};
///
/// let sum = blocking(|_| Ok((1..=100_u32).sum::<u32>())).await?;
/// assert_eq!(sum, 5050);
/// # Ok::<(), Fault>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// The function's own fault. A [`Bug`](fsm_core::Class::Bug) fault if it panics; a
/// [`Retryable`](fsm_core::Class::Retryable) one if there is no thread for it.
///
/// # Cancel safety
///
/// The function cannot be stopped: when the future is dropped it goes on, and can see that nobody
/// waits ([`Blocking::is_abandoned`]). What it returns then is dropped.
pub async fn blocking<T, W>(work: W) -> Result<T, Fault>
where
    T: Send + 'static,
    W: FnOnce(&Blocking) -> Result<T, Fault> + Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let cancel = Cancellation::new();
    let blocking = Blocking { abandoned: cancel.clone() };
    let run = Box::pin(async move {
        // Nobody listens if it was abandoned.
        let _ = tell.send(contain(move || work(&blocking)));
    });
    own().spawn(run).map_err(|error| {
        Fault::retryable("blocking.thread", "there is no thread for a blocking function")
            .caused_by(&error)
    })?;
    let _abandons = Abandons(cancel);
    match told.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            Err(Fault::bug("blocking.panic", format!("a blocking function panicked: {panic}")))
        }
        Err(_) => Err(Fault::bug("blocking.lost", "a blocking function was never run")),
    }
}

/// Tells the function that nobody waits any more.
struct Abandons(Cancellation);

impl Drop for Abandons {
    fn drop(&mut self) {
        self.0.request();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::executor::block_on;
    use futures::future::join;

    use super::*;

    #[test]
    fn what_else_is_awaited_goes_on_while_a_function_blocks() {
        let (open, gate) = mpsc::channel();
        let both = join(
            blocking(move |_| {
                gate.recv().map_err(|_| Fault::bug("test", "the gate is gone"))?;
                Ok(std::thread::current().name().map(ToOwned::to_owned))
            }),
            async move { open.send(()).expect("the function waits") },
        );
        let (name, ()) = block_on(both);
        assert_eq!(name.expect("no fault").as_deref(), Some("plugin-job"));
    }

    #[test]
    fn a_function_waits_for_futures_also_within_a_wait() {
        let waited = blocking(|cx| {
            let inner = cx.wait(blocking(|cx| Ok(cx.wait(std::future::ready(7)))));
            inner.map(|seven| seven + 1)
        });
        assert_eq!(block_on(waited).expect("no fault"), 8);
    }

    #[test]
    fn a_panic_is_a_fault_and_an_abandoned_function_can_tell() {
        let fault = block_on(blocking::<(), _>(|_| panic!("row {}", 7))).expect_err("a fault");
        assert_eq!((fault.code(), fault.message().contains("row 7")), ("blocking.panic", true));
        let (tell, told) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        let work = blocking(move |cx| {
            let _ = gate.recv();
            tell.send(cx.is_abandoned()).expect("the test listens");
            Ok(())
        });
        let mut work = Box::pin(work);
        assert!(futures::FutureExt::now_or_never(&mut work).is_none());
        drop(work);
        open.send(()).expect("the function waits");
        assert!(told.recv().expect("it tells"));
    }
}
