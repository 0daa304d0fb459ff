//! Families of runs in processes that die at random, whose tasks run in any order: every run comes
//! to its end, and no child is born twice.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::time::Duration;

use fsm_core::{
    Body, Data, Environment, Hosted, Journal, MemoryJournal, Runtime,
    testing::{Intercepted, ManualEnvironment, for_each_seed},
};
use futures::FutureExt;

use self::support::{
    desk::{Desk, Order, Prepare},
    id,
    parent::{Kid, Parent, Raise, Then},
    process::breathe,
    world::World,
};

const LEAVES: [&str; 3] = ["p/1/a", "p/1/b", "p/1/m/1/c"];

fn process(memory: &MemoryJournal, environment: &ManualEnvironment, world: &World) -> Runtime {
    let slow = Intercepted::new(memory.clone(), |journal, records| async move {
        breathe().await;
        journal.append(records).await
    });
    let runtime = Runtime::builder(slow, environment.clone()).concurrency(2).build();
    runtime.register(Hosted::new(Desk, world.clone()), "tests 1").unwrap();
    runtime.register(Hosted::new(Parent, world.clone()), "tests 1").unwrap();
    runtime
}

fn family(then: Then) -> Raise {
    let waits = || Kid::Desk(Prepare::Serve { orders: 1 });
    let nested = Raise { kids: vec![("c".to_owned(), waits())], then: Then::Watch };
    let hold = Kid::Desk(Prepare::Hold);
    let kids = [("a", waits()), ("b", hold), ("m", Kid::Parent(nested))];
    Raise { kids: kids.into_iter().map(|(key, kid)| (key.to_owned(), kid)).collect(), then }
}

/// Lets tasks run for a while, but not to where they all wait.
fn work(environment: &ManualEnvironment) {
    environment.block_on(async {
        for _ in 0..environment.random() % 12 {
            breathe().await;
        }
    });
}

fn suffer(environment: &ManualEnvironment, then: Then) {
    let (memory, world) = (MemoryJournal::new(), World::default());
    let mut runtime = process(&memory, environment, &world);
    let input = Data::encode(&family(then)).unwrap();
    environment.block_on(runtime.start(id("p"), "parent", input)).unwrap();
    for _ in 0..environment.random() % 12 {
        work(environment);
        let leaf = LEAVES[environment.random() as usize % LEAVES.len()];
        let (now, run) = (runtime.clone(), id(leaf));
        match environment.random() % 8 {
            0 | 1 => {
                environment.drop_tasks();
                runtime = process(&memory, environment, &world);
                environment.block_on(runtime.recover()).unwrap();
            }
            2 => environment.spawn(Box::pin(async move {
                let _ = now.cancel(&id("p"), "a test asks").await;
            })),
            3 => environment.spawn(Box::pin(async move {
                let _ = now.abandon(&run, "a test asks").await;
            })),
            4 => environment.spawn(Box::pin(async move {
                let _ = now.attach(&run).await;
            })),
            5 => environment.advance(Duration::from_secs(1)),
            _ => environment.spawn(Box::pin(async move {
                let _ = now.tell(&run, "o", &Order(1)).await;
            })),
        }
    }
    // In peace every child that still waits hears what it waits for.
    for _ in 0..8 {
        environment.run_until_stalled();
        environment.advance(Duration::from_secs(60));
        for leaf in LEAVES {
            let run = id(leaf);
            let _ = environment.block_on(runtime.tell(&run, "peace", &Order(2)));
        }
    }
    environment.run_until_stalled();
    let all = ["p", "p/1/a", "p/1/b", "p/1/m", "p/1/m/1/c"];
    for run in all {
        let records = memory.history(&id(run)).now_or_never().unwrap().unwrap();
        let ends = records.iter().filter(|record| matches!(record.body, Body::End { .. })).count();
        let births = records
            .iter()
            .filter(|record| matches!(record.body, Body::Enter { entry: 1, .. }))
            .count();
        // A grandchild whose parent was stopped before it began was never born.
        assert!(births <= 1 && ends == births, "{run}: {records:#?}");
        assert!(births == 1 || run == "p/1/m/1/c", "{run} was never born");
    }
    environment.drop_tasks();
}

#[test]
fn a_parent_that_waits_and_its_children_come_to_their_ends() {
    for_each_seed(0..400, |environment| suffer(environment, Then::Watch));
}

#[test]
fn a_parent_that_defers_and_its_children_come_to_their_ends() {
    for_each_seed(0..400, |environment| suffer(environment, Then::Spare));
}

#[test]
fn a_parent_that_works_and_its_children_come_to_their_ends() {
    for_each_seed(0..400, |environment| suffer(environment, Then::Toil));
}

#[test]
fn a_parent_that_ends_and_its_children_come_to_their_ends() {
    for_each_seed(0..400, |environment| suffer(environment, Then::End));
}
