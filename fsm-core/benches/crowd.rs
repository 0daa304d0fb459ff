//! Ten thousand runs at once, and what they feel of a plugin that goes wrong beside them.
//!
//! 10,000 runs of one origin make 10 durable transitions each, over one SQLite file with real
//! syncs: first alone, then beside 2,000 runs of another origin whose steps hang, panic or fail for
//! ever. A transition's latency is the time from the beginning of a step to the beginning of the
//! next one: the record, its sync, and the wait for both among ten thousand.
//!
//! ```text
//! cargo bench -p fsm-core --features sqlite,tokio --bench crowd
//! ```
//!
//! No criterion here: what is asked for is one distribution beside another, of the same work.
#![allow(clippy::unwrap_used)] // A benchmark that cannot go on fails.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fsm_core::{
    Context, Data, Fault, Hosted, Machine, Retry, RunId, Runtime, State, Step, TokioEnvironment,
    check, go,
    sqlite::{SqliteJournal, Store},
};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

const RUNS: usize = 10_000;
const TRANSITIONS: u32 = 10;
const POISONED: usize = 2_000;
const ROUNDS: usize = 3;

fn main() {
    let runs = if std::env::args().any(|argument| argument == "--bench") { RUNS } else { 100 };
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    // In turns, so that both see the same machine.
    for _ in 0..ROUNDS {
        alone.push(measure(runs, 0));
        beside.push(measure(runs, POISONED * runs / RUNS));
    }
    let (alone, beside) = (median(alone), median(beside));
    println!("| {runs} runs | transitions/s | p50 ms | p99 ms |");
    println!("| --- | --- | --- | --- |");
    for (name, row) in [("alone", &alone), ("beside a poisoned plugin", &beside)] {
        let Row { per_second, p50_ms, p99_ms } = row;
        println!("| {name} | {per_second:.0} | {p50_ms:.1} | {p99_ms:.1} |");
    }
    println!("p99 beside / alone: {:.2}", beside.p99_ms / alone.p99_ms);
}

struct Row {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

fn median(mut rows: Vec<Row>) -> Row {
    rows.sort_by(|a, b| a.p99_ms.total_cmp(&b.p99_ms));
    rows.swap_remove(rows.len() / 2)
}

fn measure(runs: usize, poisoned: usize) -> Row {
    let directory = tempfile::tempdir().unwrap();
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let row = tokio.block_on(async {
        let store = Store::open(&directory.path().join("state.db")).unwrap();
        let journal = SqliteJournal::new(store).unwrap();
        let environment = TokioEnvironment::new(Handle::current());
        let runtime = Runtime::builder(journal, environment).concurrency(RUNS).build();
        let seen = Latencies::default();
        runtime.register(Hosted::new(Walk, seen.clone()), "good").unwrap();
        runtime.register(Hosted::new(Poison, ()), "poisoned").unwrap();
        let input = Data::encode(&Broken).unwrap();
        let bad = (0..poisoned).map(|n| runtime.start(id("bad", n), "poison", input.clone()));
        join_all(bad).await;

        let began = Instant::now();
        let input = Data::encode(&Walking { left: TRANSITIONS }).unwrap();
        let good = (0..runs).map(|n| runtime.start(id("good", n), "walk", input.clone()));
        let good = join_all(good).await;
        join_all(good.iter().map(|run| run.as_ref().unwrap().end())).await;
        let per_second = (runs as f64 * f64::from(TRANSITIONS)) / began.elapsed().as_secs_f64();
        let (p50_ms, p99_ms) = seen.percentiles();
        Row { per_second, p50_ms, p99_ms }
    });
    tokio.shutdown_timeout(Duration::from_secs(5));
    row
}

fn id(kind: &str, number: usize) -> RunId {
    RunId::new(format!("{kind}-{number}")).unwrap()
}

/// When each run's last step began, and how long after it the next one did.
#[derive(Clone, Default)]
struct Latencies(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    last: std::collections::BTreeMap<RunId, Instant>,
    taken: Vec<Duration>,
}

impl Latencies {
    fn step(&self, run: &RunId) {
        let now = Instant::now();
        let mut seen = self.0.lock().unwrap();
        if let Some(last) = seen.last.insert(run.clone(), now) {
            seen.taken.push(now - last);
        }
    }

    fn percentiles(&self) -> (f64, f64) {
        let mut seen = self.0.lock().unwrap();
        seen.taken.sort();
        let at = |share: f64| {
            let place = ((seen.taken.len() - 1) as f64 * share) as usize;
            seen.taken[place].as_secs_f64() * 1e3
        };
        (at(0.5), at(0.99))
    }
}

struct Walk;

impl Machine for Walk {
    const NAME: &'static str = "walk";
    type Host = Latencies;
    type Initial = Walking;
    type States = (Walking, Arrived);
}
check!(Walk);

#[derive(Serialize, Deserialize)]
struct Walking {
    left: u32,
}

#[derive(Serialize, Deserialize)]
struct Arrived;

impl State<Walk> for Walking {
    const NAME: &'static str = "walking";
    type Next = (Walking, Arrived);

    async fn run(self, _: &Walk, cx: &mut Context<'_, Walk>) -> Step<Self> {
        cx.host().step(cx.run());
        if self.left == 1 { go(Arrived) } else { go(Walking { left: self.left - 1 }) }
    }
}

impl State<Walk> for Arrived {
    const NAME: &'static str = "arrived";
    type Next = ();
}

/// A plugin whose every run goes wrong in one of three ways.
struct Poison;

impl Machine for Poison {
    const NAME: &'static str = "poison";
    type Host = ();
    type Initial = Broken;
    type States = (Broken, Mended);
}
check!(Poison);

#[derive(Serialize, Deserialize)]
struct Broken;

#[derive(Serialize, Deserialize)]
struct Mended;

impl State<Poison> for Broken {
    const NAME: &'static str = "broken";
    const RETRY: Retry = Retry::times(u32::MAX).backoff(Duration::from_millis(500), 1.0);
    type Next = (Mended,);

    async fn run(self, _: &Poison, cx: &mut Context<'_, Poison>) -> Step<Self> {
        match cx.run().as_str().bytes().last() {
            Some(b'0'..=b'6') => futures::future::pending().await,
            // Without the report of a panic, which is not what is measured.
            Some(b'7') => std::panic::resume_unwind(Box::new("poisoned")),
            _ => Err(Fault::retryable("poison", "it does not work, again")),
        }
    }
}

impl State<Poison> for Mended {
    const NAME: &'static str = "mended";
    type Next = ();
}
