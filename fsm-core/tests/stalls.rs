//! A journal that cannot take a record now, or cannot be read: who hears of it, and how the run goes on.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fsm_core::{
    Body, Data, Ending, Hosted, Journal, JournalError, JournalErrorKind, Loaded, MemoryJournal,
    Page, Pruned, Record, Retention, RunEvent, RunId, RunSnapshot, RunSummary, Runtime,
    RuntimeErrorKind, Timestamp,
    testing::{Intercepted, ManualEnvironment},
};
use futures::future::{BoxFuture, ready};

use self::support::{
    desk::{Desk, Order, Prepare},
    id,
    parent::{Parent, Raise, Then},
    process::Events,
    world::{Job, Work, World},
};

const FULL: RuntimeErrorKind = RuntimeErrorKind::Journal(JournalErrorKind::Full);

/// A medium that has no space as long as `full` says so.
struct Medium {
    full: Arc<AtomicBool>,
    environment: ManualEnvironment,
    runtime: Runtime,
    world: World,
    events: Events,
}

impl Medium {
    fn new() -> Self {
        Medium::without_space_for(|_| true)
    }

    /// A medium that refuses such records alone.
    fn without_space_for(refused: impl Fn(&Record) -> bool + Send + Sync + 'static) -> Self {
        let full = Arc::new(AtomicBool::new(false));
        let says = Arc::clone(&full);
        let journal = Intercepted::new(MemoryJournal::new(), move |journal, records| {
            let full = says.load(Ordering::SeqCst) && records.iter().any(&refused);
            async move {
                match full {
                    true => Err(JournalError::new(JournalErrorKind::Full, "the test's medium")),
                    false => journal.append(records).await,
                }
            }
        });
        let (environment, events) = (ManualEnvironment::default(), Events::default());
        let runtime =
            Runtime::builder(journal, environment.clone()).observer(events.clone()).build();
        let world = World::default();
        runtime.register(Hosted::new(Job, world.clone()), "tests 1").unwrap();
        runtime.register(Hosted::new(Desk, world.clone()), "tests 1").unwrap();
        runtime.register(Hosted::new(Parent, world.clone()), "tests 1").unwrap();
        Medium { full, environment, runtime, world, events }
    }

    fn begin(&self) -> fsm_core::RunHandle {
        let work = Work::default();
        let start = self.runtime.begin::<Job>(id("r"), &work);
        let run = self.environment.block_on(start).unwrap();
        self.full.store(true, Ordering::SeqCst);
        self.environment.run_until_stalled();
        run
    }

    /// Begins a parent `p` of two children that wait, `p/1/a` and `p/1/b`.
    fn begin_family(&self, then: Then) {
        let waits = || Prepare::Serve { orders: 1 };
        let raise = Raise::new(&[("a", waits()), ("b", waits())], then);
        self.environment.block_on(self.runtime.begin::<Parent>(id("p"), &raise)).unwrap();
        self.environment.run_until_stalled();
        self.full.store(true, Ordering::SeqCst);
    }

    /// There is space again, and a minute passes.
    fn free(&self) {
        self.full.store(false, Ordering::SeqCst);
        for _ in 0..60 {
            self.environment.advance(Duration::from_secs(1));
            self.environment.run_until_stalled();
        }
    }

    fn ending(&self, run: &str) -> Option<Ending> {
        let snapshot = self.environment.block_on(self.runtime.inspect(&id(run)));
        snapshot.unwrap().unwrap().end().map(|end| end.ending)
    }
}

/// Whether `record` asks the run `p/1/b` to stop.
fn stops_b(record: &Record) -> bool {
    record.run == id("p/1/b") && matches!(record.body, Body::Cancel { .. })
}

#[test]
fn a_child_that_cannot_be_asked_to_stop_keeps_the_edge_of_its_parent_waiting() {
    let medium = Medium::without_space_for(stops_b);
    medium.begin_family(Then::Toil);
    medium.environment.block_on(medium.runtime.cancel(&id("p"), "a test asks")).unwrap();
    medium.environment.run_until_stalled();
    medium.free();
    assert_eq!(medium.ending("p/1/b"), Some(Ending::Cancelled));
    assert_eq!(medium.ending("p"), Some(Ending::Completed));
}

#[test]
fn a_child_that_cannot_be_asked_to_stop_when_its_parent_ends_is_asked_later() {
    let medium = Medium::without_space_for(stops_b);
    medium.begin_family(Then::Watch);
    medium.environment.block_on(medium.runtime.abandon(&id("p"), "a test asks")).unwrap();
    medium.environment.run_until_stalled();
    assert_eq!(medium.ending("p/1/a"), Some(Ending::Cancelled));
    assert_eq!(medium.ending("p/1/b"), None);
    medium.free();
    assert_eq!(medium.ending("p/1/b"), Some(Ending::Cancelled));
}

#[test]
fn a_run_goes_on_by_itself_once_there_is_space_again() {
    let medium = Medium::new();
    let run = medium.begin();
    assert_eq!(medium.environment.block_on(run.end()).unwrap_err().kind(), FULL);
    let why = |event: &RunEvent| matches!(event, RunEvent::Stalled(why) if why.contains("no space is left"));
    assert!(medium.events.count(why) >= 1, "{:?}", medium.events.all());
    for _ in 0..5 {
        assert!(medium.environment.advance_to_next(), "it tries again");
        medium.environment.run_until_stalled();
    }
    medium.full.store(false, Ordering::SeqCst);
    assert!(medium.environment.advance_to_next());
    medium.environment.run_until_stalled();
    let end = medium.environment.block_on(medium.runtime.inspect(&id("r")));
    assert_eq!(end.unwrap().unwrap().end().unwrap().ending, Ending::Completed);
    assert!(medium.world.said("work 1") >= 2, "the step whose record was refused ran again");
}

#[test]
fn whoever_attaches_or_recovers_does_not_have_to_wait() {
    for recovers in [false, true] {
        let medium = Medium::new();
        medium.begin();
        medium.full.store(false, Ordering::SeqCst);
        let end = medium.environment.block_on(async {
            if recovers {
                medium.runtime.recover().await.unwrap();
            }
            let run = medium.runtime.attach(&id("r")).await.unwrap();
            run.end().await.unwrap()
        });
        assert_eq!(end.ending, Ending::Completed);
    }
}

#[test]
fn what_is_asked_of_it_meanwhile_is_refused_with_the_reason() {
    let medium = Medium::new();
    medium.begin();
    let (runtime, r) = (&medium.runtime, id("r"));
    let signalled = runtime.signal(&r, "1", "greeting", Data::default());
    let error = medium.environment.block_on(signalled).unwrap_err();
    assert_eq!(error.kind(), FULL);
    assert!(error.is_retryable());
    let cancelled = medium.environment.block_on(runtime.cancel(&r, "a test asks"));
    assert_eq!(cancelled.unwrap_err().kind(), FULL);
    medium.full.store(false, Ordering::SeqCst);
    let run = medium.environment.block_on(runtime.cancel(&r, "a test asks")).unwrap();
    assert_eq!(medium.environment.block_on(run.end()).unwrap().ending, Ending::Cancelled);
}

#[test]
fn a_run_whose_time_has_come_is_read_again_when_the_journal_is_not_busy_any_more() {
    let busy = Arc::new(AtomicBool::new(false));
    let journal = Busy { memory: MemoryJournal::new(), busy: Arc::clone(&busy) };
    let environment = ManualEnvironment::default();
    let runtime = Runtime::builder(journal, environment.clone()).build();
    runtime.register(Hosted::new(Job, World::default()), "tests 1").unwrap();
    let work = Work { rest_secs: Some(60), ..Work::default() };
    environment.block_on(runtime.begin::<Job>(id("r"), &work)).unwrap();
    environment.run_until_stalled();
    busy.store(true, Ordering::SeqCst);
    environment.advance(Duration::from_secs(60));
    environment.run_until_stalled();
    busy.store(false, Ordering::SeqCst);
    environment.advance(Duration::from_secs(60));
    environment.run_until_stalled();
    let states = environment.block_on(runtime.history(&id("r"))).unwrap();
    let states = states.iter().filter_map(|record| match &record.body {
        Body::Enter { state, .. } => Some(state.as_str()),
        _ => None,
    });
    assert_eq!(states.collect::<Vec<_>>(), ["work", "rest", "done"], "nothing was interrupted");
}

#[test]
fn a_recovery_that_fails_half_way_loses_no_relatives_when_it_is_tried_again() {
    let (memory, environment) = (MemoryJournal::new(), ManualEnvironment::default());
    let process = |busy: &Arc<AtomicBool>| {
        let journal = Busy { memory: memory.clone(), busy: Arc::clone(busy) };
        let runtime = Runtime::builder(journal, environment.clone()).build();
        runtime.register(Hosted::new(Desk, World::default()), "tests 1").unwrap();
        runtime.register(Hosted::new(Parent, World::default()), "tests 1").unwrap();
        runtime
    };
    let waits = || Prepare::Serve { orders: 1 };
    let busy = Arc::new(AtomicBool::new(false));
    let first = process(&busy);
    environment.block_on(async {
        let raise = Raise::new(&[("a", waits())], Then::Watch);
        first.begin::<Parent>(id("p"), &raise).await.unwrap();
        // More than are read at a time.
        for number in 0..600 {
            first.begin::<Desk>(id(&format!("q{number}")), &waits()).await.unwrap();
        }
    });
    environment.run_until_stalled();
    environment.drop_tasks();
    // The child ends while its parent is not here.
    let second = process(&busy);
    environment.block_on(second.tell(&id("p/1/a"), "order", &Order(1))).unwrap();
    environment.run_until_stalled();
    environment.drop_tasks();

    let third = process(&busy);
    busy.store(true, Ordering::SeqCst);
    assert!(environment.block_on(third.recover()).unwrap_err().is_retryable());
    busy.store(false, Ordering::SeqCst);
    assert_eq!(environment.block_on(third.recover()).unwrap().runs, 601);
    environment.run_until_stalled();
    let parent = environment.block_on(third.inspect(&id("p"))).unwrap().unwrap();
    assert_eq!(parent.end().map(|end| end.ending), Some(Ending::Completed));
}

/// A journal that cannot be read as long as `busy` says so, but for a first page.
struct Busy {
    memory: MemoryJournal,
    busy: Arc<AtomicBool>,
}

impl Journal for Busy {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), JournalError>> {
        self.memory.append(records)
    }

    fn load(&self, run: &RunId) -> BoxFuture<'static, Result<Option<RunSnapshot>, JournalError>> {
        if self.busy.load(Ordering::SeqCst) {
            let error = JournalError::new(JournalErrorKind::Busy, run.as_str());
            return Box::pin(ready(Err(error)));
        }
        self.memory.load(run)
    }

    fn unfinished(
        &self,
        after: Option<&RunId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Loaded>, JournalError>> {
        if after.is_some() && self.busy.load(Ordering::SeqCst) {
            return Box::pin(ready(Err(JournalError::new(JournalErrorKind::Busy, "a page"))));
        }
        self.memory.unfinished(after, limit)
    }

    fn list(&self, page: Page) -> BoxFuture<'static, Result<Vec<RunSummary>, JournalError>> {
        self.memory.list(page)
    }

    fn history(&self, run: &RunId) -> BoxFuture<'static, Result<Vec<Record>, JournalError>> {
        self.memory.history(run)
    }

    fn head(&self, run: &RunId) -> BoxFuture<'static, Result<Option<u64>, JournalError>> {
        self.memory.head(run)
    }

    fn prune(
        &self,
        retention: Retention,
        now: Timestamp,
    ) -> BoxFuture<'static, Result<Pruned, JournalError>> {
        self.memory.prune(retention, now)
    }
}

#[test]
fn a_run_of_another_machine_is_not_handed_out() {
    let medium = Medium::new();
    let input = Data::encode(&Work::default()).unwrap();
    medium.environment.block_on(async {
        medium.runtime.start(id("r"), "job", input.clone()).await.unwrap();
        let error = medium.runtime.start(id("r"), "walk", input).await.unwrap_err();
        assert_eq!(error.kind(), RuntimeErrorKind::OtherMachine);
        assert!(error.to_string().contains("of `job`, not of `walk`"), "{error}");
    });
}
