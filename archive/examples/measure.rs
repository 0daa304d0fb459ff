//! How fast, how small: backs up two versions of a file and restores the second.
//!
//! `cargo run --release -p archive --example measure -- DIRECTORY FIRST SECOND [CHUNK_KIB]`
//! prints what each step took and how much of the second version was new. The directory must not
//! hold an archive yet.

use std::error::Error;
use std::time::Instant;

use archive::{Archive, ChunkSize, Epoch, Item, Key, Options, SealRequest, Take};
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, first, second, rest @ ..] = arguments.as_slice() else {
        println!("usage: measure DIRECTORY FIRST SECOND [CHUNK_KIB]");
        return Ok(());
    };
    let mut options = Options::default();
    if let Some(chunk_kib) = rest.first() {
        options.chunk_size = ChunkSize::new(chunk_kib.parse::<u32>()? << 10)?;
    }
    let key = Key::generate()?;
    let item = Archive::create_dir(directory, &key).await?.with_options(options)?.item("f").await?;
    back_up(&item, "first", first).await?;
    back_up(&item, "second", second).await?;
    restore(&item).await
}

async fn back_up(item: &Item, name: &str, path: &str) -> Result<()> {
    let start = Instant::now();
    let session = item.begin(Take::new(name, Epoch(1))).await?;
    let mut stream = session.stream("file")?;
    let mut file = tokio::fs::File::open(path).await?;
    loop {
        let mut buffer = BytesMut::with_capacity(1 << 20);
        if file.read_buf(&mut buffer).await? == 0 {
            break;
        }
        stream.write(Bytes::from(buffer)).await?;
    }
    let stats = stream.finish().await?.stats;
    session.seal(SealRequest::new(name, Epoch(1), 0)).await?;
    item.release(session.take()).await?;
    let percent = 100.0 * stats.new_raw_bytes as f64 / stats.read_bytes as f64;
    println!("{name}: {:.0} MB/s", rate(stats.read_bytes, start));
    println!("  {} bytes, {} new ({percent:.2} %)", stats.read_bytes, stats.new_raw_bytes);
    println!("  {} stored, {} chunks", stats.new_stored_bytes, stats.chunks);
    Ok(())
}

async fn restore(item: &Item) -> Result<()> {
    let start = Instant::now();
    let point = item.points().await?.pop().ok_or("there is no point")?;
    let mut stream = item.read(&point).await?.stream("file")?.sequential();
    let mut length = 0;
    while let Some(chunk) = stream.next_chunk().await? {
        length += chunk.len() as u64;
    }
    println!("restore: {:.0} MB/s", rate(length, start));
    Ok(())
}

fn rate(bytes: u64, start: Instant) -> f64 {
    bytes as f64 / 1e6 / start.elapsed().as_secs_f64()
}
