//! What happens when two things happen at once.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use fsm_core::{
    AnyMachine, Data, Ending, Graph, MemoryJournal, Outcome, Port, Progress, RunEvent, Runtime,
    RuntimeErrorKind, StepCall,
    testing::{Intercepted, ManualEnvironment},
};
use futures::{
    channel::oneshot,
    future::{BoxFuture, join},
};

use self::support::{
    id, lying,
    medium::Medium,
    process::{Process, breathe},
};

/// A journal that writes at once, and answers write `late` only when the sender is used or dropped.
fn late(late: u32) -> (Intercepted, oneshot::Sender<()>) {
    let (release, answer) = oneshot::channel();
    let (write, answer) = (AtomicU32::new(1), Mutex::new(Some(answer)));
    let journal = Intercepted::new(MemoryJournal::new(), move |journal, records| {
        let written = journal.append(records);
        let is_late = write.fetch_add(1, Ordering::SeqCst) == late;
        let answer = is_late.then(|| answer.lock().unwrap().take()).flatten();
        async move {
            if let Some(answer) = answer {
                let _ = answer.await;
            }
            written.await
        }
    });
    (journal, release)
}

/// `work`, `other`, `done`; counts the calls.
fn counting(calls: &Arc<AtomicU32>) -> lying::Lying {
    let calls = Arc::clone(calls);
    lying::Lying::new("work", move |call, _| {
        calls.fetch_add(1, Ordering::SeqCst);
        lying::to(if call.state == "work" { "other" } else { "done" })
    })
}

fn runtime(journal: &Intercepted, calls: &Arc<AtomicU32>) -> (Runtime, ManualEnvironment) {
    let environment = ManualEnvironment::default();
    let runtime = Runtime::builder(journal.clone(), environment.clone()).build();
    runtime.register(counting(calls), "tests 1").unwrap();
    (runtime, environment)
}

#[test]
fn a_start_that_hears_late_of_its_record_does_not_run_it_again() {
    let calls = Arc::default();
    let (journal, release) = late(1);
    let (runtime, environment) = runtime(&journal, &calls);
    let start = || async {
        let handle = runtime.start(id("r"), "lying", Data::default()).await.unwrap();
        handle.end().await.unwrap()
    };
    let second = async {
        breathe().await;
        // As long as the first one waits for its answer, this one waits too.
        let (second, ()) = join(start(), async {
            for _ in 0..20 {
                breathe().await;
            }
            release.send(()).unwrap();
        })
        .await;
        second
    };
    let (first, second) = environment.block_on(join(start(), second));
    assert_eq!((first.ending, second.ending), (Ending::Completed, Ending::Completed));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn a_start_that_was_given_up_is_found_by_the_next_one() {
    let calls = Arc::default();
    let (journal, release) = late(1);
    let (runtime, environment) = runtime(&journal, &calls);
    let given_up =
        futures::FutureExt::now_or_never(runtime.start(id("r"), "lying", Data::default()));
    assert!(given_up.is_none());
    drop(release);
    let end = environment.block_on(async {
        runtime.start(id("r"), "lying", Data::default()).await.unwrap().end().await.unwrap()
    });
    assert_eq!(end.ending, Ending::Completed);
}

#[test]
fn a_stop_during_a_write_starts_no_other_step() {
    let calls = Arc::default();
    let (journal, release) = late(2);
    let (runtime, environment) = runtime(&journal, &calls);
    let handle = environment.block_on(runtime.start(id("r"), "lying", Data::default())).unwrap();
    environment.block_on(breathe());
    assert_eq!(calls.load(Ordering::SeqCst), 1, "its outcome is on its way to the journal");
    environment.block_on(join(runtime.stop(), async {
        breathe().await;
        release.send(()).unwrap();
    }));
    let error = environment.block_on(handle.end()).unwrap_err();
    assert_eq!(error.kind(), RuntimeErrorKind::Stopped);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_cancel_during_a_write_is_delivered_before_the_next_step() {
    let calls = Arc::default();
    let (journal, release) = late(2);
    let (runtime, environment) = runtime(&journal, &calls);
    let handle = environment.block_on(runtime.start(id("r"), "lying", Data::default())).unwrap();
    environment.block_on(breathe());
    let run = id("r");
    let (cancelled, ()) = environment.block_on(join(runtime.cancel(&run, "a test"), async {
        breathe().await;
        release.send(()).unwrap();
    }));
    cancelled.unwrap();
    environment.block_on(handle.end()).unwrap();
    let snapshot = environment.block_on(runtime.inspect(&run)).unwrap().unwrap();
    assert!(snapshot.carried.cancel.is_none(), "the edge for it leads to `done`");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

/// A step that never answers, panics when it is dropped, and keeps its port.
struct Rude {
    graph: Graph,
    port: Arc<Mutex<Option<Arc<dyn Port>>>>,
}

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::resume_unwind(Box::new("dropped"));
        }
    }
}

impl AnyMachine for Rude {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn step(&self, call: StepCall, port: Arc<dyn Port>) -> BoxFuture<'_, Outcome> {
        if call.kind != fsm_core::StepKind::Run {
            return Box::pin(async { lying::to("done") });
        }
        *self.port.lock().unwrap() = Some(port);
        Box::pin(async {
            let _rude = PanicsOnDrop;
            futures::future::pending().await
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

#[test]
fn a_step_that_is_no_longer_current_is_not_heard_and_may_panic() {
    let port = Arc::new(Mutex::new(None));
    let graph =
        lying::graph("work", vec![lying::state("work", &["done"]), lying::state("done", &[])]);
    let process = Process::start(&Medium::memory());
    process.runtime.register(Rude { graph, port: Arc::clone(&port) }, "tests 1").unwrap();
    process.begin("r", "lying", &());
    process.until(|| port.lock().unwrap().is_some());
    let port = port.lock().unwrap().take().unwrap();
    let progressed = || process.events.count(|event| matches!(event, RunEvent::Progressed(_)));
    port.progress(Progress::default());
    assert_eq!(progressed(), 1);

    let run = process.cancel("r");
    process.until_asleep();
    process.environment.advance(Duration::from_secs(30));
    assert_eq!(process.end(&run).ending, Ending::Completed);
    port.progress(Progress::default());
    assert_eq!(progressed(), 1);
    assert!(process.block_on(port.intent("late")).is_err());
    assert_eq!(process.kinds("r"), ["enter", "cancel", "enter", "end"]);
}
