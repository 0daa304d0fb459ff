//! A hundred thousand runs that wait: what each of them costs, and what a restart reads.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::{
    alloc::System,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fsm_core::{
    Body, Carried, Data, Graph, Hosted, Journal, JournalError, Loaded, Page, Pruned, Record,
    Retention, RunId, RunSnapshot, RunSummary, Runtime, Timestamp, testing::ManualEnvironment,
};
use futures::future::{BoxFuture, ready};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use self::support::{
    counted::Counted,
    desk::{Desk, Gossip},
    id,
    world::World,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What is allocated is counted over the whole program, so one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

const RUNS: usize = 100_000;
/// For what a run that waits costs beside its journal.
const BYTES_MAX: usize = 256;
/// As the runtime reads them.
const PAGE: usize = 512;

/// A journal of runs that wait, all in the same way. It keeps nothing of them in memory.
#[derive(Clone)]
struct Endless {
    entered: Body,
    pages: Arc<AtomicUsize>,
    loads: Arc<AtomicUsize>,
    writes: Arc<AtomicUsize>,
}

impl Endless {
    fn waiting_until(wake_at: Option<Timestamp>) -> Self {
        let graph = Graph::of::<Desk>();
        let entered = Body::Enter {
            entry: 2,
            machine: graph.machine.clone(),
            version: graph.version,
            origin: "tests 1".to_owned(),
            graph: graph.fingerprint(),
            state: "await".to_owned(),
            data: Data::from_bytes(br#"{"orders":1,"served":[],"watchful":false}"#.to_vec()),
            wake_at,
            carried: Box::new(Carried::default()),
        };
        let (pages, loads, writes) = Default::default();
        Endless { entered, pages, loads, writes }
    }

    fn run(number: usize) -> RunId {
        id(&format!("nightly/sqlserver-{number:06}/1"))
    }

    fn snapshot(&self, run: &RunId) -> RunSnapshot {
        let at = Timestamp::from_unix_ms(1_700_000_000_000);
        let body = self.entered.clone();
        RunSnapshot::fold([Record { run: run.clone(), seq: 2, at, body }]).unwrap()
    }

    fn counts(&self) -> (usize, usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (count(&self.pages), count(&self.loads), count(&self.writes))
    }
}

impl Journal for Endless {
    fn append(&self, _: Vec<Record>) -> BoxFuture<'static, Result<(), JournalError>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Box::pin(ready(Ok(())))
    }

    fn load(&self, run: &RunId) -> BoxFuture<'static, Result<Option<RunSnapshot>, JournalError>> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        Box::pin(ready(Ok(Some(self.snapshot(run)))))
    }

    fn unfinished(
        &self,
        after: Option<&RunId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Loaded>, JournalError>> {
        self.pages.fetch_add(1, Ordering::SeqCst);
        let number = |run: &RunId| run.as_str()[18..24].parse::<usize>().unwrap();
        let first = after.map_or(0, |after| number(after) + 1);
        let runs = (first..RUNS).take(limit).map(|number| {
            let run = Endless::run(number);
            Loaded { snapshot: Ok(self.snapshot(&run)), run }
        });
        Box::pin(ready(Ok(runs.collect())))
    }

    fn list(&self, _: Page) -> BoxFuture<'static, Result<Vec<RunSummary>, JournalError>> {
        unimplemented!("nobody lists")
    }

    fn history(&self, _: &RunId) -> BoxFuture<'static, Result<Vec<Record>, JournalError>> {
        unimplemented!("nobody reads a history")
    }

    fn head(&self, _: &RunId) -> BoxFuture<'static, Result<Option<u64>, JournalError>> {
        unimplemented!("nobody asks for a head")
    }

    fn prune(
        &self,
        _: Retention,
        _: Timestamp,
    ) -> BoxFuture<'static, Result<Pruned, JournalError>> {
        unimplemented!("nobody forgets")
    }
}

fn held(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.bytes_allocated.saturating_sub(change.bytes_deallocated)
}

struct Restarted {
    journal: Endless,
    environment: Counted,
    runtime: Runtime,
    bytes_each: usize,
}

/// A process that takes up all runs of `journal`.
fn restart(journal: Endless) -> Restarted {
    let environment = Counted::new(ManualEnvironment::default());
    let runtime = Runtime::builder(journal.clone(), environment.clone()).build();
    runtime.register(Hosted::new(Desk, World::default()), "tests 1").unwrap();
    let region = Region::new(ALLOCATOR);
    let recovered = environment.environment.block_on(runtime.recover()).unwrap();
    assert_eq!((recovered.runs, recovered.quarantined.len()), (RUNS, 0));
    environment.environment.run_until_stalled();
    let bytes_each = held(&region) / RUNS;
    Restarted { journal, environment, runtime, bytes_each }
}

#[track_caller]
fn check_cost(what: &str, bytes_each: usize) {
    println!("{what}: {bytes_each} B a run");
    assert!(bytes_each <= BYTES_MAX, "{what}: {bytes_each} B a run");
}

#[test]
fn a_run_that_waits_for_a_signal_costs_little_and_a_restart_reads_it_once() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let restarted = restart(Endless::waiting_until(None));
    check_cost("waiting for a signal", restarted.bytes_each);
    assert_eq!(restarted.journal.counts(), (RUNS / PAGE + 1, 0, 0), "pages, loads, writes");
    assert_eq!(restarted.environment.spawned(), 0);
}

#[test]
fn a_run_that_waits_for_a_time_costs_little_and_a_restart_reads_it_once() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let far = Timestamp::from_unix_ms(1_700_000_000_000) + Duration::from_secs(86_400);
    let restarted = restart(Endless::waiting_until(Some(far)));
    check_cost("waiting for a time", restarted.bytes_each);
    assert_eq!(restarted.journal.counts(), (RUNS / PAGE + 1, 0, 0), "pages, loads, writes");
    assert_eq!((restarted.environment.spawned(), restarted.environment.live()), (1, 1));
}

#[test]
fn a_run_that_was_asked_something_costs_no_more_afterwards() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let far = Timestamp::from_unix_ms(1_700_000_000_000) + Duration::from_secs(86_400);
    let Restarted { runtime, environment, bytes_each, .. } =
        restart(Endless::waiting_until(Some(far)));
    let region = Region::new(ALLOCATOR);
    for number in (0..RUNS).step_by(5) {
        let run = Endless::run(number);
        environment.environment.block_on(runtime.tell(&run, "s", &Gossip)).unwrap();
    }
    environment.environment.run_until_stalled();
    assert_eq!(environment.live(), 1, "the clock");
    check_cost("asked something", bytes_each + held(&region) / (RUNS / 5));
}
