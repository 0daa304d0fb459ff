//! A shop's database is backed up while the shop goes on selling, and comes back identical.
//!
//! An engine is started with a plugin that knows SQLite's databases, loaded from a library. The
//! shop's application creates its database of 200 MB, and the first backup stores everything. Then
//! the application changes the newest 1 % of its rows, appends another 1 % and goes on committing
//! small transactions while the second backup reads: little of that is new to the archive. The
//! application comes to rest, and a third backup takes what it wrote last. A fourth one finds
//! nothing to do, and says why. The third is restored to another path: SQLite finds it sound, and
//! every table holds the same rows as the shop's.
//!
//! ```text
//! cargo run --release --example quickstart
//! cargo run --release --example quickstart -- path/to/your.db
//! ```
//!
//! With a path, your own database is backed up, left alone if nothing was committed since, restored
//! elsewhere and compared. It is only read; beside one that has a write-ahead log, SQLite needs an
//! empty `-wal` and a `-shm` file for that, and one that has none cannot commit while it is read.

mod support;

use std::path::Path;
use std::time::Duration;

use mercury::{Engine, ItemId, KeySource, Outcome};
use support::application::{self, Application};
use support::arguments::Arguments;
use support::ledger::{self, Ledger, bytes, percent};
use support::place::{self, Place};
use support::report::{self, Report};
use support::watch::{Watched, watch};
use tracing_subscriber::filter::LevelFilter;

/// How much of its rows the application changes, and appends.
const CHANGED: f64 = 0.01;
/// What a backup after such a change may store anew.
const NEW_SHARE_MAX: f64 = 0.06;
/// In a smaller database a few chunks are more than that share.
const JUDGED_BYTES_MIN: u64 = 100_000_000;

#[tokio::main]
async fn main() -> Result<(), Report> {
    if application::is_this_process() {
        return application::serve();
    }
    let arguments = Arguments::read()?;
    report::log_to_stderr(LevelFilter::WARN);
    let place = Place::new("quickstart", &arguments)?;
    if let Some(path) = &arguments.database {
        let path = path.canonicalize().map_err(|error| Report::file(path, &error))?;
        if !path.is_file() {
            return Err(Report::new(format!("{}: not a file", path.display())));
        }
        return your_own(&arguments, &place, &path).await;
    }
    let mut ledger = Ledger::default();

    let engine = start(&arguments, &place).await?;

    println!("An application creates its database.");
    let mut shop = Application::start(&place.at("data/shop.db"))?;
    let size = shop.create(arguments.bytes).await?;
    println!("  {}, {}\n", shop.path().display(), bytes(size));

    let item = discover(&engine).await?;

    println!("First backup: everything is new.");
    back_up(&engine, &item, "first", &mut ledger).await?;

    println!("Second backup: 1 % of the rows changed, 1 % is new, and the application goes on.");
    shop.change(CHANGED).await?;
    shop.trade().await?;
    let second = back_up(&engine, &item, "second", &mut ledger).await?;

    println!("Third backup: the application has come to rest.");
    let commits = shop.rest().await?;
    println!("  it had committed {commits} transactions, and keeps its database open");
    let third = back_up(&engine, &item, "third", &mut ledger).await?;

    println!("Fourth backup: nothing was committed in between.");
    let fourth = back_up(&engine, &item, "fourth", &mut ledger).await?;

    let copy = place.at("restored.db");
    println!("The third backup is restored to {}.", copy.display());
    restore(&engine, &item, &third, &copy, &mut ledger).await?;
    let same = application::hashes_of_sound(&copy).await? == shop.table_hashes().await?;

    engine.shutdown(Duration::from_secs(30)).await;
    shop.close().await?;
    conclude(&place, &arguments, &ledger);
    check_share(&second, "second")?;
    check_share(&third, "third")?;
    if !matches!(fourth, Outcome::Skipped { .. }) {
        return Err(Report::new("the fourth backup was made although nothing had changed"));
    }
    verdict(same)
}

/// The same for a database that is in use for something else: it is only ever read.
async fn your_own(arguments: &Arguments, place: &Place, path: &Path) -> Result<(), Report> {
    let mut ledger = Ledger::default();
    let mut reader = Application::start(path)?;
    println!("Your database: {}, {}", path.display(), bytes(std::fs::metadata(path)?.len()));
    let before = reader.table_hashes().await?;
    println!();

    let engine = start(arguments, place).await?;
    let item = ItemId::new("sqlite", "local", text(path)?)?;

    println!("First backup: everything is new.");
    back_up(&engine, &item, "first", &mut ledger).await?;

    println!("Second backup: only if something was committed in between.");
    let second = back_up(&engine, &item, "second", &mut ledger).await?;

    let copy = place.at("restored.db");
    println!("The second backup is restored to {}.", copy.display());
    restore(&engine, &item, &second, &copy, &mut ledger).await?;
    let restored = application::hashes_of_sound(&copy).await?;
    let after = reader.table_hashes().await?;

    engine.shutdown(Duration::from_secs(30)).await;
    reader.close().await?;
    conclude(place, arguments, &ledger);
    if before != after && restored != before && restored != after {
        println!("your database was written to meanwhile: there is nothing to compare with");
        return Ok(());
    }
    verdict(restored == before || restored == after)
}

/// Starts an engine with a new key, and shows the machines that the plugin brings.
async fn start(arguments: &Arguments, place: &Place) -> Result<Engine, Report> {
    println!("An engine starts.");
    println!("  plugin  {}", arguments.plugin.display());
    println!("  archive {}", place.at("archive").display());
    println!("  state   {}\n", place.at("state").display());
    let key = KeySource::create_file(place.at("archive.key"))?;
    let builder = place::engine(&arguments.plugin, &place.at("data"), place.root(), key);
    let engine = builder.start().await?;
    for graph in engine.graphs("sqlite") {
        println!("The machine {}: {}", graph.machine, graph.doc);
        for line in graph.to_text().lines() {
            println!("  {line}");
        }
        println!();
    }
    Ok(engine)
}

/// Asks the plugin what there is to protect.
async fn discover(engine: &Engine) -> Result<ItemId, Report> {
    let items = engine.discover().await?;
    let item = items.first().ok_or_else(|| Report::new("the plugin found no database"))?;
    println!("The plugin found {}.\n", item.id);
    Ok(item.id.clone())
}

/// Backs up, and says what it cost or why it was not needed.
async fn back_up(
    engine: &Engine,
    item: &ItemId,
    name: &'static str,
    ledger: &mut Ledger,
) -> Result<Outcome, Report> {
    let Watched { outcome, took } =
        watch(engine, &format!("{name} backup"), engine.backup(item).id(name).submit()).await?;
    match &outcome {
        Outcome::BackedUp { stats, reason, .. } => println!(
            "  because {}\n  {} read, {} of it new ({}), {} stored\n",
            reason.as_deref().unwrap_or("it was asked for"),
            bytes(stats.read_bytes),
            bytes(stats.new_bytes),
            percent(stats.new_bytes, stats.read_bytes),
            bytes(stats.stored_bytes),
        ),
        Outcome::Skipped { reason, alias_of, .. } => {
            println!("  skipped: {reason}\n  the new point has the data of {alias_of}\n");
        }
        other => return Err(Report::new(format!("a backup ended as {other:?}"))),
    }
    ledger.note(&format!("{name} backup"), &outcome, took);
    Ok(outcome)
}

/// Restores the point of `backup` to `copy`.
async fn restore(
    engine: &Engine,
    item: &ItemId,
    backup: &Outcome,
    copy: &Path,
    ledger: &mut Ledger,
) -> Result<(), Report> {
    let (Outcome::BackedUp { point, .. } | Outcome::Skipped { point, .. }) = backup else {
        return Err(Report::new("there is no point to restore"));
    };
    let request = engine.restore(item, point).to(text(copy)?);
    let Watched { outcome, took } = watch(engine, "restore", request.submit()).await?;
    ledger.note("restore", &outcome, took);
    Ok(())
}

fn check_share(backup: &Outcome, name: &str) -> Result<(), Report> {
    let Outcome::BackedUp { stats, .. } = backup else {
        return Err(Report::new(format!(
            "the {name} backup was skipped although rows had changed"
        )));
    };
    let share = ledger::share(stats.new_bytes, stats.read_bytes);
    if stats.read_bytes >= JUDGED_BYTES_MIN && share > NEW_SHARE_MAX {
        return Err(Report::new(format!("the {name} backup stored more than it should have")));
    }
    Ok(())
}

fn conclude(place: &Place, arguments: &Arguments, ledger: &Ledger) {
    print!("{ledger}");
    if let Some(peak) = ledger::peak_memory_bytes() {
        println!("  the most memory that this process had at once: {}", bytes(peak));
    }
    let state = place.at("state").join("mercury.db");
    println!("\nThe engine's memory is a database, too: {}", state.display());
    println!("  sqlite3 {} 'select * from recovery_points'", state.display());
    if !arguments.keep {
        println!("  It goes now, with everything else; run this with --keep to look at it.");
    }
    println!();
}

fn verdict(same: bool) -> Result<(), Report> {
    if !same {
        return Err(Report::new("restored content differs"));
    }
    println!("restored content is identical");
    Ok(())
}

fn text(path: &Path) -> Result<&str, Report> {
    path.to_str().ok_or_else(|| Report::new("a path is not UTF-8"))
}
