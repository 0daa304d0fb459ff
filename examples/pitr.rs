//! Somebody deletes the orders of a shop, and the shop comes back as it was a moment before.
//!
//! A PostgreSQL server is started in a temporary directory, and an engine with the plugin for it,
//! loaded from a library. The shop takes orders, and everything is backed up once. It takes more,
//! and the server's log is backed up, which takes little. At noon all is well; then a statement
//! without a `WHERE` deletes every order, and nobody notices before the next log backup. The
//! cluster is restored to noon beside the damaged one: a second server replays the log up to that
//! moment, and every order is there.
//!
//! ```text
//! cargo run --release --example pitr
//! ```
//!
//! It needs the programs of a PostgreSQL server (on Debian, `apt install postgresql-15`), and says
//! so and ends well without them.

mod support;

use std::{path::Path, time::Duration};

use mercury::{
    Engine, ItemId, KeySource, Outcome, Plugin, PointId, PointKind, Timestamp, Trust, Until,
};
use serde_json::json;
use support::cluster::{Cluster, Programs, directory};
use support::{
    arguments,
    report::{self, Report},
};
use tracing_subscriber::filter::LevelFilter;

#[tokio::main]
async fn main() -> Result<(), Report> {
    report::log_to_stderr(LevelFilter::ERROR);
    let Some(programs) = Programs::or_skip("the story of a restore to a moment") else {
        return Ok(());
    };
    let root = directory("mercury-pitr-");

    println!("A server and an engine start.");
    let shop = Cluster::start(&programs);
    shop.ask("CREATE TABLE orders (id serial PRIMARY KEY, goods text, placed timestamptz)");
    let engine = start(&shop, root.path()).await?;
    let item = discover(&engine).await?;

    println!("The shop takes 20,000 orders, and everything is backed up.");
    take_orders(&shop, 20_000);
    let full = back_up(&engine, &item, PointKind::Full, "sunday").await?;

    println!("It takes 500 more. Only the log is backed up.");
    take_orders(&shop, 500);
    back_up(&engine, &item, PointKind::Log, "morning").await?;

    println!("Nothing happens, and nothing is backed up.");
    back_up(&engine, &item, PointKind::Log, "break").await?;

    take_orders(&shop, 250);
    let noon = now(&shop);
    let orders = fingerprint(&shop);
    println!("At noon there are {}.", told(&orders));
    shop.ask("DELETE FROM orders");
    shop.ask("INSERT INTO orders (goods, placed) VALUES ('an order of the afternoon', now())");
    println!("Somebody deletes every order; the next log backup takes that, too.");
    back_up(&engine, &item, PointKind::Log, "afternoon").await?;

    let point = engine.point_covering(&item, noon).await?;
    println!("Noon is covered by {point}.");
    let target = root.path().join("noon");
    restore(&engine, &item, &point, Some(noon), &target).await?;
    let restored = start_restored(&programs, &target)?;
    println!("  a server replayed the log up to noon: {}\n", told(&fingerprint(&restored)));
    let is_same = fingerprint(&restored) == orders;
    drop(restored);

    println!("The full backup alone gives what there was when it was made.");
    let target = root.path().join("sunday");
    restore(&engine, &item, &full, None, &target).await?;
    let sunday = start_restored(&programs, &target)?;
    println!("  {}\n", told(&fingerprint(&sunday)));
    drop(sunday);

    engine.shutdown(Duration::from_secs(30)).await;
    if !is_same {
        return Err(Report::new("restored content differs"));
    }
    println!("restored content is identical");
    Ok(())
}

/// Starts an engine that knows the shop's server by its socket.
async fn start(shop: &Cluster, root: &Path) -> Result<Engine, Report> {
    let library = arguments::built_beside(&std::env::current_exe()?, "plugin_postgres");
    // Whoever ships a plugin puts it where only the administrator can write, and says
    // `Trust::root_owned()` instead.
    let trust = Trust::development("an example, with a plugin from its own source tree");
    let config = json!({ "clusters": [{ "name": "shop", "host": shop.socket() }] });
    let engine = Engine::builder()
        .state_dir(root.join("state"))
        .archive_dir(root.join("archive"), KeySource::create_file(root.join("archive.key"))?)
        .plugin(Plugin::library(library, trust).in_process().config("postgres", config))
        .start()
        .await?;
    Ok(engine)
}

async fn discover(engine: &Engine) -> Result<ItemId, Report> {
    let items = engine.discover().await?;
    let item = items.first().ok_or_else(|| Report::new("the plugin found no cluster"))?;
    println!("  the plugin found {}\n", item.id);
    Ok(item.id.clone())
}

/// Backs up, and says what it cost or why it was not needed.
async fn back_up(
    engine: &Engine,
    item: &ItemId,
    kind: PointKind,
    name: &str,
) -> Result<PointId, Report> {
    let outcome = engine.backup(item).kind(kind).id(name).submit().await?.outcome().await?;
    match outcome {
        Outcome::BackedUp { point, stats, .. } => {
            let kib = |bytes: u64| bytes.div_ceil(1024);
            let (read, stored) = (kib(stats.read_bytes), kib(stats.stored_bytes));
            println!("  {kind} point {point}: {read} KiB read, {stored} KiB stored\n");
            Ok(point)
        }
        Outcome::Skipped { reason, point, .. } => {
            println!("  skipped: {reason}\n");
            Ok(point)
        }
        other => Err(Report::new(format!("a backup ended as {other:?}"))),
    }
}

/// Restores into a new data directory.
async fn restore(
    engine: &Engine,
    item: &ItemId,
    point: &PointId,
    until: Option<Timestamp>,
    target: &Path,
) -> Result<(), Report> {
    let path = target.to_str().ok_or_else(|| Report::new("a path is not UTF-8"))?;
    let mut request = engine.restore(item, point).to(path);
    if let Some(time) = until {
        request = request.until(Until::Time(time));
    }
    request.submit().await?.outcome().await?;
    Ok(())
}

fn start_restored(programs: &Programs, data: &Path) -> Result<Cluster, Report> {
    Cluster::start_restored(programs, data).map_err(Report::new)
}

fn take_orders(shop: &Cluster, count: u32) {
    let goods = "md5(n::text) || repeat(' a box', 5)";
    shop.ask(&format!(
        "INSERT INTO orders (goods, placed) SELECT {goods}, now() FROM generate_series(1, {count}) n"
    ));
}

/// The server's time, in a millisecond that is over.
fn now(shop: &Cluster) -> Timestamp {
    let now = shop.ask("SELECT ceil(extract(epoch FROM clock_timestamp()) * 1000)::int8");
    shop.ask("SELECT pg_sleep(0.005)");
    Timestamp::from_unix_ms(now.parse().unwrap_or_default())
}

/// How many orders there are, and a hash of all of them.
fn fingerprint(shop: &Cluster) -> String {
    shop.ask("SELECT count(*), md5(string_agg(orders::text, ',' ORDER BY id)) FROM orders")
}

fn told(fingerprint: &str) -> String {
    format!("{} orders", fingerprint.split('|').next().unwrap_or_default())
}
