//! Databases are found where they were said to be, and nowhere else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::make;
use plugin_sqlite::database::JournalMode;
use plugin_sqlite::discover::{Depth, DiscoverOptions, discover};
use plugin_sqlite::error::ErrorKind;
use tempfile::TempDir;

fn house() -> TempDir {
    let house = TempDir::new().unwrap();
    let at = |name: &str| house.path().join(name);
    fs::create_dir_all(at("deep/er")).unwrap();
    for name in ["b.db", "a.DB", "deep/c.db", "deep/er/d.sqlite"] {
        drop(make(&at(name), "DELETE", "PRAGMA page_size = 1024; CREATE TABLE t (x)"));
    }
    fs::write(at("empty.db"), b"").unwrap();
    fs::write(at("text.db"), "hello".repeat(100)).unwrap();
    fs::write(at("b.db-journal"), b"").unwrap();
    fs::write(at("notes.txt"), b"x").unwrap();
    std::os::unix::fs::symlink(at("b.db"), at("link.db")).unwrap();
    std::os::unix::fs::symlink(house.path(), at("deep/loop")).unwrap();
    house
}

#[track_caller]
fn check(house: &Path, directories: &[&str], options: &DiscoverOptions, expected: &[&str]) {
    let directories: Vec<PathBuf> = directories.iter().map(|name| house.join(name)).collect();
    let discovery = discover(&directories, options).unwrap();
    let found: Vec<_> = discovery
        .found
        .iter()
        .map(|found| found.path.strip_prefix(house).unwrap().to_str().unwrap())
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn databases_are_told_by_extension_and_first_bytes() {
    let house = house();
    let options = DiscoverOptions::default();
    check(house.path(), &[""], &options, &["a.DB", "b.db", "empty.db"]);
    check(house.path(), &["deep", "deep"], &options, &["deep/c.db"]);
    let mut options = DiscoverOptions::default();
    options.extensions = vec!["sqlite".to_owned(), "db".to_owned()];
    options.depth = Depth::Recursive;
    let all = ["a.DB", "b.db", "deep/c.db", "deep/er/d.sqlite", "empty.db"];
    check(house.path(), &[""], &options, &all);
}

#[test]
fn what_is_known_of_a_database_is_in_its_header() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("w.db");
    drop(make(&path, "WAL", "CREATE TABLE t (x)"));
    let discovery = discover(&[directory.path().into()], &DiscoverOptions::default()).unwrap();
    let [found] = &discovery.found[..] else { panic!("one database") };
    assert_eq!(found.bytes, fs::metadata(&path).unwrap().len());
    assert_eq!((found.page_size, found.journal_mode), (Some(4096), Some(JournalMode::Wal)));
}

#[test]
fn what_cannot_be_read_is_reported_and_the_rest_is_found() {
    let house = house();
    let discovery = discover(&[house.path().into()], &DiscoverOptions::default()).unwrap();
    let [error] = &discovery.unreadable[..] else { panic!("one unreadable file") };
    assert_eq!(error.kind(), ErrorKind::NotADatabase);
    assert!(error.path().ends_with("text.db"));
}

#[test]
fn a_missing_directory_is_an_error() {
    let house = house();
    for name in ["nowhere", "notes.txt"] {
        let error = discover(&[house.path().join(name)], &DiscoverOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    }
}
