//! A database through the whole pipeline, beside what somebody would use instead.
//!
//! The same 64 MiB SQLite database goes through the linked plugin, the engine and the archive: a
//! first backup, a second one that is forced although nothing has changed, and a restore. In the
//! same run, on the same disk, it is copied as a file, through SQLite's online backup API, and
//! through `zstd -1`. Each of them ends with its bytes synced. None of the three encrypts, or
//! keeps more than one version.
//!
//! Figures of different computers cannot be compared; the ratios within a run can. They are
//! printed at the end. `MERCURY_BENCH_MIB` sets the size of the database.

#[path = "../examples/support/dataset.rs"]
mod dataset;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use mercury::{BackupStats, Engine, Key, KeySource, Outcome, Plugin, PointId};
use plugin_sqlite::Sqlite;
use rusqlite::{Connection, backup::Backup};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const MIB: u64 = 1 << 20;

fn main() {
    let size = std::env::var("MERCURY_BENCH_MIB").unwrap_or_else(|_| "64".to_owned());
    let size_mib: u64 = size.parse().expect("MERCURY_BENCH_MIB is a number of mebibytes");
    let runtime = Runtime::new().expect("a tokio runtime starts");
    let shop = Shop::create(size_mib * MIB);
    let mut figures = Figures { bytes: shop.bytes(), times: BTreeMap::new() };
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Bytes(figures.bytes));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(5));

    let mut cost = Vec::new();
    figures.measure(&mut group, "first backup", || {
        let place = shop.place();
        runtime.block_on(async {
            let engine = shop.engine(place.path()).await;
            let (took, _, stats) = backup(&engine).await;
            cost.push(("first backup", stats));
            engine.shutdown(Duration::from_secs(5)).await;
            took
        })
    });

    let place = shop.place();
    let engine = runtime.block_on(shop.engine(place.path()));
    let (_, point, _) = runtime.block_on(backup(&engine));
    figures.measure(&mut group, "forced second backup", || {
        let (took, _, stats) = runtime.block_on(backup(&engine));
        cost.push(("forced second backup", stats));
        took
    });
    figures.measure(&mut group, "restore", || {
        let target = place.path().join("restored.db");
        let took = runtime.block_on(restore(&engine, &point, &target));
        fs::remove_file(target).expect("the restored database is there");
        took
    });
    runtime.block_on(engine.shutdown(Duration::from_secs(5)));

    figures.measure_peer(&mut group, &shop, "file copy", copy_file);
    figures.measure_peer(&mut group, &shop, "sqlite online backup", copy_online);
    figures.measure_peer(&mut group, &shop, "zstd -1", compress);
    group.finish();
    criterion.final_summary();

    figures.print();
    print_cost(&cost);
}

/// A database, and the directory that everything happens in.
struct Shop {
    root: TempDir,
}

impl Shop {
    fn create(bytes: u64) -> Self {
        // Beside the build, and so on a disk: a temporary directory may be in memory.
        let root = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory is made");
        let shop = Shop { root };
        fs::create_dir(shop.root.path().join("data")).expect("a directory is made");
        dataset::create(&shop.database(), bytes, |_, _| {}).expect("the database is made");
        shop
    }

    fn database(&self) -> PathBuf {
        self.root.path().join("data/shop.db")
    }

    fn bytes(&self) -> u64 {
        fs::metadata(self.database()).expect("the database is there").len()
    }

    /// A new place on the same disk.
    fn place(&self) -> TempDir {
        TempDir::new_in(self.root.path()).expect("a directory is made")
    }

    async fn engine(&self, place: &Path) -> Engine {
        let key = Key::generate().expect("there is randomness");
        let config = json!({ "directories": [self.root.path().join("data")] });
        Engine::builder()
            .state_dir(place.join("state"))
            .archive_dir(place.join("archive"), KeySource::given(key))
            .plugin(Plugin::linked::<Sqlite>().config("sqlite", config))
            .start()
            .await
            .expect("the engine starts")
    }
}

async fn backup(engine: &Engine) -> (Duration, PointId, BackupStats) {
    let item = engine.discover().await.expect("discovery works").remove(0);
    let begun = Instant::now();
    let backup = engine.backup(&item.id).even_if_unchanged().submit().await;
    let outcome = backup.expect("the engine accepts it").outcome().await.expect("it succeeds");
    let took = begun.elapsed();
    let Outcome::BackedUp { point, stats, .. } = outcome else {
        panic!("not a backup: {outcome:?}")
    };
    assert_eq!(stats.foreign_chunks, 0, "no chunk is copied between plugin and archive");
    (took, point, stats)
}

async fn restore(engine: &Engine, point: &PointId, target: &Path) -> Duration {
    let item = engine.discover().await.expect("discovery works").remove(0);
    let target = target.to_str().expect("the path is UTF-8");
    let begun = Instant::now();
    let restore = engine.restore(&item.id, point).to(target).submit().await;
    let outcome = restore.expect("the engine accepts it").outcome().await.expect("it succeeds");
    let took = begun.elapsed();
    assert!(matches!(outcome, Outcome::Restored { .. }), "not a restore: {outcome:?}");
    took
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

fn copy_online(from: &Path, to: &Path) -> io::Result<()> {
    let copy = || {
        let from = Connection::open(from)?;
        let mut to = Connection::open(to)?;
        Backup::new(&from, &mut to)?.run_to_completion(1_000, Duration::ZERO, None)
    };
    copy().map_err(io::Error::other)?;
    File::open(to)?.sync_all()
}

fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let to = File::create(to)?;
    zstd::stream::copy_encode(File::open(from)?, &to, 1)?;
    to.sync_all()
}

/// What was measured, by name.
struct Figures {
    bytes: u64,
    times: BTreeMap<&'static str, Vec<Duration>>,
}

impl Figures {
    /// Measures `once`, which says how long it took without its preparations.
    fn measure(
        &mut self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &'static str,
        mut once: impl FnMut() -> Duration,
    ) {
        let times = self.times.entry(name).or_default();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let taken: Vec<Duration> = (0..count).map(|_| once()).collect();
                times.extend(&taken);
                taken.iter().sum()
            });
        });
    }

    fn measure_peer(
        &mut self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        shop: &Shop,
        name: &'static str,
        copy: impl Fn(&Path, &Path) -> io::Result<()>,
    ) {
        self.measure(group, name, || {
            let place = shop.place();
            let begun = Instant::now();
            copy(&shop.database(), &place.path().join("copy")).expect("the copy is made");
            begun.elapsed()
        });
    }

    fn median(&self, name: &str) -> Option<Duration> {
        let mut times = self.times.get(name)?.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    }

    fn print(&self) {
        println!("{:<24}{:>10}{:>10}{:>20}", "", "ms", "MB/s", "time : file copy");
        let copy = self.median("file copy");
        for name in self.times.keys() {
            let Some(time) = self.median(name) else { continue };
            let rate = self.bytes as f64 / time.as_secs_f64() / 1e6;
            let ratio = copy.map(|copy| time.as_secs_f64() / copy.as_secs_f64());
            let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            println!("{name:<24}{:>10.1}{rate:>10.0}{ratio:>20}", time.as_secs_f64() * 1e3);
        }
    }
}

/// The costs of the last backup of each name.
fn print_cost(cost: &[(&str, BackupStats)]) {
    let last: BTreeMap<_, _> = cost.iter().copied().collect();
    for (name, stats) in last {
        println!(
            "{name}: {} bytes read, {} new, {} stored, {} chunks lent, {} copied",
            stats.read_bytes,
            stats.new_bytes,
            stats.stored_bytes,
            stats.lent_chunks,
            stats.foreign_chunks,
        );
    }
}
