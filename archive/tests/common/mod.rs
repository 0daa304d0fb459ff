//! What the tests of this crate share: bytes to back up, a way in and out, a store that fails.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(unreachable_pub, reason = "each test program is a crate of its own")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![allow(missing_docs, reason = "test helpers are read where they are")]

pub mod faulty;

use archive::{Archive, Epoch, Item, Key, PointEntry, Receipt, Result, SealRequest, Session, Take};
use bytes::Bytes;

pub const EPOCH: Epoch = Epoch(1);

pub fn key() -> Key {
    Key::from_bytes([7; 32])
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u8, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes.into()
}

pub async fn memory() -> (std::sync::Arc<faulty::Faulty>, Item) {
    let store = faulty::Faulty::new();
    let archive = Archive::create(store.clone(), &key()).await.unwrap();
    (store, archive.item("orders").await.unwrap())
}

/// Writes one stream, in pieces of an odd size.
pub async fn write(session: &Session, name: &str, bytes: &Bytes) -> Result<Receipt> {
    let mut writer = session.stream(name)?;
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        writer.write(rest.split_to(rest.len().min(300_007))).await?;
    }
    writer.finish().await
}

/// One take, one point, both called `id`, with the given streams.
pub async fn backup(item: &Item, id: &str, streams: &[(&str, Bytes)]) -> Result<PointEntry> {
    let session = item.begin(Take::new(id, EPOCH)).await?;
    for (name, bytes) in streams {
        write(&session, name, bytes).await?;
    }
    session.seal(request(id)).await
}

pub fn request(id: &str) -> SealRequest {
    SealRequest::new(id, EPOCH, 1_700_000_000_000)
}

/// Reads one stream, first byte to last.
pub async fn restore(item: &Item, point: &PointEntry, stream: &str) -> Result<Bytes> {
    let mut sequential = item.read(point).await?.stream(stream)?.sequential();
    let mut bytes = Vec::new();
    while let Some(chunk) = sequential.next_chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

#[track_caller]
pub fn assert_same(found: &[u8], expected: &[u8]) {
    // Not `assert_eq`, which would print megabytes.
    assert!(found == expected, "{} bytes differ from {} expected", found.len(), expected.len());
}
