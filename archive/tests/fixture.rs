//! Archives that earlier versions made restore for ever. A directory in `fixtures/` is added with
//! each new version of the format and never changed.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod common;

use std::path::{Path, PathBuf};

use archive::{Archive, ChunkSize, Item, Key, Level, Options, SealRequest, Take};
use bytes::Bytes;
use common::{EPOCH, assert_same, noise, restore, write};

/// The key of all fixtures: the bytes 0 to 31.
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn fixture(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version)
}

/// A table that compresses, 120,000 bytes long.
fn table(changed: bool) -> Bytes {
    let mut text = String::new();
    for row in 0_u64.. {
        let value = if changed && row == 2_000 { 1 } else { row * row % 9_973 };
        text += &format!("row {row:06}: value {value}\n");
        if text.len() >= 120_000 {
            break;
        }
    }
    text.truncate(120_000);
    text.into()
}

async fn check(item: &Item) {
    let points = item.points().await.unwrap();
    let ids: Vec<_> = points.iter().map(|point| point.id.as_str()).collect();
    assert_eq!(ids, ["full", "next", "same"]);
    let log = Bytes::from_static(b"a log record\n");
    for (point, table) in points.iter().zip([table(false), table(true), table(true)]) {
        assert_same(&restore(item, point, "table").await.unwrap(), &table);
        assert_same(&restore(item, point, "noise").await.unwrap(), &noise(1, 66_000));
        assert_same(&restore(item, point, "log").await.unwrap(), &log);
        assert_same(&restore(item, point, "empty").await.unwrap(), b"");
        assert!(item.verify(point, Level::Full).await.unwrap().is_sound());
    }
    assert_eq!(points[1].base, ["full".into()]);
    assert_eq!(points[1].kind, "full");
    assert_eq!(points[1].meta, "{\"lsn\":42}");
    assert_eq!(points[2].alias_of, Some("next".into()));
    assert_eq!(points[2].time_unix_ms, 1_700_000_002_000);
    assert_eq!(item.holds().await.unwrap().len(), 4);
}

async fn make(directory: &Path) {
    let key: Key = KEY.parse().unwrap();
    let mut options = Options::default();
    options.chunk_size = ChunkSize::new(4096).unwrap();
    let archive = Archive::create_dir(directory, &key).await.unwrap();
    let item = archive.with_options(options).unwrap().item("fixture").await.unwrap();
    for (n, id) in ["full", "next"].into_iter().enumerate() {
        let session = item.begin(Take::new(id, EPOCH)).await.unwrap();
        write(&session, "table", &table(n == 1)).await.unwrap();
        write(&session, "noise", &noise(1, 66_000)).await.unwrap();
        write(&session, "log", &Bytes::from_static(b"a log record\n")).await.unwrap();
        write(&session, "empty", &Bytes::new()).await.unwrap();
        let mut request = SealRequest::new(id, EPOCH, 1_700_000_000_000 + n as u64 * 1_000);
        if n == 1 {
            request = request.base("full").kind("full").meta("{\"lsn\":42}");
        }
        session.seal(request).await.unwrap();
    }
    item.release(&"full".into()).await.unwrap();
    item.seal(SealRequest::new("same", EPOCH, 1_700_000_002_000).alias_of("next")).await.unwrap();
}

#[tokio::test]
async fn an_archive_of_version_1_restores() {
    let archive = Archive::open_dir(fixture("v1"), &KEY.parse().unwrap()).await.unwrap();
    assert_eq!(archive.items().await.unwrap(), ["fixture"]);
    check(&archive.item("fixture").await.unwrap()).await;
}

#[tokio::test]
async fn an_archive_made_now_is_like_the_fixture() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path()).await;
    let archive = Archive::open_dir(directory.path(), &KEY.parse().unwrap()).await.unwrap();
    check(&archive.item("fixture").await.unwrap()).await;
}

/// `cargo test -p archive --test fixture -- --ignored` makes a fixture, if it is not there.
#[tokio::test]
#[ignore = "only for a new version of the format"]
async fn make_the_fixture() {
    let directory = fixture("v1");
    assert!(!directory.exists(), "a fixture is never changed");
    make(&directory).await;
}
