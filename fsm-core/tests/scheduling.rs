//! Who has a task, who has a place to work, and who waits for whom.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fsm_core::{
    Data, Ending, Environment, Hosted, MemoryJournal, RunEvent, Runtime,
    testing::{Intercepted, ManualEnvironment, for_each_seed},
};
use futures::{FutureExt, StreamExt, channel::oneshot};

use self::support::{
    bench::{Busy, bench, bench_at},
    desk::{Order, Prepare},
    id, lying,
    parent::{Raise, Then},
    world::{Act, Job, Work, World},
};

const WAITS: Prepare = Prepare::Serve { orders: 1 };

#[test]
fn runs_that_wait_have_no_task() {
    let bench = bench(MemoryJournal::new(), 1_024);
    for number in 0..5_000 {
        bench.begin(&format!("signal-{number}"), "desk", &WAITS);
        let rests = Work { rest_secs: Some(60 + number), ..Work::default() };
        bench.begin(&format!("timer-{number}"), "job", &rests);
    }
    bench.settle();
    assert_eq!(bench.environment.live(), 1, "the clock, and nobody else");
    assert_eq!(bench.world.said("rested"), 0);
}

#[test]
fn runs_that_wait_are_taken_up_without_a_task_and_without_a_write() {
    let memory = MemoryJournal::new();
    let first = bench(memory.clone(), 1_024);
    for number in 0..10_000 {
        first.begin(&format!("r{number}"), "desk", &WAITS);
    }
    first.begin("timed", "desk", &Prepare::Timed);
    first.settle();
    first.environment.environment.drop_tasks();

    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    let journal = Intercepted::new(memory, move |journal, records| {
        counted.fetch_add(1, Ordering::SeqCst);
        journal.append(records)
    });
    let second = bench_at(journal, 1_024, first.environment.environment.clone());
    assert_eq!(second.block_on(second.runtime.recover()).unwrap().runs, 10_001);
    assert_eq!(second.environment.spawned(), 1, "the clock, and nobody else");
    second.settle();
    assert_eq!((second.environment.spawned(), writes.load(Ordering::SeqCst)), (0, 0));
    second.order("r77");
    second.settle();
    assert_eq!(second.state("r77"), "served");
}

#[test]
fn a_task_serves_what_is_asked_of_a_run_that_waits_and_goes() {
    let bench = bench(MemoryJournal::new(), 4);
    bench.begin("r", "desk", &WAITS);
    bench.settle();
    bench.environment.spawned();
    for _ in 0..3 {
        bench.block_on(bench.runtime.signal(&id("r"), "same", "gossip", Data::default())).unwrap();
        bench.settle();
        assert_eq!((bench.environment.spawned(), bench.environment.live()), (1, 0));
    }
    bench.block_on(bench.runtime.attach(&id("r"))).unwrap();
    assert_eq!(bench.environment.spawned(), 0, "it waits, and that is known");
}

#[test]
fn children_get_in_line_without_a_task_each() {
    let bench = bench(MemoryJournal::new(), 4);
    let kids: Vec<_> = (0..1_000).map(|number| format!("k{number}")).collect();
    let kids: Vec<_> = kids.iter().map(|key| (key.as_str(), Prepare::Nothing)).collect();
    let run = bench.begin("p", "parent", &Raise::new(&kids, Then::Watch));
    bench.environment.most();
    assert_eq!(bench.block_on(run.end()).unwrap().ending, Ending::Completed);
    // Those at work, those on their way out, and the parent.
    let most = bench.environment.most();
    assert!(most <= 4 + 4 + 1, "{most} tasks");
}

#[test]
fn no_more_steps_are_at_work_than_there_are_places() {
    let bench = bench(MemoryJournal::new(), 4);
    let busy = Busy::new("busy");
    let most = Arc::clone(&busy.most);
    bench.runtime.register(busy, "busy 1").unwrap();
    let runs: Vec<_> = (0..100).map(|n| bench.begin(&format!("r{n}"), "busy", &())).collect();
    for run in runs {
        assert_eq!(bench.block_on(run.end()).unwrap().ending, Ending::Completed);
    }
    assert_eq!(most.load(Ordering::SeqCst), 4);
}

#[test]
fn who_comes_first_is_served_first() {
    let bench = bench(MemoryJournal::new(), 1);
    let busy = Busy::new("busy");
    let (order, hangs) = (Arc::clone(&busy.order), Arc::clone(&busy.hangs));
    bench.runtime.register(busy, "busy 1").unwrap();
    hangs.store(true, Ordering::SeqCst);
    bench.begin("hangs", "busy", &());
    bench.settle();
    hangs.store(false, Ordering::SeqCst);
    let names: Vec<_> = (0..20).map(|n| format!("r{}", (n * 7) % 20)).collect();
    let runs: Vec<_> = names.iter().map(|name| bench.begin(name, "busy", &())).collect();
    // Whoever is asked something in line keeps its place there.
    for name in names.iter().rev() {
        let run = id(name);
        let told = bench.runtime.signal(&run, "s", "gossip", Data::default());
        bench.block_on(told).unwrap();
    }
    bench.block_on(bench.runtime.abandon(&id("hangs"), "a test asks")).unwrap();
    for run in runs {
        bench.block_on(run.end()).unwrap();
    }
    assert_eq!(order.lock().unwrap()[1..], names);
}

#[test]
fn commands_are_served_while_all_places_are_taken_by_steps_that_hang() {
    let bench = bench(MemoryJournal::new(), 2);
    bench.world.add([Act::Hang, Act::Hang]);
    for run in ["a", "b"] {
        bench.begin(run, "job", &Work::default());
        bench.settle();
    }
    bench.begin("waits", "job", &Work::default());
    bench.settle();
    assert_eq!(bench.world.log().len(), 2, "there is no place for a third");
    bench.block_on(bench.runtime.pause(&id("waits"), "a test asks")).unwrap();
    bench.block_on(bench.runtime.resume(&id("waits"))).unwrap();
    let cancelled = bench.block_on(bench.runtime.cancel(&id("waits"), "a test asks")).unwrap();
    assert_eq!(bench.block_on(cancelled.end()).unwrap().ending, Ending::Cancelled);
    bench.begin("last", "job", &Work::default());
    let given_up = bench.block_on(bench.runtime.abandon(&id("a"), "a test asks")).unwrap();
    bench.block_on(given_up.end()).unwrap();
    bench.settle();
    assert_eq!(bench.state("last"), "done", "a place is free again");
}

#[test]
fn one_origin_whose_steps_hang_or_panic_keeps_no_other_waiting() {
    let bench = bench(MemoryJournal::new(), 3);
    let hanging = Busy::new("hanging");
    hanging.hangs.store(true, Ordering::SeqCst);
    bench.runtime.register(hanging, "poisoned 1").unwrap();
    let mut panicking = lying::Lying::new("work", |_, _| {
        std::panic::resume_unwind(Box::new("as it likes"));
    });
    panicking.graph.machine = "panicking".to_owned();
    bench.runtime.register(panicking, "poisoned 2").unwrap();
    for number in 0..50 {
        bench.begin(&format!("hangs-{number}"), "hanging", &());
        bench.begin(&format!("panics-{number}"), "panicking", &());
    }
    let runs: Vec<_> =
        (0..50).map(|n| bench.begin(&format!("r{n}"), "desk", &Prepare::Nothing)).collect();
    bench.settle();
    for run in runs {
        assert_eq!(run.end().now_or_never().unwrap().unwrap().ending, Ending::Completed);
    }
    assert_eq!(bench.state("panics-49"), "work");
    bench.block_on(bench.runtime.attach(&id("panics-49"))).unwrap();
}

#[test]
fn a_place_is_given_back_however_a_step_ends() {
    let fault = || fsm_core::Fault::permanent("test.gone", "it is gone");
    for act in [Act::Panic, Act::Fault(fault()), Act::Heed, Act::Hang, Act::Wait(1)] {
        let bench = bench(MemoryJournal::new(), 1);
        bench.world.add([act]);
        bench.begin("first", "job", &Work::default());
        bench.settle();
        bench.block_on(bench.runtime.cancel(&id("first"), "a test asks")).unwrap();
        bench.settle();
        bench.environment.environment.advance(Duration::from_secs(30));
        bench.begin("next", "job", &Work::default());
        bench.settle();
        assert_eq!((bench.state("next").as_str(), bench.environment.live()), ("done", 0));
    }
}

#[test]
fn a_run_that_waits_has_no_place() {
    let bench = bench(MemoryJournal::new(), 1);
    for number in 0..10 {
        bench.begin(&format!("r{number}"), "desk", &WAITS);
    }
    bench.settle();
    for number in 0..10 {
        assert_eq!(bench.state(&format!("r{number}")), "await");
    }
}

#[test]
fn no_wake_up_is_lost_whatever_happens_at_the_same_time() {
    for_each_seed(0..200, |environment| {
        let slow = Intercepted::new(MemoryJournal::new(), |journal, records| async move {
            support::process::breathe().await;
            journal.append(records).await
        });
        let bench = bench_at(slow, 2, environment.clone());
        let runs: Vec<_> = (0..4).map(|n| format!("r{n}")).collect();
        let handles: Vec<_> = runs
            .iter()
            .map(|run| bench.begin(run, "desk", &Prepare::Serve { orders: 3 }))
            .collect();
        for number in 0..3 {
            for run in &runs {
                let (runtime, run) = (bench.runtime.clone(), id(run));
                let moods = environment.random();
                environment.spawn(Box::pin(async move {
                    for _ in 0..moods % 7 {
                        support::process::breathe().await;
                    }
                    match moods / 7 % 3 {
                        0 => drop(runtime.pause(&run, "a test asks").await),
                        1 => drop(runtime.attach(&run).await),
                        _ => {}
                    }
                    let _ = runtime.tell(&run, &format!("o{number}"), &Order(number)).await;
                    let _ = runtime.resume(&run).await;
                    if moods / 21 % 16 == 0 {
                        let _ = runtime.cancel(&run, "a test asks").await;
                    }
                }));
            }
        }
        for (run, handle) in runs.iter().zip(handles) {
            let end = bench.block_on(handle.end()).unwrap();
            assert!(matches!(end.ending, Ending::Completed | Ending::Cancelled), "{run}: {end:?}");
        }
        bench.settle();
        assert_eq!(bench.environment.live(), 0);
    });
}

#[test]
fn while_a_write_stands_still_others_are_answered() {
    let (release, released) = oneshot::channel::<()>();
    let released = Arc::new(Mutex::new(Some(released)));
    let journal = Intercepted::new(MemoryJournal::new(), move |journal, records| {
        let stalls = records.iter().any(|record| record.run == id("stalls"));
        let held = stalls.then(|| released.lock().unwrap().take()).flatten();
        async move {
            if let Some(held) = held {
                let _ = held.await;
            }
            journal.append(records).await
        }
    });
    let bench = bench(journal, 8);
    let mut watch = bench.runtime.watch();
    let mut stalls =
        Box::pin(bench.runtime.start(id("stalls"), "desk", Data::encode(&WAITS).unwrap()));
    assert!(stalls.as_mut().now_or_never().is_none());
    bench.begin("other", "desk", &WAITS);
    bench.settle();
    assert_eq!(bench.state("other"), "await");
    assert!(bench.block_on(bench.runtime.inspect(&id("stalls"))).unwrap().is_none());
    assert_eq!(bench.block_on(bench.runtime.list(fsm_core::Page::default())).unwrap().len(), 1);
    bench.block_on(bench.runtime.attach(&id("other"))).unwrap();
    assert!(watch.next().now_or_never().is_some());
    assert!(bench.runtime.quarantined().is_empty());
    bench.order("other");
    bench.settle();
    assert_eq!(bench.state("other"), "served");
    assert!(stalls.as_mut().now_or_never().is_none());
    release.send(()).unwrap();
    bench.block_on(stalls).unwrap();
}

#[test]
fn an_observer_may_ask_the_runtime_itself() {
    struct Curious(Mutex<BTreeSet<String>>, std::sync::OnceLock<Runtime>);
    struct Shared(Arc<Curious>);
    impl fsm_core::Observer for Shared {
        fn observe(&self, run: &fsm_core::RunId, _: RunEvent) {
            let runtime = self.0.1.get().unwrap();
            // No lock of the runtime is held meanwhile.
            let _ = (runtime.quarantined(), format!("{runtime:?}"), runtime.watch_run(run));
            self.0.0.lock().unwrap().insert(run.to_string());
        }
    }
    let curious = Arc::new(Curious(Mutex::default(), std::sync::OnceLock::new()));
    let environment = ManualEnvironment::default();
    let runtime = Runtime::builder(MemoryJournal::new(), environment.clone())
        .observer(Shared(Arc::clone(&curious)))
        .build();
    runtime.register(Hosted::new(Job, World::default()), "tests 1").unwrap();
    assert!(curious.1.set(runtime.clone()).is_ok());
    let run = environment
        .block_on(runtime.start(id("r"), "job", Data::encode(&Work::default()).unwrap()))
        .unwrap();
    environment.block_on(run.end()).unwrap();
    assert_eq!(curious.0.lock().unwrap().len(), 1);
}
