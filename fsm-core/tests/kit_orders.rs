//! The order in which tasks run is the seed's.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use fsm_core::{
    Context, Data, Environment, Hosted, Machine, MemoryJournal, RunId, Runtime, State, Step, check,
    go,
    testing::{Intercepted, ManualEnvironment, for_each_seed},
};
use futures::future::join;
use serde::{Deserialize, Serialize};

/// Counts to a number, one state each.
struct Counter;

impl Machine for Counter {
    const NAME: &'static str = "counter";
    type Host = ();
    type Initial = Count;
    type States = (Count, Counted);
}
check!(Counter);

#[derive(Serialize, Deserialize)]
struct Count {
    left: u32,
}
#[derive(Serialize, Deserialize)]
struct Counted;

impl State<Counter> for Count {
    const NAME: &'static str = "count";
    type Next = (Count, Counted);

    async fn run(self, _: &Counter, _: &mut Context<'_, Counter>) -> Step<Self> {
        if self.left > 0 { go(Count { left: self.left - 1 }) } else { go(Counted) }
    }
}

impl State<Counter> for Counted {
    const NAME: &'static str = "counted";
    type Next = ();
}

/// The records of two runs side by side, in the order in which they were written.
fn records(environment: &ManualEnvironment) -> Vec<String> {
    let written = Arc::new(Mutex::new(Vec::new()));
    let journal = {
        let written = Arc::clone(&written);
        Intercepted::new(MemoryJournal::new(), move |journal, records| {
            let told = records.iter().map(|r| format!("{}/{} {}", r.run, r.seq, r.body.kind()));
            written.lock().unwrap().extend(told);
            journal.append(records)
        })
    };
    let runtime = Runtime::builder(journal, environment.clone()).build();
    runtime.register(Hosted::new(Counter, ()), "tests 1").unwrap();
    let run = async |id: &str| {
        let input = Data::encode(&Count { left: 5 }).unwrap();
        let handle = runtime.start(RunId::new(id).unwrap(), "counter", input).await.unwrap();
        handle.end().await.unwrap()
    };
    environment.block_on(join(run("a"), run("b")));
    environment.drop_tasks();
    written.lock().unwrap().clone()
}

#[test]
fn a_seed_gives_one_order_and_another_seed_another_one() {
    let orders: BTreeSet<_> =
        (0..16).map(|seed| records(&ManualEnvironment::seeded(seed))).collect();
    assert!(orders.len() > 8, "{} orders of 16", orders.len());
    for_each_seed(0..16, |environment| {
        let again = ManualEnvironment::seeded(seed_of(environment));
        assert_eq!(records(environment), records(&again));
    });
    let lengths: BTreeSet<_> = orders.iter().map(Vec::len).collect();
    assert_eq!(lengths.len(), 1, "what happens is the same, only its order is not");
}

/// The number by which an environment shows its seed.
fn seed_of(environment: &ManualEnvironment) -> u64 {
    let shown = format!("{environment:?}");
    let seed = shown.split("seed ").nth(1).and_then(|rest| rest.trim_end_matches(')').parse().ok());
    seed.unwrap_or_else(|| panic!("no seed in {shown}"))
}

#[test]
fn without_a_seed_tasks_take_turns() {
    let order = records(&ManualEnvironment::default());
    assert_eq!(order, records(&ManualEnvironment::default()));
    let entries = order.iter().filter(|record| record.ends_with("enter"));
    let runs: Vec<_> = entries.map(|record| &record[..1]).collect();
    assert_eq!(runs.concat(), "ab".repeat(7));
}

#[test]
fn a_seed_gives_one_sequence_of_random_numbers() {
    let drawn = |seed| {
        let environment = ManualEnvironment::seeded(seed);
        [environment.random(), environment.random()]
    };
    assert_eq!(drawn(3), drawn(3));
    assert_ne!(drawn(3), drawn(4));
}

/// A task that notes its name, waits, and notes it again.
fn noting(environment: &ManualEnvironment, notes: &Arc<Mutex<Vec<u32>>>, name: u32, secs: u64) {
    let (clock, notes) = (environment.clone(), Arc::clone(notes));
    environment.spawn(Box::pin(async move {
        notes.lock().unwrap().push(name);
        clock.sleep_until(clock.now() + Duration::from_secs(secs)).await;
        notes.lock().unwrap().push(name);
    }));
}

#[test]
fn tasks_run_until_all_of_them_wait_and_time_moves_from_one_to_the_next() {
    let (environment, notes) = (ManualEnvironment::default(), Arc::default());
    noting(&environment, &notes, 1, 20);
    noting(&environment, &notes, 2, 10);
    let start = environment.now();
    environment.run_until_stalled();
    assert_eq!(*notes.lock().unwrap(), [1, 2]);
    assert!(environment.advance_to_next());
    assert_eq!(environment.now(), start + Duration::from_secs(10));
    environment.run_until_stalled();
    assert!(environment.advance_to_next());
    environment.run_until_stalled();
    assert_eq!(*notes.lock().unwrap(), [1, 2, 2, 1]);
    assert!(!environment.advance_to_next());
    assert_eq!(environment.now(), start + Duration::from_secs(20));
}

#[test]
fn a_task_that_wakes_itself_does_not_keep_the_others_waiting() {
    for_each_seed(0..8, |environment| {
        let done = Arc::new(Mutex::new(false));
        let seen = Arc::clone(&done);
        environment.spawn(Box::pin(futures::future::poll_fn(move |cx| {
            cx.waker().wake_by_ref();
            if *seen.lock().unwrap() {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })));
        let done = Arc::clone(&done);
        environment.spawn(Box::pin(async move { *done.lock().unwrap() = true }));
        environment.run_until_stalled();
    });
}

#[test]
fn another_thread_wakes_a_task() {
    let environment = ManualEnvironment::default();
    let (sender, receiver) = futures::channel::oneshot::channel();
    let thread = std::thread::spawn(move || sender.send(7).unwrap());
    assert_eq!(environment.block_on(receiver), Ok(7));
    thread.join().unwrap();
}

#[test]
fn tasks_that_are_dropped_are_gone_with_what_they_spawn() {
    struct SpawnsOnDrop(ManualEnvironment, Arc<Mutex<u32>>);
    impl Drop for SpawnsOnDrop {
        fn drop(&mut self) {
            let ran = Arc::clone(&self.1);
            self.0.spawn(Box::pin(async move { *ran.lock().unwrap() += 1 }));
        }
    }
    let (environment, ran) = (ManualEnvironment::default(), Arc::new(Mutex::new(0)));
    let noise = SpawnsOnDrop(environment.clone(), Arc::clone(&ran));
    environment.spawn(Box::pin(async move {
        let _noise = noise;
        futures::future::pending::<()>().await;
    }));
    environment.run_until_stalled();
    environment.drop_tasks();
    environment.run_until_stalled();
    assert_eq!(*ran.lock().unwrap(), 0);
    // Also when a task drops all of them, itself included.
    let inner = environment.clone();
    let ran_too = Arc::clone(&ran);
    environment.spawn(Box::pin(async move {
        inner.drop_tasks();
        inner.sleep_until(inner.now() + Duration::from_secs(1)).await;
        *ran_too.lock().unwrap() += 1;
    }));
    environment.run_until_stalled();
    environment.advance_to_next();
    environment.run_until_stalled();
    assert_eq!(*ran.lock().unwrap(), 0);
}

#[test]
#[should_panic(expected = "driven by one caller at a time")]
fn tasks_are_not_driven_twice_at_once() {
    let environment = ManualEnvironment::default();
    environment.block_on(async { environment.run_until_stalled() });
}
