//! An archive in a directory.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use archive::{Archive, ErrorKind, Key};
use common::{assert_same, backup, key, noise, restore};

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => waiting.push(path),
                false => found.push(path.strip_prefix(directory).unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn an_archive_in_a_directory_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/vault");
    let bytes = noise(1, 2_000_000);
    let item = Archive::create_dir(&path, &key()).await.unwrap().item("orders").await.unwrap();
    backup(&item, "p", &[("s", bytes.clone())]).await.unwrap();
    let archive = Archive::open_dir(&path, &key()).await.unwrap();
    let item = archive.find_item("orders").await.unwrap().unwrap();
    let point = item.points().await.unwrap().pop().unwrap();
    assert_same(&restore(&item, &point, "s").await.unwrap(), &bytes);
    assert!(archive.find_item("other").await.unwrap().is_none());
}

#[tokio::test]
async fn opening_what_is_not_there_makes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vault");
    let error = Archive::open_dir(&path, &key()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!path.exists());
    fs::create_dir(&path).unwrap();
    let error = Archive::open_dir(&path, &key()).await.unwrap_err();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::NotFound, "archive.json"));
    Archive::open_or_create_dir(&path, &key()).await.unwrap();
    Archive::open_or_create_dir(&path, &key()).await.unwrap();
    let error = Archive::create_dir(&path, &key()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    let error = Archive::open_dir(&path, &Key::from_bytes([8; 32])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongKey);
}

#[tokio::test]
async fn staging_files_of_dead_writers_are_removed_and_those_of_the_living_stay() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let item = Archive::create_dir(path, &key()).await.unwrap().item("orders").await.unwrap();
    backup(&item, "p", &[("s", noise(1, 100_000))]).await.unwrap();
    let before = files(path);
    let pack = before.iter().find(|file| file.to_str().unwrap().contains("packs")).unwrap();
    let staging = |number: u32| path.join(format!("{}#{number}", pack.display()));
    fs::write(staging(1), "half a pack").unwrap();
    fs::write(staging(2), "half a pack").unwrap();
    let hours_ago = SystemTime::now() - Duration::from_secs(7200);
    fs::File::options().write(true).open(staging(1)).unwrap().set_modified(hours_ago).unwrap();
    Archive::open_dir(path, &key()).await.unwrap();
    assert!(!staging(1).exists() && staging(2).exists());
    fs::remove_file(staging(2)).unwrap();
    assert_eq!(files(path), before);
}

#[tokio::test]
async fn a_directory_and_a_store_in_memory_hold_the_same_kinds_of_objects() {
    let directory = tempfile::tempdir().unwrap();
    let archive = Archive::create_dir(directory.path(), &key()).await.unwrap();
    let local = archive.item("orders").await.unwrap();
    let (store, memory) = common::memory().await;
    for item in [&local, &memory] {
        backup(item, "full", &[("data", noise(1, 500_000)), ("log", noise(2, 10))]).await.unwrap();
        backup(item, "next", &[("data", noise(1, 500_000))]).await.unwrap();
    }
    let shape = |name: &str| -> String {
        // Names that depend on random keys or salts are digits of a hash; all else is fixed.
        let parts = name.split('/').map(|part| match part.len() {
            32 | 64 => "#",
            2 => "hh",
            37 => "hold-#",
            _ => part,
        });
        parts.collect::<Vec<_>>().join("/")
    };
    let mut here: Vec<_> =
        files(directory.path()).iter().map(|file| shape(file.to_str().unwrap())).collect();
    let mut there: Vec<_> = store.names().await.iter().map(|name| shape(name)).collect();
    here.sort();
    there.sort();
    assert_eq!(here, there);
    let expected = [
        "#/keys/1",
        "#/open/#/00000000",
        "#/open/#/00000000",
        "#/open/#/hold-#",
        "#/open/#/hold-#",
        "#/open/#/hold-#",
        "#/packs/hh/#",
        "#/points/00000000000000000001",
        "#/points/00000000000000000002",
        "archive.json",
        "keys/#",
    ];
    assert_eq!(here, expected);
}
