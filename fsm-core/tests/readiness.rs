//! A host that is not ready yet for a run's next step.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fsm_core::{
    AnyMachine, Data, Ending, Fault, Graph, MemoryJournal, Outcome, Port, Retry, RunId,
    RuntimeErrorKind, StepCall, StepKind,
};
use futures::future::{BoxFuture, poll_fn};

use self::support::{
    bench::{Bench, bench},
    id, lying,
};

/// A machine whose host is ready when it is told to be.
struct Gated {
    graph: Graph,
    ready: Arc<AtomicBool>,
    steps: Arc<AtomicUsize>,
    panics: bool,
}

impl AnyMachine for Gated {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn ready<'a>(&'a self, _: &'a RunId) -> BoxFuture<'a, ()> {
        assert!(!self.panics, "as a test wants it");
        Box::pin(poll_fn(|_| match self.ready.load(Ordering::SeqCst) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }))
    }

    fn step(&self, call: StepCall, _: Arc<dyn Port>) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            if call.kind != StepKind::Run {
                return Fault::cancelled().into();
            }
            self.steps.fetch_add(1, Ordering::SeqCst);
            lying::to("done")
        })
    }

    fn migrate(
        &self,
        _: u32,
        state: String,
        data: Data,
    ) -> BoxFuture<'_, Result<(String, Data), Fault>> {
        Box::pin(async { Ok((state, data)) })
    }
}

/// A runtime with such a machine, whose state has one attempt and a minute for it.
fn gated() -> (Bench, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let bench = bench(MemoryJournal::new(), 4);
    let mut work = lying::state("work", &["done"]);
    work.retry = Retry::times(1).attempt_timeout(Duration::from_secs(60));
    let mut graph = lying::graph("work", vec![work, lying::state("done", &[])]);
    graph.machine = "gated".to_owned();
    let (ready, steps): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
    let panics = false;
    let machine = Gated { graph, ready: Arc::clone(&ready), steps: Arc::clone(&steps), panics };
    bench.runtime.register(machine, "gated 1").unwrap();
    (bench, ready, steps)
}

#[test]
fn a_step_begins_when_the_host_is_ready_and_its_time_counts_from_then() {
    let (bench, ready, steps) = gated();
    let run = bench.begin("r", "gated", &());
    bench.settle();
    bench.environment.environment.advance(Duration::from_secs(3_600));
    bench.settle();
    assert_eq!(steps.load(Ordering::SeqCst), 0);
    ready.store(true, Ordering::SeqCst);
    // Whatever is asked of the run has it ask again.
    bench.block_on(bench.runtime.attach(&id("r"))).unwrap();
    assert_eq!(bench.block_on(run.end()).unwrap().ending, Ending::Completed);
    assert_eq!(steps.load(Ordering::SeqCst), 1);
}

#[test]
fn a_run_that_waits_for_its_host_can_be_paused_and_cancelled() {
    let (bench, ready, steps) = gated();
    let run = bench.begin("r", "gated", &());
    bench.settle();
    bench.block_on(bench.runtime.pause(&id("r"), "not now")).unwrap();
    ready.store(true, Ordering::SeqCst);
    bench.settle();
    assert_eq!(steps.load(Ordering::SeqCst), 0, "it waits for an operator");
    ready.store(false, Ordering::SeqCst);
    bench.block_on(bench.runtime.resume(&id("r"))).unwrap();
    bench.settle();
    bench.block_on(bench.runtime.cancel(&id("r"), "not wanted")).unwrap();
    assert_eq!(bench.block_on(run.end()).unwrap().ending, Ending::Cancelled);
    assert_eq!(steps.load(Ordering::SeqCst), 0);
}

#[test]
fn the_deadline_of_a_run_ends_its_wait_for_its_host() {
    let (bench, _, steps) = gated();
    let environment = &bench.environment.environment;
    let deadline = fsm_core::Environment::now(environment) + Duration::from_secs(60);
    let input = Data::encode(&()).unwrap();
    let start = bench.runtime.start_by(id("r"), "gated", input, deadline);
    let run = bench.block_on(start).unwrap();
    bench.settle();
    environment.advance(Duration::from_secs(60));
    assert_eq!(bench.block_on(run.end()).unwrap().ending, Ending::Cancelled);
    assert_eq!(steps.load(Ordering::SeqCst), 0);
}

#[test]
fn a_runtime_stops_although_a_host_is_not_ready() {
    let (bench, _, _) = gated();
    let run = bench.begin("r", "gated", &());
    bench.settle();
    bench.block_on(bench.runtime.stop());
    bench.block_on(run.end()).unwrap_err();
}

#[test]
fn a_host_that_panics_when_it_is_asked_is_a_matter_of_the_run_alone() {
    let bench = bench(MemoryJournal::new(), 1);
    let gated = |name: &str, panics| {
        let mut graph =
            lying::graph("work", vec![lying::state("work", &["done"]), lying::state("done", &[])]);
        graph.machine = name.to_owned();
        let (ready, steps) = (Arc::new(AtomicBool::new(true)), Arc::default());
        Gated { graph, ready, steps, panics }
    };
    bench.runtime.register(gated("gated", false), "gated 1").unwrap();
    bench.runtime.register(gated("rude", true), "gated 1").unwrap();
    let rude = bench.begin("rude", "rude", &());
    let error = bench.block_on(rude.end()).unwrap_err();
    assert_eq!(error.kind(), RuntimeErrorKind::Quarantined);
    assert_eq!(bench.runtime.quarantined()[0].0, id("rude"));
    let run = bench.begin("r", "gated", &());
    assert_eq!(bench.block_on(run.end()).unwrap().ending, Ending::Completed, "its place is free");
}
