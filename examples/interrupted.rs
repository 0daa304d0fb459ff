//! A backup is killed in the middle of its stream, and the next process finishes it.
//!
//! A shop's database of 200 MB is backed up twice. Once undisturbed, into an archive that only
//! serves for comparison. Once by a process that is killed (SIGKILL: it cannot tidy up) when half
//! of the database is on its way. Then an engine is started on the same state directory and the
//! same archive, and asked for nothing: it finds the operation in its journal and carries it to its
//! end. There is one recovery point, not two, and it is restored identical.
//!
//! A database's stream cannot be rewound, so the second attempt reads all of it again. What the
//! first attempt stored is not stored again: each pack that it finished has a checkpoint beside it.
//! Only a pack that reached the disk just before the kill, and was not checkpointed any more, is
//! stored twice.
//!
//! ```text
//! cargo run --release --example interrupted
//! ```

mod support;

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mercury::{Engine, Event, ItemId, KeySource, OperationId, Outcome};
use support::application::{self, Application};
use support::arguments::Arguments;
use support::ledger::bytes;
use support::place::{self, Place};
use support::report::{self, Report};
use support::watch::watch;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tracing_subscriber::filter::LevelFilter;

/// Starts this program as the process that will be killed.
const ROLE: &str = "--killed";
const OPERATION: &str = "nightly";
/// The most bytes that an archive puts into one pack, unless it is told otherwise.
const PACK_BYTES: u64 = 16 << 20;

#[tokio::main]
async fn main() -> Result<(), Report> {
    if application::is_this_process() {
        return application::serve();
    }
    if std::env::args_os().nth(1).is_some_and(|role| role == ROLE) {
        return back_up_slowly().await;
    }
    let arguments = Arguments::read_without_database()?;
    report::log_to_stderr(LevelFilter::WARN);
    let place = Place::new("interrupted", &arguments)?;
    KeySource::create_file(place.at("archive.key"))?;

    println!("An application creates its database, and leaves it alone.");
    let mut shop = Application::start(&place.at("data/shop.db"))?;
    let size = shop.create(arguments.bytes).await?;
    let hashes = shop.table_hashes().await?;
    println!("  {}, {}\n", shop.path().display(), bytes(size));
    shop.close().await?;

    println!("An undisturbed backup, for comparison.");
    let engine = start(&arguments, &place, "undisturbed").await?;
    let item = discover(&engine).await?;
    let backup = engine.backup(&item).id(OPERATION).submit();
    watch(&engine, "undisturbed backup", backup).await?;
    engine.shutdown(Duration::from_secs(30)).await;
    let undisturbed = packs(&place.at("undisturbed/archive"))?;
    println!("  {undisturbed}\n");

    println!("The same backup in another process, killed when half of the bytes are on their way.");
    let sent = kill_at_half(&arguments, &place, size).await?;
    let at_kill = packs(&place.at("interrupted/archive"))?;
    println!("  it had sent {} of {}", bytes(sent), bytes(size));
    println!("  {at_kill}\n");

    println!("An engine starts on the same state directory and the same archive.");
    let engine = start(&arguments, &place, "interrupted").await?;
    let left = OperationId::new(OPERATION);
    let finished = watch(&engine, "the same backup", engine.operation(&left)).await?;
    let Outcome::BackedUp { point, stats, .. } = finished.outcome else {
        return Err(Report::new(format!("the backup ended as {:?}", finished.outcome)));
    };
    let after = packs(&place.at("interrupted/archive"))?;
    println!("  it finished the operation `{OPERATION}` by itself");
    println!(
        "  it read {} again; {} of that had to be stored, the rest was there",
        bytes(stats.read_bytes),
        bytes(stats.new_bytes),
    );
    println!("  {after}\n");

    println!("Recovery points:");
    let points = engine.points(&item).await?;
    for point in &points {
        println!("  {} ({})", point.id, point.kind);
    }
    println!();

    let copy = place.at("restored.db");
    println!("It is restored to {}.", copy.display());
    let target = copy.to_str().ok_or_else(|| Report::new("a path is not UTF-8"))?;
    watch(&engine, "restore", engine.restore(&item, &point).to(target).submit()).await?;
    engine.shutdown(Duration::from_secs(30)).await;
    let restored = application::hashes_of_sound(&copy).await?;

    println!("Bytes in packs on disk:");
    println!("  at the kill        {:>12}", at_kill.bytes);
    println!("  after the end      {:>12}", after.bytes);
    println!("  undisturbed backup {:>12}", undisturbed.bytes);
    let twice = after.bytes.saturating_sub(undisturbed.bytes);
    println!("  stored twice       {twice:>12} (what is allowed is one pack, {PACK_BYTES})");
    println!("What had not reached the disk at the kill was lost with the process, and is not");
    println!("counted: it was stored once, by the second process.\n");

    demand(points.len() == 1, "there is not exactly one recovery point")?;
    let found_again = stats.new_bytes < stats.read_bytes;
    demand(at_kill.count < 2 || found_again, "what was stored was not found again")?;
    demand(twice <= PACK_BYTES, "more than one pack was stored twice")?;
    demand(restored == hashes, "restored content differs")?;
    println!("restored content is identical");
    Ok(())
}

/// Starts an engine that keeps what it knows and what it stores in the directory `name`.
async fn start(arguments: &Arguments, place: &Place, name: &str) -> Result<Engine, Report> {
    let root = place.at(name);
    let key = KeySource::file(place.at("archive.key"));
    Ok(place::engine(&arguments.plugin, &place.at("data"), &root, key).start().await?)
}

async fn discover(engine: &Engine) -> Result<ItemId, Report> {
    let items = engine.discover().await?;
    let item = items.first().ok_or_else(|| Report::new("the plugin found no database"))?;
    Ok(item.id.clone())
}

/// Starts [`back_up_slowly`] in a process of its own and kills it; returns how far it had come.
async fn kill_at_half(arguments: &Arguments, place: &Place, size: u64) -> Result<u64, Report> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(ROLE)
        .args([&arguments.plugin, &place.at("data"), &place.at("interrupted")])
        .arg(place.at("archive.key"))
        .arg(size.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take().ok_or_else(|| Report::new("the process has no output"))?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        let sent: u64 = line.parse()?;
        if sent >= size / 2 {
            child.start_kill()?;
            demand(!child.wait().await?.success(), "the process ended before it was killed")?;
            return Ok(sent);
        }
    }
    Err(Report::new("the process ended before it was killed"))
}

/// The process that is killed: slow enough to be killed in the middle, it prints how many bytes the
/// plugin has sent.
async fn back_up_slowly() -> Result<(), Report> {
    const SECONDS: u64 = 3;

    let given: Vec<PathBuf> = std::env::args_os().skip(2).map(PathBuf::from).collect();
    let [plugin, data, root, key, size] = given.as_slice() else {
        return Err(Report::new("this role is for the example itself"));
    };
    let size: u64 = size.to_string_lossy().parse()?;
    let key = KeySource::file(key);
    let engine = place::engine(plugin, data, root, key)
        .bytes_per_second(NonZeroU64::MIN.saturating_add(size / SECONDS))
        .start()
        .await?;
    let item = discover(&engine).await?;
    let mut events = engine.subscribe();
    engine.backup(&item).id(OPERATION).submit().await?;
    while let Some(event) = events.next().await {
        match event {
            Event::Progress { progress, .. } => {
                let mut output = std::io::stdout().lock();
                writeln!(output, "{}", progress.done)?;
                output.flush()?;
            }
            Event::Phase { phase, .. } if phase.is_final() => break,
            _ => {}
        }
    }
    Ok(())
}

/// The pack files of an archive.
struct Packs {
    count: usize,
    bytes: u64,
}

impl fmt::Display for Packs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packs = if self.count == 1 { "pack" } else { "packs" };
        write!(f, "{} {packs} on disk, {}", self.count, bytes(self.bytes))
    }
}

/// Looks for files below `archive/*/packs`, also for those that were never completed.
fn packs(archive: &Path) -> io::Result<Packs> {
    let mut packs = Packs { count: 0, bytes: 0 };
    let mut waiting: Vec<PathBuf> = Vec::new();
    for item in fs::read_dir(archive)? {
        waiting.push(item?.path().join("packs"));
    }
    while let Some(directory) = waiting.pop() {
        if !directory.is_dir() {
            continue;
        }
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else {
                packs.count += 1;
                packs.bytes += metadata.len();
            }
        }
    }
    Ok(packs)
}

fn demand(holds: bool, otherwise: &str) -> Result<(), Report> {
    if holds { Ok(()) } else { Err(Report::new(otherwise)) }
}
