//! A journal that cannot take a record now: who hears of it, and how the run goes on.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use fsm_core::{
    Data, Ending, Hosted, Journal, JournalError, JournalErrorKind, MemoryJournal, RunEvent,
    Runtime, RuntimeErrorKind,
    testing::{Intercepted, ManualEnvironment},
};

use self::support::{
    id,
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
        let full = Arc::new(AtomicBool::new(false));
        let says = Arc::clone(&full);
        let journal = Intercepted::new(MemoryJournal::new(), move |journal, records| {
            let full = says.load(Ordering::SeqCst) && !records.is_empty();
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
}

#[test]
fn a_run_goes_on_by_itself_once_there_is_space_again() {
    let medium = Medium::new();
    let run = medium.begin();
    assert_eq!(medium.environment.block_on(run.end()).unwrap_err().kind(), FULL);
    assert!(medium.events.count(|event| matches!(event, RunEvent::Stalled(_))) >= 1);
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
