//! What the tests share: databases, whole snapshots, hashes of files.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]

#[path = "../../../support/content.rs"]
pub mod content;
#[path = "../../../support/dataset.rs"]
pub mod dataset;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use plugin_sqlite::database::Database;
use plugin_sqlite::error::Error;
use plugin_sqlite::snapshot::Snapshot;
use rusqlite::Connection;

/// Makes a database in the given journal mode and runs `sql` in it.
pub fn make(path: &Path, journal_mode: &str, sql: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    connection.pragma_update(None, "journal_mode", journal_mode).unwrap();
    connection.execute_batch(sql).unwrap();
    connection
}

pub fn open(path: &Path) -> Result<Database, Error> {
    Database::open_read_only(path, Duration::from_millis(50))
}

/// Reads a snapshot to its end through a buffer of that size.
pub fn read_all(snapshot: &mut Snapshot, buffer_bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; buffer_bytes];
    let mut all = Vec::new();
    loop {
        let length = snapshot.read_into(&mut buffer).unwrap();
        if length == 0 {
            assert_eq!(all.len() as u64, snapshot.len_bytes());
            return all;
        }
        all.extend_from_slice(&buffer[..length]);
    }
}

/// Backs `source` up into the plain file `copy`.
pub fn back_up(source: &Path, copy: &Path) {
    let mut snapshot = Snapshot::begin(open(source).unwrap()).unwrap();
    fs::write(copy, read_all(&mut snapshot, 1 << 20)).unwrap();
}

/// SQLite's own opinion of a database.
pub fn integrity(path: &Path) -> String {
    let connection = Connection::open(path).unwrap();
    connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

pub fn hash(path: &Path) -> Option<blake3::Hash> {
    fs::read(path).ok().map(|bytes| blake3::hash(&bytes))
}

/// Runs one ignored test of this program in a process of its own, after some shell `setup`.
pub fn child(test: &str, setup: &str, variables: &[(&str, &str)]) -> ExitStatus {
    let script = format!("{setup} exec \"$0\" \"$@\"");
    Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .envs(variables.iter().copied())
        .output()
        .unwrap()
        .status
}

/// SplitMix64, for tests that print their seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
