//! The end of a runtime, asked for or not: everybody hears of it, and nothing is left behind.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fsm_core::{
    Body, Data, Ending, Environment, MemoryJournal, Runtime, RuntimeErrorKind,
    testing::{Intercepted, ManualEnvironment},
};
use futures::{FutureExt, StreamExt, channel::oneshot, future::BoxFuture};

use self::support::{
    bench::{Busy, bench, bench_at},
    desk::{Order, Prepare},
    id,
    parent::{Raise, Then},
    telling::kind,
    world::{Act, Work},
};

const WAITS: Prepare = Prepare::Serve { orders: 1 };

#[test]
fn a_stop_is_heard_by_runs_that_wait_that_are_in_line_and_that_work() {
    let bench = bench(MemoryJournal::new(), 1);
    bench.begin("job", "desk", &WAITS);
    let timed = bench.begin("timed", "desk", &Prepare::Timed);
    let parked = bench.begin("parked", "desk", &WAITS);
    bench.settle();
    bench.world.add([Act::Hang]);
    let working = bench.begin("working", "job", &Work::default());
    bench.settle();
    let queued = bench.begin("queued", "job", &Work::default());
    bench.settle();
    let mut watch = bench.runtime.watch();
    bench.block_on(bench.runtime.stop());
    bench.settle();
    assert_eq!(bench.environment.live(), 0, "not even the clock");
    for run in [timed, parked, working, queued] {
        let error = run.end().now_or_never().expect("it hears at once").unwrap_err();
        assert_eq!(error.kind(), RuntimeErrorKind::Stopped);
    }
    assert!(bench.block_on(watch.next()).is_none(), "nothing happens any more");
    assert!(bench.block_on(bench.runtime.watch().next()).is_none());
    bench.block_on(bench.runtime.stop());

    let (runtime, run) = (&bench.runtime, &id("parked"));
    let stopped = Some(RuntimeErrorKind::Stopped);
    let input = || Data::encode(&WAITS).unwrap();
    assert_eq!(kind(bench.block_on(runtime.start(id("new"), "desk", input()))), stopped);
    assert_eq!(kind(bench.block_on(runtime.attach(run))), stopped);
    assert_eq!(kind(bench.block_on(runtime.launch(run))), stopped);
    assert_eq!(kind(bench.block_on(runtime.cancel(run, "late"))), stopped);
    assert_eq!(kind(bench.block_on(runtime.pause(run, "late"))), stopped);
    assert_eq!(kind(bench.block_on(runtime.resume(run))), stopped);
    assert_eq!(kind(bench.block_on(runtime.redrive(run))), stopped);
    assert_eq!(kind(bench.block_on(runtime.abandon(run, "late"))), stopped);
    assert_eq!(kind(bench.block_on(runtime.tell(run, "s", &Order(1)))), stopped);
    assert_eq!(kind(bench.block_on(runtime.recover())), stopped);
    let fault = fsm_core::Fault::cancelled();
    assert_eq!(kind(bench.block_on(runtime.revoke(run, Ending::Failed, fault))), stopped);
    assert_eq!(bench.state("parked"), "await", "and it can still be looked at");
}

#[test]
fn a_task_that_is_dropped_before_it_begins_frees_its_run() {
    let bench = bench(MemoryJournal::new(), 2);
    bench.begin("r", "desk", &WAITS);
    bench.settle();
    let (runtime, run) = (bench.runtime.clone(), id("r"));
    let mut told = Box::pin(runtime.tell(&run, "order", &Order(1)));
    assert!(told.as_mut().now_or_never().is_none());
    bench.environment.environment.drop_tasks();
    let answer = told.now_or_never().expect("nobody is left to answer");
    assert_eq!(kind(answer), Some(RuntimeErrorKind::Stopped));
    bench.order("r");
    bench.settle();
    assert_eq!(bench.state("r"), "served");
}

#[test]
fn a_clock_that_is_dropped_is_started_again() {
    let bench = bench(MemoryJournal::new(), 2);
    bench.begin("first", "desk", &Prepare::Timed);
    bench.settle();
    bench.environment.environment.drop_tasks();
    bench.environment.environment.advance(Duration::from_secs(1));
    bench.begin("second", "desk", &Prepare::Timed);
    bench.settle();
    bench.environment.environment.advance(Duration::from_secs(60));
    bench.settle();
    assert_eq!((bench.state("first"), bench.state("second")), ("served".into(), "served".into()));
}

/// An executor that has shut down: it drops what it is given.
#[derive(Clone, Debug)]
struct Closing(ManualEnvironment, Arc<AtomicBool>);

impl Environment for Closing {
    fn now(&self) -> fsm_core::Timestamp {
        self.0.now()
    }

    fn sleep_until(&self, at: fsm_core::Timestamp) -> BoxFuture<'static, ()> {
        self.0.sleep_until(at)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        if !self.1.load(Ordering::SeqCst) {
            self.0.spawn(task);
        }
    }

    fn random(&self) -> u64 {
        self.0.random()
    }
}

#[test]
fn an_executor_that_shuts_down_with_many_in_line_lets_go_of_all() {
    let closing = Closing(ManualEnvironment::default(), Arc::default());
    let runtime = Runtime::builder(MemoryJournal::new(), closing.clone()).concurrency(1).build();
    let busy = Busy::new("busy");
    busy.hangs.store(true, Ordering::SeqCst);
    runtime.register(busy, "busy 1").unwrap();
    let runs: Vec<_> = (0..20_000)
        .map(|n| {
            let start = runtime.start(id(&format!("r{n}")), "busy", Data::default());
            closing.0.block_on(start).unwrap()
        })
        .collect();
    closing.0.run_until_stalled();
    closing.1.store(true, Ordering::SeqCst);
    closing.0.drop_tasks();
    for run in runs {
        let error = run.end().now_or_never().expect("nobody is left").unwrap_err();
        assert_eq!(error.kind(), RuntimeErrorKind::Stopped);
    }
}

#[test]
fn a_stop_between_the_requests_to_two_children_loses_none_of_them() {
    let (release, held) = oneshot::channel::<()>();
    let (memory, held) = (MemoryJournal::new(), Mutex::new(Some(held)));
    let journal = Intercepted::new(memory.clone(), move |journal, records| {
        let first = records
            .iter()
            .any(|record| record.run == id("p/1/a") && matches!(record.body, Body::Cancel { .. }));
        let held = first.then(|| held.lock().unwrap().take()).flatten();
        async move {
            if let Some(held) = held {
                let _ = held.await;
            }
            journal.append(records).await
        }
    });
    let first = bench(journal, 4);
    first.begin("p", "parent", &Raise::new(&[("a", WAITS), ("b", WAITS)], Then::Toil));
    first.settle();
    first.block_on(first.runtime.cancel(&id("p"), "a test asks")).unwrap();
    first.settle();
    let mut stopped = Box::pin(first.runtime.stop());
    assert!(stopped.as_mut().now_or_never().is_none(), "a request is on its way to the journal");
    release.send(()).unwrap();
    first.block_on(stopped);
    first.environment.environment.drop_tasks();

    let second = bench_at(memory, 4, first.environment.environment.clone());
    second.block_on(second.runtime.recover()).unwrap();
    second.settle();
    for child in ["p/1/a", "p/1/b"] {
        let end = second.block_on(second.runtime.inspect(&id(child))).unwrap().unwrap().end();
        assert_eq!(end.map(|end| end.ending), Some(Ending::Cancelled), "{child}");
    }
    assert_eq!(second.state("p"), "gathered");
}
