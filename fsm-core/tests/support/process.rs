//! A process that runs machines over a medium, and can die.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fsm_core::{
    Body, Data, End, Hosted, Machine, Observer, Record, RunEvent, RunHandle, RunId, RunSnapshot,
    Runtime, RuntimeError, testing::ManualEnvironment,
};
use futures::FutureExt;

use super::{id, medium::Medium, world::World};

pub(crate) struct Process {
    pub(crate) environment: ManualEnvironment,
    pub(crate) runtime: Runtime,
    pub(crate) events: Events,
}

#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<(RunId, RunEvent)>>>);

impl Observer for Events {
    fn observe(&self, run: &RunId, event: RunEvent) {
        self.0.lock().unwrap().push((run.clone(), event));
    }
}

impl Events {
    pub(crate) fn all(&self) -> Vec<(RunId, RunEvent)> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, matches: impl Fn(&RunEvent) -> bool) -> usize {
        self.all().iter().filter(|(_, event)| matches(event)).count()
    }
}

impl Process {
    pub(crate) fn start(medium: &Medium) -> Self {
        Process::start_at(medium, ManualEnvironment::default())
    }

    pub(crate) fn start_at(medium: &Medium, environment: ManualEnvironment) -> Self {
        let events = Events::default();
        let runtime = Runtime::builder(medium.open(), environment.clone())
            .cancel_grace(Duration::from_secs(30))
            .observer(events.clone())
            .build();
        Process { environment, runtime, events }
    }

    pub(crate) fn with<M: Machine<Host = World>>(self, machine: M, world: &World) -> Self {
        self.runtime.register(Hosted::new(machine, world.clone()), "tests 1").unwrap();
        self
    }

    /// The process dies: its tasks stop where they are. Its clock goes on.
    pub(crate) fn die(self) -> ManualEnvironment {
        self.environment.drop_tasks();
        self.environment
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.environment.block_on(future)
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

    pub(crate) fn attach(&self, run: &str) -> Result<RunHandle, RuntimeError> {
        self.block_on(self.runtime.attach(&id(run)))
    }

    pub(crate) fn cancel(&self, run: &str) -> RunHandle {
        self.block_on(self.runtime.cancel(&id(run), "a test asks")).unwrap()
    }

    /// Lets tasks run until `condition` holds. Time stands still.
    pub(crate) fn until(&self, mut condition: impl FnMut() -> bool) {
        let mut rounds = 0;
        while !condition() {
            rounds += 1;
            assert!(rounds < 61_000, "it never comes");
            self.block_on(breathe());
            // A journal with a thread and a disk of its own may need a while.
            if rounds > 1_000 {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
    }

    /// Lets tasks run until all of them wait for a time.
    pub(crate) fn until_asleep(&self) {
        let environment = self.environment.clone();
        self.until(move || environment.next_wake().is_some());
    }

    /// The run's end, without any time passing.
    pub(crate) fn end(&self, handle: &RunHandle) -> End {
        let (mut end, mut ended) = (Box::pin(handle.end()), None);
        self.until(|| {
            ended = (&mut end).now_or_never();
            ended.is_some()
        });
        ended.unwrap().unwrap()
    }

    /// The run's end; whenever everybody sleeps, time moves on to the first who wakes.
    pub(crate) fn end_in_time(&self, handle: &RunHandle) -> End {
        let (mut end, mut ended) = (Box::pin(handle.end()), None);
        self.until(|| {
            ended = (&mut end).now_or_never();
            // Whoever is about to sleep goes to sleep first.
            if ended.is_none() {
                self.block_on(breathe());
                self.environment.advance_to_next();
            }
            ended.is_some()
        });
        ended.unwrap().unwrap()
    }

    pub(crate) fn inspect(&self, run: &str) -> RunSnapshot {
        self.block_on(self.runtime.inspect(&id(run))).unwrap().unwrap()
    }

    pub(crate) fn history(&self, run: &str) -> Vec<Record> {
        self.block_on(self.runtime.history(&id(run))).unwrap()
    }

    /// The states that the run entered, in order.
    pub(crate) fn states(&self, run: &str) -> Vec<String> {
        let entered = |record: Record| match record.body {
            Body::Enter { state, .. } => Some(state),
            _ => None,
        };
        self.history(run).into_iter().filter_map(entered).collect()
    }

    /// The kinds of the run's records, in order.
    pub(crate) fn kinds(&self, run: &str) -> Vec<&'static str> {
        self.history(run).iter().map(|record| record.body.kind()).collect()
    }
}

/// Lets others run, threads too.
pub(crate) async fn breathe() {
    for _ in 0..8 {
        let mut yielded = false;
        futures::future::poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return std::task::Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
    }
    std::thread::yield_now();
}
