//! What the tests share: two workloads, and futures that are polled by hand.
#![allow(dead_code, reason = "each test file uses the part that it needs")]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use throttle::{
    Acquire, AcquireError, Admission, Class, Limits, ManualClock, Permit, Policy, Priority,
    Request, Resource, Rule, Scope,
};

/// Data backups and log backups run side by side; a restore is alone.
pub(crate) fn sqlserver() -> Policy {
    Policy::new()
        .class(Class::new("data").alias("full").alias("diff"))
        .class(Class::new("log"))
        .class(Class::new("restore"))
        .rule(Scope::Item, "data/data", Rule::Wait)
        .rule(Scope::Item, "data/log", Rule::Allow)
        .rule(Scope::Item, "log/log", Rule::Wait)
        .rule(Scope::Item, "restore/*", Rule::Wait)
}

/// A second data backup is refused; restoring the system database stops the instance.
pub(crate) fn hana() -> Policy {
    Policy::new()
        .class(Class::new("data").alias("full"))
        .class(Class::new("log"))
        .class(Class::new("remedial"))
        .class(Class::new("restore"))
        .rule(Scope::Item, "data/data", Rule::reject("data-backup-running"))
        .rule(Scope::Item, "data/log", Rule::Allow)
        .rule(Scope::Item, "log/log", Rule::Allow)
        .rule(Scope::Item, "remedial>log", Rule::reject("remedial-backup-running"))
        .rule(Scope::Instance, "*/*", Rule::Allow)
        .rule(Scope::Instance, "restore/*", Rule::Wait)
}

/// An admission with both workloads.
pub(crate) fn admission(limits: Limits) -> Admission {
    on_clock(limits, &ManualClock::new())
}

pub(crate) fn on_clock(limits: Limits, clock: &ManualClock) -> Admission {
    let admission = Admission::new(limits, clock.clone());
    for (workload, policy) in [("sqlserver", sqlserver()), ("hana", hana())] {
        admission.register(workload, policy.compile().unwrap()).unwrap();
    }
    admission
}

/// Work of `class` on a database of SQL Server.
pub(crate) fn sql(owner: &str, class: &str, database: &str) -> Request {
    let item = Resource::item(format!("sqlserver/main/{database}"));
    Request::new(owner).exclusion("sqlserver", item, class).priority(Priority::Normal)
}

/// Units of the node's streams and nothing else.
pub(crate) fn streams(owner: &str, units: u32) -> Request {
    Request::new(owner).capacity(Resource::node(), "streams", units)
}

/// A future under test, and whether somebody called for it to be polled.
pub(crate) struct Task<F> {
    future: Pin<Box<F>>,
    flag: Arc<Flag>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<F: Future> Task<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future: Box::pin(future), flag: Arc::new(Flag(AtomicBool::new(false))) }
    }

    pub(crate) fn poll(&mut self) -> Poll<F::Output> {
        self.flag.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.flag));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// Whether it has been woken since it was polled.
    pub(crate) fn is_woken(&self) -> bool {
        self.flag.0.load(Ordering::SeqCst)
    }
}

/// A request that has to wait.
#[track_caller]
pub(crate) fn queue(admission: &Admission, request: Request) -> Task<Acquire> {
    let owner = request.owner().to_owned();
    let mut task = Task::new(admission.acquire(request));
    assert!(task.poll().is_pending(), "{owner} should have to wait");
    task
}

/// The permit of a request that waited, which must have been woken for it.
#[track_caller]
pub(crate) fn granted(task: &mut Task<Acquire>) -> Permit {
    assert!(task.is_woken(), "a waiter that may start must be woken");
    match task.poll() {
        Poll::Ready(Ok(permit)) => permit,
        other => panic!("should be granted: {other:?}"),
    }
}

/// The error of a request that waited.
#[track_caller]
pub(crate) fn failed(task: &mut Task<Acquire>) -> AcquireError {
    assert!(task.is_woken(), "a waiter that failed must be woken");
    match task.poll() {
        Poll::Ready(Err(error)) => error,
        other => panic!("should have failed: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn still_waits(task: &mut Task<Acquire>) {
    assert!(task.poll().is_pending(), "should still wait");
}
