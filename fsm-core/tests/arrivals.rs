//! A request that arrives at any moment at which a run looks at the clock, also between its last
//! look at its requests and its going to wait: it is always served.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::sync::{
    Arc, Mutex, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use fsm_core::{
    Data, End, Ending, Environment, Hosted, MemoryJournal, RunHandle, RunId, Runtime, RuntimeError,
    Timestamp, testing::ManualEnvironment,
};
use futures::{FutureExt, future::BoxFuture};

use self::support::{
    desk::{Desk, Order, Prepare},
    id,
    parent::{Parent, Raise, Then},
    world::World,
};

type Answer = BoxFuture<'static, Result<RunHandle, RuntimeError>>;
type Request = fn(Runtime, RunId) -> Answer;

/// A clock at whose n-th look somebody asks something of the run.
#[derive(Clone)]
struct Meddling {
    environment: ManualEnvironment,
    runtime: Arc<OnceLock<Runtime>>,
    looks: Arc<AtomicUsize>,
    at: usize,
    request: Request,
    answer: Arc<Mutex<Option<Answer>>>,
}

impl std::fmt::Debug for Meddling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Meddling({})", self.at)
    }
}

impl Environment for Meddling {
    fn now(&self) -> Timestamp {
        let look = self.looks.fetch_add(1, Ordering::SeqCst);
        if let Some(runtime) = self.runtime.get().filter(|_| look == self.at) {
            let mut answer = (self.request)(runtime.clone(), id("r"));
            if (&mut answer).now_or_never().is_none() {
                *self.answer.lock().unwrap() = Some(answer);
            }
        }
        self.environment.now()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        self.environment.sleep_until(at)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.environment.spawn(task);
    }

    fn random(&self) -> u64 {
        self.environment.random()
    }
}

/// How the run ends if `request` arrives at the look number `at`; `None` if it never looked so
/// often.
fn end(request: Request, at: usize, machine: &str, input: &Data) -> Option<End> {
    let environment = ManualEnvironment::default();
    let (runtime, looks, answer) = Default::default();
    let meddling = Meddling { environment, runtime, looks, at, request, answer };
    let environment = meddling.environment.clone();
    let runtime = Runtime::builder(MemoryJournal::new(), meddling.clone()).build();
    runtime.register(Hosted::new(Desk, World::default()), "tests 1").unwrap();
    runtime.register(Hosted::new(Parent, World::default()), "tests 1").unwrap();
    assert!(meddling.runtime.set(runtime.clone()).is_ok());
    let run = environment.block_on(runtime.start(id("r"), machine, input.clone())).unwrap();
    environment.run_until_stalled();
    if meddling.looks.load(Ordering::SeqCst) <= at {
        return None;
    }
    let asked = meddling.answer.lock().unwrap().take();
    if let Some(mut asked) = asked {
        let answers = (0..9).find_map(|_| {
            environment.run_until_stalled();
            (&mut asked).now_or_never()
        });
        answers.unwrap_or_else(|| panic!("asked at {at}, it is not answered")).unwrap();
        environment.run_until_stalled();
    }
    let end = run.end().now_or_never().unwrap_or_else(|| panic!("asked at {at}, it waits"));
    Some(end.unwrap())
}

#[track_caller]
fn check(request: Request, machine: &str, input: &impl serde::Serialize, ending: Ending) {
    let input = Data::encode(input).unwrap();
    let mut looks = 0;
    // The first look is that of the start, before there is a run.
    while let Some(end) = end(request, looks + 1, machine, &input) {
        assert_eq!(end.ending, ending, "asked at {looks}");
        looks += 1;
    }
    assert!(looks >= 3, "{looks} looks");
}

fn order(runtime: Runtime, run: RunId) -> Answer {
    Box::pin(async move { runtime.tell(&run, "order", &Order(1)).await })
}

fn cancel(runtime: Runtime, run: RunId) -> Answer {
    Box::pin(async move { runtime.cancel(&run, "a test asks").await })
}

fn abandon(runtime: Runtime, run: RunId) -> Answer {
    Box::pin(async move { runtime.abandon(&run, "a test asks").await })
}

fn pause_and_resume(runtime: Runtime, run: RunId) -> Answer {
    Box::pin(async move {
        runtime.pause(&run, "a test asks").await?;
        runtime.tell(&run, "order", &Order(1)).await?;
        runtime.resume(&run).await
    })
}

#[test]
fn a_signal_ends_a_wait_whenever_it_arrives() {
    check(order, "desk", &Prepare::Serve { orders: 1 }, Ending::Completed);
    check(order, "desk", &Prepare::Timed, Ending::Completed);
}

#[test]
fn a_cancel_ends_a_wait_whenever_it_arrives() {
    check(cancel, "desk", &Prepare::Serve { orders: 1 }, Ending::Cancelled);
}

#[test]
fn a_run_is_given_up_whenever_that_is_asked() {
    check(abandon, "desk", &Prepare::Serve { orders: 1 }, Ending::Abandoned);
    check(abandon, "desk", &Prepare::Timed, Ending::Abandoned);
}

#[test]
fn a_run_goes_on_whenever_it_was_paused() {
    check(pause_and_resume, "desk", &Prepare::Serve { orders: 1 }, Ending::Completed);
}

#[test]
fn a_parent_is_given_up_whenever_that_is_asked() {
    let kids = [("a", Prepare::Serve { orders: 1 })];
    check(abandon, "parent", &Raise::new(&kids, Then::Watch), Ending::Abandoned);
}
