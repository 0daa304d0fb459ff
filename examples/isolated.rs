//! A plugin dies of a segmentation fault in the middle of a backup; the agent goes on, and so does
//! the backup.
//!
//! A plugin's library runs in processes of its own, unless the embedder asks for something else:
//! one for each run, and one for questions that belong to no run. Here an application creates a
//! database of 200 MB, and its backup begins. When half of the database is on its way, the run's
//! process gets a SIGSEGV, as if the plugin had reached for memory that is none. The engine hears
//! that the process is gone, and not that the step has failed: a moment later the same step runs
//! again in a new process, and uses up no attempt. What was stored by then is not stored again.
//! There is one recovery point, and it is restored identical.
//!
//! The first line of `main` is what lets this very program be the plugin's process.
//!
//! ```text
//! cargo run --release --example isolated
//! ```

mod support;

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::process::Command;
use std::time::Duration;

use mercury::{Engine, Event, Events, KeySource, OperationId, Outcome, Plugin, Trust};
use serde_json::json;
use support::application::{self, Application};
use support::arguments::Arguments;
use support::ledger::bytes;
use support::place::Place;
use support::report::{self, Report};
use support::watch::watch;
use tracing_subscriber::filter::LevelFilter;

const OPERATION: &str = "nightly";

fn main() -> Result<(), Report> {
    mercury::runner::serve_if_asked();
    story()
}

#[tokio::main]
async fn story() -> Result<(), Report> {
    if application::is_this_process() {
        return application::serve();
    }
    let arguments = Arguments::read_without_database()?;
    report::log_to_stderr(LevelFilter::WARN);
    let place = Place::new("isolated", &arguments)?;

    println!("An application creates its database, and leaves it alone.");
    let mut shop = Application::start(&place.at("data/shop.db"))?;
    let size = shop.create(arguments.bytes).await?;
    let hashes = shop.table_hashes().await?;
    println!("  {}, {}\n", shop.path().display(), bytes(size));
    shop.close().await?;

    println!("An engine starts; the plugin's code is not in its process.");
    let engine = start(&arguments, &place, size).await?;
    let items = engine.discover().await?;
    let item = items.first().ok_or_else(|| Report::new("the plugin found no database"))?.id.clone();
    let asked = plugin_processes()?;
    println!("  this is process {}; it asked the plugin in another\n", std::process::id());
    demand(!asked.is_empty(), "the plugin has no process of its own")?;

    println!("A backup begins, and its process dies when half of the bytes are on their way.");
    let mut events = engine.subscribe();
    let backup = engine.backup(&item).id(OPERATION).submit().await?;
    let sent = until_half(&mut events, backup.id(), size).await?;
    let run = plugin_processes()?.difference(&asked).copied().next();
    let run = run.ok_or_else(|| Report::new("the run has no process of its own"))?;
    die_of_a_segmentation_fault(run)?;
    println!("  it had sent {} of {}", bytes(sent), bytes(size));

    let finished = watch(&engine, "the same backup", engine.operation(backup.id())).await?;
    let Outcome::BackedUp { point, stats, .. } = finished.outcome else {
        return Err(Report::new(format!("the backup ended as {:?}", finished.outcome)));
    };
    println!("  the agent lives, and the backup was finished by a new process");
    println!(
        "  it read {} again; {} of that had to be stored, the rest was there\n",
        bytes(stats.read_bytes),
        bytes(stats.new_bytes),
    );

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

    demand(points.len() == 1, "there is not exactly one recovery point")?;
    demand(restored == hashes, "restored content differs")?;
    println!("restored content is identical");
    Ok(())
}

/// An engine with the plugin apart from it, slow enough for the backup to be met in the middle.
async fn start(arguments: &Arguments, place: &Place, size: u64) -> Result<Engine, Report> {
    const SECONDS: u64 = 3;

    let trust = Trust::development("an example, with a plugin from its own source tree");
    let plugin = Plugin::library(&arguments.plugin, trust)
        .config("sqlite", json!({ "directories": [place.at("data")] }));
    let engine = Engine::builder()
        .state_dir(place.at("state"))
        .archive_dir(place.at("archive"), KeySource::create_file(place.at("archive.key"))?)
        .bytes_per_second(NonZeroU64::MIN.saturating_add(size / SECONDS))
        .plugin(plugin);
    Ok(engine.start().await?)
}

/// Waits until half of the database has been sent; returns how much exactly.
async fn until_half(events: &mut Events, id: &OperationId, size: u64) -> Result<u64, Report> {
    while let Some(event) = events.next().await {
        match event {
            Event::Progress { operation, progress }
                if operation == *id && progress.done >= size / 2 =>
            {
                return Ok(progress.done);
            }
            Event::Phase { operation, phase } if operation == *id && phase.is_final() => break,
            _ => {}
        }
    }
    Err(Report::new("the backup ended before it was met"))
}

/// The processes that this one has started to be a plugin's.
fn plugin_processes() -> Result<BTreeSet<u32>, Report> {
    let mut found = BTreeSet::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        // A thread may end meanwhile, and a process, too.
        let children = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            if line.starts_with(b"plugin-runner\0") {
                found.insert(child.parse()?);
            }
        }
    }
    Ok(found)
}

fn die_of_a_segmentation_fault(process: u32) -> Result<(), Report> {
    let order = ["-c", "kill -SEGV \"$0\"", &process.to_string()];
    let obeyed = Command::new("sh").args(order).status()?;
    demand(obeyed.success(), "the process ended before it was met")
}

fn demand(holds: bool, otherwise: &str) -> Result<(), Report> {
    if holds { Ok(()) } else { Err(Report::new(otherwise)) }
}
