//! The lines: which calls wait for the steps of which operation.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::OwnedFd,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fsm_core::Fault;
use plugin_sdk::{IncomingCall, OperationId};
use tokio::sync::Notify;

use super::waiting::Waiting;

/// The calls that wait, by the operation whose steps they wait for.
///
/// An operation has a line for as long as it has a task.
#[derive(Debug, Default)]
pub(crate) struct Callers(Mutex<BTreeMap<OperationId, Line>>);

#[derive(Debug, Default)]
struct Line {
    /// The call that the operation was made of.
    own: Option<Arc<Waiting>>,
    /// Those that are attached to it, in order.
    attached: VecDeque<Arc<Waiting>>,
    /// Somebody has come into the line.
    news: Arc<Notify>,
    /// Why the operation is cancelled, if that is a caller's doing.
    why: Option<Fault>,
}

impl Callers {
    /// Opens the line of an operation.
    pub(crate) fn open(&self, operation: &OperationId) {
        self.lock().entry(operation.clone()).or_default();
    }

    /// Opens the line of an operation that was made of a call.
    pub(crate) fn open_for(&self, operation: &OperationId, own: Arc<Waiting>) {
        self.lock().entry(operation.clone()).or_default().own = Some(own);
    }

    /// Closes the line of an operation: its steps take no calls any more.
    pub(crate) fn close(&self, operation: &OperationId) {
        let Some(line) = self.lock().remove(operation) else { return };
        for waiting in line.own.iter().chain(&line.attached) {
            waiting.is_unserved();
        }
        line.news.notify_waiters();
    }

    /// Puts a call into the line of an operation; false if that has none.
    pub(crate) fn attach(&self, operation: &OperationId, waiting: &Arc<Waiting>) -> bool {
        let mut lines = self.lock();
        let Some(line) = lines.get_mut(operation) else { return false };
        line.attached.push_back(Arc::clone(waiting));
        line.news.notify_one();
        true
    }

    /// Takes a call that came to nothing out of the line again.
    pub(crate) fn forget(&self, operation: &OperationId, waiting: &Arc<Waiting>) {
        if let Some(line) = self.lock().get_mut(operation) {
            line.attached.retain(|other| !Arc::ptr_eq(other, waiting));
            line.own.take_if(|own| Arc::ptr_eq(own, waiting));
        }
    }

    /// Says why an operation that has a line is being cancelled.
    pub(crate) fn explain(&self, operation: &OperationId, why: Fault) {
        if let Some(line) = self.lock().get_mut(operation) {
            line.why.get_or_insert(why);
        }
    }

    /// Why the operation was cancelled, if that was a caller's doing.
    pub(crate) fn why(&self, operation: &OperationId) -> Option<Fault> {
        self.lock().get(operation)?.why.clone()
    }

    /// Takes the call that the operation was made of.
    pub(crate) fn own(&self, operation: &OperationId) -> Result<(IncomingCall, OwnedFd), Fault> {
        let own = self.lock().get_mut(operation).and_then(|line| line.own.take());
        own.and_then(|own| own.take()).ok_or_else(lost)
    }

    /// Takes the next call that is attached to the operation, once there is one. A dropped future
    /// takes none.
    pub(crate) async fn next(
        &self,
        operation: &OperationId,
    ) -> Result<(IncomingCall, OwnedFd), Fault> {
        loop {
            let news = {
                let lines = self.lock();
                let line = lines.get(operation).ok_or_else(lost)?;
                Arc::clone(&line.news)
            };
            let mut told = pin!(news.notified());
            // From here on nothing is missed.
            told.as_mut().enable();
            match self.first(operation) {
                None => return Err(lost()),
                Some(Some(taken)) => return Ok(taken),
                Some(None) => told.await,
            }
        }
    }

    /// Takes the first that still waits; `None` if there is no such line.
    #[allow(clippy::option_option, reason = "no line and nobody in it are two things")]
    fn first(&self, operation: &OperationId) -> Option<Option<(IncomingCall, OwnedFd)>> {
        loop {
            let waiting = self.lock().get_mut(operation)?.attached.pop_front();
            match waiting.map(|waiting| waiting.take()) {
                None => return Some(None),
                // It has hung up meanwhile.
                Some(None) => {}
                Some(taken) => return Some(taken),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OperationId, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lost() -> Fault {
    Fault::permanent("call.lost", "there is no call to take over")
        .advise("have the workload call again")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use fsm_core::{Environment, testing::ManualEnvironment};
    use futures::future::FutureExt;
    use plugin_sdk::Peer;
    use tokio::{net::UnixStream, sync::Semaphore};

    use super::*;

    fn waiting(name: &str) -> (UnixStream, Arc<Waiting>) {
        let (caller, here) = UnixStream::pair().unwrap();
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let call = IncomingCall::new(OperationId::new(name), "door", Peer::new(0, 0, 0), "");
        let time: Arc<dyn Environment> = Arc::new(ManualEnvironment::default());
        (caller, Waiting::new(call, here, place, &time))
    }

    fn nightly() -> OperationId {
        OperationId::new("nightly")
    }

    #[tokio::test]
    async fn steps_take_calls_in_their_order_and_each_of_them_once() {
        let callers = Callers::default();
        callers.open(&nightly());
        let calls: Vec<_> = ["a", "b", "c"].into_iter().map(waiting).collect();
        for (_, waiting) in &calls {
            assert!(callers.attach(&nightly(), waiting));
        }
        assert!(calls[1].1.give_up().is_some(), "`b` has hung up");
        for expected in ["a", "c"] {
            let (call, _) = callers.next(&nightly()).await.unwrap();
            assert_eq!(call.id.as_str(), expected);
        }
        assert!(callers.next(&nightly()).now_or_never().is_none());
        assert_eq!(callers.own(&nightly()).unwrap_err().code(), "call.lost");
    }

    #[tokio::test]
    async fn a_step_that_does_not_wait_any_longer_takes_no_call() {
        let callers = Callers::default();
        callers.open(&nightly());
        let operation = nightly();
        let mut given_up = Box::pin(callers.next(&operation));
        let mut waits = Box::pin(callers.next(&operation));
        assert!((&mut given_up).now_or_never().is_none() && (&mut waits).now_or_never().is_none());
        let (_caller, call) = waiting("call");
        assert!(callers.attach(&nightly(), &call));
        // The news had gone to this one.
        drop(given_up);
        let (taken, _) = waits.now_or_never().expect("it is passed on").unwrap();
        assert_eq!(taken.id.as_str(), "call");
    }

    #[tokio::test]
    async fn with_its_operation_a_line_closes_for_both_sides() {
        let callers = Callers::default();
        let (_caller, call) = waiting("call");
        let (_other, own) = waiting("own");
        assert!(!callers.attach(&nightly(), &call), "there is no such operation yet");
        callers.open_for(&nightly(), Arc::clone(&own));
        assert!(callers.attach(&nightly(), &call));
        let (_third, taken) = waiting("taken");
        assert!(callers.attach(&nightly(), &taken));
        callers.next(&nightly()).await.unwrap();
        callers.forget(&nightly(), &taken);
        let operation = nightly();
        let mut waits = Box::pin(callers.next(&operation));
        assert!((&mut waits).now_or_never().is_none());
        callers.close(&nightly());
        assert_eq!(waits.await.unwrap_err().code(), "call.lost");
        assert_eq!(own.over().await, super::super::Over::Unserved);
        callers.explain(&nightly(), Fault::cancelled());
        assert!(callers.why(&nightly()).is_none() && !callers.attach(&nightly(), &call));
    }
}
