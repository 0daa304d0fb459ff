//! A table is backed up, a few rows change, it is backed up again, and both versions come back.
//!
//! `cargo run -p archive --example roundtrip`

use std::error::Error;

use archive::{Archive, Epoch, Item, Key, PointEntry, SealRequest, Take};
use bytes::Bytes;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    // Whoever has the key can restore; whoever loses it cannot.
    let directory = tempfile::tempdir()?;
    let key = Key::generate()?;
    let archive = Archive::create_dir(directory.path(), &key).await?;
    let item = archive.item("orders").await?;

    let monday = table(|_| 0);
    let first = back_up(&item, "monday", &monday).await?;

    let tuesday = table(|row| u64::from(row % 50_000 == 7));
    let second = back_up(&item, "tuesday", &tuesday).await?;

    // Another process, perhaps on another node: the directory and the key are all it has.
    let archive = Archive::open_dir(directory.path(), &key).await?;
    let item = archive.find_item("orders").await?.ok_or("no such item")?;
    println!("points: {}", item.points().await?.len());
    println!("monday is restored: {}", restore(&item, &first).await? == monday);
    println!("tuesday is restored: {}", restore(&item, &second).await? == tuesday);
    Ok(())
}

/// Writes one stream and makes a recovery point of it.
async fn back_up(item: &Item, name: &str, table: &Bytes) -> Result<PointEntry> {
    let session = item.begin(Take::new(name, Epoch(1))).await?;
    let mut stream = session.stream("table")?;
    for piece in 0..table.len().div_ceil(1 << 20) {
        let start = piece << 20;
        stream.write(table.slice(start..table.len().min(start + (1 << 20)))).await?;
    }
    // From here on the bytes survive a power cut, and the source may forget them.
    let receipt = stream.finish().await?;
    // From here on they can be restored.
    let point = session.seal(SealRequest::new(name, Epoch(1), 1_700_000_000_000)).await?;
    item.release(session.take()).await?;
    println!("{name}: {} of {} bytes are new", receipt.stats.new_raw_bytes, receipt.length);
    Ok(point)
}

/// Checks that all is there, then reads the stream from first byte to last.
async fn restore(item: &Item, point: &PointEntry) -> Result<Bytes> {
    let reader = item.read(point).await?;
    reader.verify_present().await?;
    let mut stream = reader.stream("table")?.sequential();
    let mut table = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        table.extend_from_slice(&chunk);
    }
    Ok(table.into())
}

fn table(version: impl Fn(u64) -> u64) -> Bytes {
    let row = |row: u64| format!("row {row:06}: {}\n", row * row % 9_973 + version(row));
    (0..200_000).map(row).collect::<String>().into()
}
