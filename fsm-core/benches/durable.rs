//! What a durable transition costs, against the disk's own price for a durable write.
//!
//! In one run, on one disk: a plain file that grows by a record and is synced; one run that
//! appends to the SQLite journal; 64 runs that do so at the same time; and the same 64 over the
//! journal in memory, which shows what is the benchmark's own. Each append is one
//! `enter` record with 256 bytes of data, and waits for the one before it of the same run.
//!
//! ```text
//! cargo bench -p fsm-core --features sqlite --bench durable
//! ```
//!
//! The table at the end is of rounds that take turns, so that all rows see the same machine. A
//! directory on another disk: `TMPDIR`.
#![allow(clippy::unwrap_used)] // A benchmark that cannot go on fails.

use std::{
    fs::File,
    hint::black_box,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use fsm_core::{
    Body, Data, Journal, MemoryJournal, Record, RunId, Timestamp,
    sqlite::{SqliteJournal, Store},
};
use futures::{executor::block_on, future::join_all};

const WRITERS: usize = 64;
const DATA_BYTES: usize = 256;
/// Rounds of the table, and commits in each of them that stand alone.
const ROUNDS: usize = 9;
const COMMITS: u64 = 4_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("durable");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for contender in Contender::all() {
        group.bench_function(contender.name(), |bencher| {
            bencher.iter_custom(|commits| contender.run(commits).took);
        });
    }
    group.finish();
    criterion.final_summary();
    if std::env::args().any(|argument| argument == "--bench") {
        print_table();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Contender {
    Raw,
    Sqlite { writers: usize },
    Memory { writers: usize },
}

/// One measurement.
struct Round {
    commits: u64,
    took: Duration,
    /// Of each append, sorted.
    latencies: Vec<Duration>,
    /// Transactions of the store.
    transactions: Option<u64>,
}

impl Contender {
    fn all() -> [Self; 4] {
        [
            Contender::Raw,
            Contender::Sqlite { writers: 1 },
            Contender::Sqlite { writers: WRITERS },
            Contender::Memory { writers: WRITERS },
        ]
    }

    fn name(self) -> String {
        match self {
            Contender::Raw => "write and fdatasync".to_owned(),
            Contender::Sqlite { writers } => format!("sqlite, {writers} at a time"),
            Contender::Memory { writers } => format!("memory, {writers} at a time"),
        }
    }

    /// Commits in a round of the table: enough of them that each writer has its share of many
    /// groups, and that the log is brought into the file many times.
    fn commits(self) -> u64 {
        match self {
            Contender::Raw | Contender::Sqlite { writers: 1 } => COMMITS,
            Contender::Sqlite { .. } | Contender::Memory { .. } => COMMITS * 16,
        }
    }

    fn run(self, commits: u64) -> Round {
        let directory = tempfile::tempdir().unwrap();
        match self {
            Contender::Raw => raw(&directory.path().join("log"), commits),
            Contender::Sqlite { writers } => {
                let store = Store::open(&directory.path().join("state.db")).unwrap();
                let journal = SqliteJournal::new(store.clone()).unwrap();
                let before = store.commits().0;
                let round = append(&journal, writers, commits);
                Round { transactions: Some(store.commits().0 - before), ..round }
            }
            Contender::Memory { writers } => append(&MemoryJournal::new(), writers, commits),
        }
    }
}

fn raw(path: &Path, commits: u64) -> Round {
    let record = serde_json::to_vec(&record(&RunId::new("run-0").unwrap(), 1)).unwrap();
    let mut file = File::create(path).unwrap();
    let begun = Instant::now();
    let mut latencies: Vec<_> = (0..commits)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(black_box(&record)).unwrap();
            file.sync_data().unwrap();
            begun.elapsed()
        })
        .collect();
    let took = begun.elapsed();
    latencies.sort();
    Round { commits, took, latencies, transactions: None }
}

/// `writers` runs share `commits` appends.
fn append(journal: &impl Journal, writers: usize, commits: u64) -> Round {
    let share = commits.div_ceil(writers as u64);
    let writers = (0..writers).map(|writer| async move {
        let run = RunId::new(format!("run-{writer}")).unwrap();
        let mut latencies = Vec::with_capacity(share as usize);
        for seq in 1..=share {
            let begun = Instant::now();
            journal.append(vec![record(&run, seq)]).await.unwrap();
            latencies.push(begun.elapsed());
        }
        latencies
    });
    let begun = Instant::now();
    let mut latencies: Vec<_> = block_on(join_all(writers)).into_iter().flatten().collect();
    let took = begun.elapsed();
    latencies.sort();
    Round { commits: latencies.len() as u64, took, latencies, transactions: None }
}

fn record(run: &RunId, seq: u64) -> Record {
    let body = Body::Enter {
        entry: seq,
        machine: "backup".to_owned(),
        version: 1,
        origin: "bench 1".to_owned(),
        graph: "0123456789abcdef".to_owned(),
        state: "copying".to_owned(),
        data: Data::from_bytes(vec![b'x'; DATA_BYTES]),
        wake_at: None,
        carried: Box::default(),
    };
    Record { run: run.clone(), seq, at: Timestamp::from_unix_ms(1_700_000_000_000 + seq), body }
}

fn print_table() {
    let contenders = Contender::all();
    let mut rounds: Vec<Vec<Round>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (contender, rounds) in contenders.iter().zip(&mut rounds) {
            rounds.push(contender.run(contender.commits()));
        }
    }
    let rate = |round: &Round| round.commits as f64 / round.took.as_secs_f64();
    let raw: Vec<f64> = rounds[0].iter().map(rate).collect();
    println!(
        "\n{:24} {:>10} {:>7} {:>9} {:>9} {:>14}",
        "median of rounds", "commits/s", "ratio", "p50 us", "p99 us", "commits/sync"
    );
    for (contender, rounds) in contenders.iter().zip(&rounds) {
        let of = |figure: &dyn Fn(usize) -> f64| median((0..ROUNDS).map(figure).collect());
        let at = |percent: usize| {
            of(&|n| {
                let latencies = &rounds[n].latencies;
                latencies[latencies.len() * percent / 100].as_secs_f64() * 1e6
            })
        };
        let shared = rounds[0].transactions.map_or_else(String::new, |_| {
            let shared =
                |n: usize| rounds[n].commits as f64 / rounds[n].transactions.unwrap() as f64;
            format!("{:.1}", of(&shared))
        });
        println!(
            "{:24} {:>10.0} {:>7.2} {:>9.1} {:>9.1} {shared:>14}",
            contender.name(),
            of(&|n| rate(&rounds[n])),
            of(&|n| rate(&rounds[n]) / raw[n]),
            at(50),
            at(99),
        );
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
