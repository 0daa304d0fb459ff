//! What goes in comes out, whatever it is.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod common;

use archive::{Archive, Options};
use bytes::Bytes;
use common::{assert_same, backup, key, memory, noise, restore};
use object_store::memory::InMemory;

/// Backs `bytes` up and reads them back, from first to last and here and there.
async fn check(bytes: Bytes) {
    let (_, item) = memory().await;
    let point = backup(&item, "p", &[("s", bytes.clone())]).await.unwrap();
    assert_eq!(point.streams[0].length, bytes.len() as u64);
    assert_same(&restore(&item, &point, "s").await.unwrap(), &bytes);
    let stream = item.read(&point).await.unwrap().stream("s").unwrap();
    let length = bytes.len() as u64;
    assert_eq!(stream.len(), length);
    for offset in [0, 1, length / 3, length / 2, length.saturating_sub(1), length] {
        for wanted in [0, 1, 4096, 700_000] {
            let offset = offset.min(length);
            let end = (offset + wanted).min(length);
            let found = stream.read_at(offset, wanted).await.unwrap();
            assert_same(&found, &bytes[offset as usize..end as usize]);
        }
    }
    assert!(stream.read_at(length + 1, 1).await.is_err());
    assert!(item.verify(&point, archive::Level::Full).await.unwrap().is_sound());
}

#[tokio::test]
async fn an_empty_stream_comes_back_empty() {
    check(Bytes::new()).await;
}

#[tokio::test]
async fn one_byte_comes_back() {
    check(Bytes::from_static(b"x")).await;
}

#[tokio::test]
async fn streams_around_the_inline_limit_come_back() {
    for length in [65_535, 65_536, 65_537] {
        check(noise(1, length)).await;
    }
}

#[tokio::test]
async fn bytes_that_do_not_compress_come_back() {
    check(noise(1, 3_000_000)).await;
}

#[tokio::test]
async fn zeros_come_back() {
    check(vec![0; 5_000_001].into()).await;
}

#[tokio::test]
async fn text_comes_back() {
    let lines: String =
        (0..100_000_u64).map(|n| format!("row {n}: value {}\n", n * n % 977)).collect();
    check(lines.into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_longer_than_a_pack_comes_back() {
    check(noise(2, 40_000_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_streams_written_at_once_come_back() {
    let (_, item) = memory().await;
    let (a, b) = (noise(1, 9_000_000), noise(2, 7_000_000));
    let session = item.begin(archive::Take::new("t", common::EPOCH)).await.unwrap();
    let tasks = [("a", a.clone()), ("b", b.clone())].map(|(name, bytes)| {
        let session = session.clone();
        tokio::spawn(async move { common::write(&session, name, &bytes).await })
    });
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let point = session.seal(common::request("p")).await.unwrap();
    assert_same(&restore(&item, &point, "a").await.unwrap(), &a);
    assert_same(&restore(&item, &point, "b").await.unwrap(), &b);
}

#[tokio::test]
async fn what_the_caller_said_of_a_point_comes_back() {
    let (store, item) = memory().await;
    backup(&item, "full", &[("s", noise(1, 10))]).await.unwrap();
    let session = item.begin(archive::Take::new("t", common::EPOCH)).await.unwrap();
    common::write(&session, "log", &noise(2, 20)).await.unwrap();
    let request = common::request("log-1").kind("log").base("full").meta(vec![0, 255]);
    let sealed = session.seal(request).await.unwrap();
    // Another process sees the same.
    let archive = Archive::open(store, &key()).await.unwrap();
    assert_eq!(archive.items().await.unwrap(), ["orders"]);
    let item = archive.find_item("orders").await.unwrap().unwrap();
    let points = item.points().await.unwrap();
    assert_eq!(points[1], sealed);
    assert_eq!((points[0].seq, points[1].seq), (1, 2));
    assert_eq!(points[1].kind, "log");
    assert_eq!(points[1].base, ["full".into()]);
    assert_eq!(points[1].meta, vec![0, 255]);
    assert_eq!(points[1].time_unix_ms, 1_700_000_000_000);
}

#[tokio::test]
async fn small_packs_and_large_ones_hold_the_same() {
    let bytes = noise(5, 6_000_000);
    for pack_bytes in [1 << 20, 32 << 20] {
        let store = std::sync::Arc::new(InMemory::new());
        let archive = Archive::create(store, &key()).await.unwrap();
        let mut options = Options::default();
        options.pack_bytes = pack_bytes;
        let archive = archive.with_options(options).unwrap();
        let item = archive.item("i").await.unwrap();
        let point = backup(&item, "p", &[("s", bytes.clone())]).await.unwrap();
        assert_same(&restore(&item, &point, "s").await.unwrap(), &bytes);
        let packs = item.verify(&point, archive::Level::Present).await.unwrap().packs;
        assert_eq!(packs, if pack_bytes == 1 << 20 { 6 } else { 1 });
    }
}
