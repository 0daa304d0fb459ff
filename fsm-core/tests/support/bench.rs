//! A runtime whose tasks are counted and whose places are few.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use fsm_core::{
    AnyMachine, Data, Graph, Hosted, Journal, Outcome, Port, RunHandle, Runtime, StepCall,
    StepKind, testing::ManualEnvironment,
};
use futures::future::BoxFuture;

use super::{
    counted::Counted,
    desk::{Desk, Order},
    id, lying,
    parent::Parent,
    world::{Job, World},
};

pub(crate) struct Bench {
    pub(crate) environment: Counted,
    pub(crate) runtime: Runtime,
    pub(crate) world: World,
}

pub(crate) fn bench(journal: impl Journal, concurrency: usize) -> Bench {
    bench_at(journal, concurrency, ManualEnvironment::default())
}

pub(crate) fn bench_at(
    journal: impl Journal,
    concurrency: usize,
    environment: ManualEnvironment,
) -> Bench {
    let (environment, world) = (Counted::new(environment), World::default());
    let runtime = Runtime::builder(journal, environment.clone()).concurrency(concurrency).build();
    runtime.register(Hosted::new(Job, world.clone()), "tests 1").unwrap();
    runtime.register(Hosted::new(Desk, world.clone()), "tests 1").unwrap();
    runtime.register(Hosted::new(Parent, world.clone()), "tests 1").unwrap();
    Bench { environment, runtime, world }
}

impl Bench {
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.environment.environment.block_on(future)
    }

    pub(crate) fn settle(&self) {
        self.environment.environment.run_until_stalled();
    }

    pub(crate) fn begin(
        &self,
        run: &str,
        machine: &str,
        input: &impl serde::Serialize,
    ) -> RunHandle {
        let input = Data::encode(input).unwrap();
        self.block_on(self.runtime.start(id(run), machine, input)).unwrap()
    }

    pub(crate) fn order(&self, run: &str) {
        self.block_on(self.runtime.tell(&id(run), "order", &Order(1))).unwrap();
    }

    pub(crate) fn state(&self, run: &str) -> String {
        self.block_on(self.runtime.inspect(&id(run))).unwrap().unwrap().state
    }
}

/// A machine of one step that counts how many are at work.
pub(crate) struct Busy {
    graph: Graph,
    now: Arc<AtomicUsize>,
    /// How many there were at most at a time.
    pub(crate) most: Arc<AtomicUsize>,
    /// Whose steps have begun.
    pub(crate) order: Arc<Mutex<Vec<String>>>,
    /// Whether steps that are at work stay there.
    pub(crate) hangs: Arc<AtomicBool>,
}

impl Busy {
    pub(crate) fn new(name: &str) -> Self {
        let mut graph =
            lying::graph("work", vec![lying::state("work", &["done"]), lying::state("done", &[])]);
        graph.machine = name.to_owned();
        let (now, most, order, hangs) = Default::default();
        Busy { graph, now, most, order, hangs }
    }
}

struct AtWork(Arc<AtomicUsize>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AnyMachine for Busy {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn step(&self, call: StepCall, _: Arc<dyn Port>) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            if call.kind != StepKind::Run {
                return fsm_core::Fault::cancelled().into();
            }
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            let _at_work = AtWork(Arc::clone(&self.now));
            self.most.fetch_max(now, Ordering::SeqCst);
            self.order.lock().unwrap().push(call.run.to_string());
            for _ in 0..5 {
                super::process::breathe().await;
            }
            while self.hangs.load(Ordering::SeqCst) {
                futures::future::pending::<()>().await;
            }
            lying::to("done")
        })
    }

    fn migrate(
        &self,
        _: u32,
        state: String,
        data: Data,
    ) -> BoxFuture<'_, Result<(String, Data), fsm_core::Fault>> {
        Box::pin(async { Ok((state, data)) })
    }
}
