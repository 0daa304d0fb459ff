//! What a small change costs when it lands everywhere in a database.
//!
//! An archive stores only what is new, in pieces of tens of kilobytes. How much that is depends on
//! where the changes lie. A database whose keys are random is the unkind case: each new row goes to
//! a random page, and a piece is new if one of its pages is. Here the newest 1 % of the rows are
//! changed and another 1 % is appended, in two layouts: a table in the order of arrival with a
//! unique index over random keys, and a table whose rows themselves lie in the order of random
//! keys. What the second backup stored is printed beside the share of 4 KiB pages that truly
//! differ, as the two restored databases show.
//!
//! ```text
//! cargo run --release --example scattered
//! ```

mod support;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use mercury::{BackupStats, Engine, ItemId, KeySource, Outcome};
use support::application::{self, Application};
use support::arguments::Arguments;
use support::dataset::Scattered;
use support::ledger::{bytes, percent};
use support::place::{self, Place};
use support::report::{self, Report};
use support::watch::watch;
use tracing_subscriber::filter::LevelFilter;

const CHANGED: f64 = 0.01;
const PAGE_BYTES: usize = 4_096;

#[tokio::main]
async fn main() -> Result<(), Report> {
    if application::is_this_process() {
        return application::serve();
    }
    let arguments = Arguments::read_without_database()?;
    report::log_to_stderr(LevelFilter::WARN);
    let place = Place::new("scattered", &arguments)?;
    let key = KeySource::create_file(place.at("archive.key"))?;
    let builder = place::engine(&arguments.plugin, &place.at("data"), place.root(), key);
    let engine = builder.start().await?;

    let layouts = [
        (Scattered::Index, "index", "A unique index over random keys."),
        (Scattered::Rows, "rows", "Rows in the order of random keys."),
    ];
    for (layout, name, story) in layouts {
        println!("{story}");
        let mut application = Application::start(&place.at(&format!("data/{name}.db")))?;
        application.create_scattered(arguments.bytes, layout).await?;
        let item = item(&engine, application.path()).await?;
        let before = place.at(&format!("{name}-before.db"));
        back_up_and_restore(&engine, &item, &before).await?;

        application.change_scattered(CHANGED).await?;
        let after = place.at(&format!("{name}-after.db"));
        let cost = back_up_and_restore(&engine, &item, &after).await?;
        let (different, pages) = different_pages(&before, &after)?;
        println!("  the newest 1 % of the rows are changed, 1 % is appended");
        println!("  pages that differ: {different} of {pages} ({})", percent(different, pages),);
        println!(
            "  bytes stored anew: {} of {} ({}), {} when compressed",
            bytes(cost.new_bytes),
            bytes(cost.read_bytes),
            percent(cost.new_bytes, cost.read_bytes),
            bytes(cost.stored_bytes),
        );
        let restored = application::hashes_of_sound(&after).await?;
        if restored != application.table_hashes().await? {
            return Err(Report::new("restored content differs"));
        }
        application.close().await?;
    }
    engine.shutdown(Duration::from_secs(30)).await;
    println!("restored content is identical");
    Ok(())
}

/// The item that is the database at `path`.
async fn item(engine: &Engine, path: &Path) -> Result<ItemId, Report> {
    let items = engine.discover().await?;
    let found = items.into_iter().find(|item| Path::new(item.id.name()) == path);
    Ok(found.ok_or_else(|| Report::new("the plugin found no database"))?.id)
}

async fn back_up_and_restore(
    engine: &Engine,
    item: &ItemId,
    copy: &Path,
) -> Result<BackupStats, Report> {
    let backup = watch(engine, "backup", engine.backup(item).submit()).await?;
    let Outcome::BackedUp { point, stats, .. } = backup.outcome else {
        return Err(Report::new(format!("the backup ended as {:?}", backup.outcome)));
    };
    let target = copy.to_str().ok_or_else(|| Report::new("a path is not UTF-8"))?;
    watch(engine, "restore", engine.restore(item, &point).to(target).submit()).await?;
    Ok(stats)
}

/// How many pages of `after` are not the same in `before`, and how many it has.
fn different_pages(before: &Path, after: &Path) -> io::Result<(u64, u64)> {
    let (before, after) = (File::open(before)?, File::open(after)?);
    let page_bytes = PAGE_BYTES as u64;
    let pages_before = before.metadata()?.len() / page_bytes;
    let pages = after.metadata()?.len() / page_bytes;
    let (mut before, mut after) = (BufReader::new(before), BufReader::new(after));
    let (mut old, mut new) = ([0; PAGE_BYTES], [0; PAGE_BYTES]);
    let mut different = pages.saturating_sub(pages_before);
    for _ in 0..pages.min(pages_before) {
        before.read_exact(&mut old)?;
        after.read_exact(&mut new)?;
        different += u64::from(old != new);
    }
    Ok((different, pages))
}
