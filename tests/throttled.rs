//! Forty databases on four streams: what is open at once, by observation, and for whom.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
};

use mercury::{Engine, Event, ItemId, OperationId, Outcome, Phase, Scope};
use support::{
    World, back_up, ended, hash,
    lab::{self, full, log, open},
    large, small, soon, until,
};

const STREAMS: u32 = 4;

/// What the events say of who is at work, and with how many streams.
#[derive(Default)]
struct Seen {
    /// The streams that are open, by operation.
    open: BTreeMap<OperationId, usize>,
    most: usize,
    most_of_data: usize,
    most_of_logs: usize,
    /// The items of operations, and those that are at work on them.
    items: BTreeMap<OperationId, ItemId>,
    at_work: BTreeMap<ItemId, BTreeSet<OperationId>>,
    together: Vec<(OperationId, OperationId)>,
    ended: BTreeSet<OperationId>,
}

impl Seen {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Lagged(missed) => panic!("{missed} events were missed"),
            Event::StreamOpened { operation, .. } => {
                *self.open.entry(operation.clone()).or_default() += 1;
                self.count();
            }
            Event::StreamClosed { operation, .. } => {
                *self.open.get_mut(operation).expect("it was opened") -= 1;
            }
            Event::State { operation, state } => {
                let item = &self.items[operation];
                let at_work = self.at_work.entry(item.clone()).or_default();
                if matches!(state.as_str(), "sealed" | "restored") {
                    at_work.remove(operation);
                } else if at_work.insert(operation.clone()) && at_work.len() > 1 {
                    let others = at_work.iter().filter(|other| *other != operation);
                    let pairs = others.map(|other| (operation.clone(), other.clone()));
                    self.together.extend(pairs.collect::<Vec<_>>());
                }
            }
            Event::Phase { operation, phase } if phase.is_final() => {
                assert_eq!(*phase, Phase::Succeeded, "{operation}");
                self.ended.insert(operation.clone());
            }
            _ => {}
        }
    }

    fn count(&mut self) {
        let is_log = |id: &&OperationId| id.as_str().starts_with("log");
        let logs = self.open.iter().filter(|(id, _)| is_log(id)).map(|(_, open)| open).sum();
        let all: usize = self.open.values().sum();
        self.most = self.most.max(all);
        self.most_of_logs = self.most_of_logs.max(logs);
        self.most_of_data = self.most_of_data.max(all - logs);
    }
}

fn name(number: usize) -> String {
    format!("db-{number:02}.db")
}

/// The engine that all of this is about: four streams, one of them for logs, and one an item.
async fn start(world: &World, rate: u64) -> Engine {
    world
        .builder()
        .plugin(lab::plugin::<false>(world, "16"))
        .streams(STREAMS)
        .lane("log", 1)
        .streams_each(Scope::Item, 1)
        .bytes_per_second(NonZeroU64::new(rate).unwrap())
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_databases_share_four_streams() {
    let world = World::new();
    for number in 0..40 {
        // Some of them are large enough to be still on their way when the others come.
        let path = world.database(&name(number));
        if number < 4 { large(&path, 1) } else { small(&path, 500) }
    }
    let engine = start(&world, 1 << 30).await;
    let mut points = Vec::new();
    for number in 0..8 {
        let item = world.item(&name(number));
        points.push(back_up(&engine, &item, &format!("first-{number}")).await.unwrap());
    }
    soon(engine.shutdown(std::time::Duration::from_secs(10))).await;

    let engine = start(&world, 2 << 20).await;
    open(&world, "all");
    let mut events = engine.subscribe();
    let mut seen = Seen::default();
    let mut targets = Vec::new();
    for number in 0..40 {
        let (id, item) = (format!("full-{number}"), world.item(&name(number)));
        seen.items.insert(OperationId::new(&id), item.clone());
        engine.backup(&item).id(id).even_if_unchanged().submit().await.unwrap();
    }
    for (number, point) in points.iter().enumerate() {
        let (id, item) = (format!("restore-{number}"), world.item(&name(number)));
        seen.items.insert(OperationId::new(&id), item.clone());
        let target = world.unused("restored.db");
        let restore = engine.restore(&item, point).id(id).to(target.to_str().unwrap());
        restore.submit().await.unwrap();
        targets.push(target);
    }
    for number in 0..8 {
        let (id, item) = (format!("log-{number}"), format!("plain-{number}"));
        seen.items.insert(OperationId::new(&id), lab::item(&item));
        log(&engine, &item, &id).await;
    }
    let all = seen.items.len();
    until(&mut events, |event| {
        seen.hear(event);
        seen.ended.len() == all
    })
    .await;

    assert!(seen.most <= STREAMS as usize, "{} streams were open at once", seen.most);
    assert_eq!(seen.most_of_data, 3, "all that are not reserved are used, and no more");
    assert_eq!(seen.most_of_logs, 1);
    assert_eq!(seen.together, [], "nobody works on an item beside another");
    assert!(seen.open.values().all(|&open| open == 0));
    for (number, target) in targets.iter().enumerate() {
        assert_eq!(hash(target), hash(&world.database(&name(number))));
    }
    let left = engine.waiting();
    assert!(left.holders.is_empty() && left.waiters.is_empty(), "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_is_free_while_other_work_waits() {
    let world = World::new();
    let engine = start(&world, 1 << 30).await;
    engine.discover().await.unwrap();
    let mut events = engine.subscribe();
    let mut waiting = Vec::new();
    for number in 0..6 {
        waiting.push(full(&engine, &format!("plain-{number}"), &format!("full-{number}")).await);
    }
    // Three of them have all the streams that are not reserved.
    let mut writing = 0;
    until(&mut events, |event| {
        writing += u32::from(matches!(event, Event::StreamOpened { .. }));
        writing == 3
    })
    .await;
    // Also beside a full backup of the same item, which has the item's one stream.
    open(&world, "log");
    let outcome = ended(&log(&engine, "plain-0", "log").await).await.unwrap();
    assert!(matches!(outcome, Outcome::BackedUp { .. }));
    let snapshot = engine.waiting();
    assert_eq!(snapshot.waiters.len(), 3, "{snapshot}");
    let used: Vec<_> = snapshot.limits.iter().map(ToString::to_string).collect();
    assert!(used.contains(&"streams of node: 3 of 3 used".to_owned()), "{used:?}");

    open(&world, "all");
    for backup in &waiting {
        ended(backup).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_that_leave_nothing_are_refused() {
    let world = World::new();
    let error = world.builder().streams(2).lane("log", 2).start().await.unwrap_err();
    support::check(&error, mercury::ErrorKind::Request, mercury::Class::User, "engine.lanes");
}
