//! What the tests of the SQLite store share: records, and child processes that can be broken.
#![allow(dead_code)] // Each test program uses its own part.

pub(crate) mod child;
#[cfg(target_os = "linux")]
pub(crate) mod shim;

use std::path::Path;

use fsm_core::{
    Body, Data, Journal, JournalError, Record, RunId, Timestamp,
    sqlite::{SqliteJournal, Store, rusqlite},
};
use futures::executor::block_on;

pub(crate) fn id(text: &str) -> RunId {
    RunId::new(text).unwrap()
}

/// Opens the journal in the file at `path`.
pub(crate) fn open(path: &Path) -> Result<SqliteJournal, JournalError> {
    SqliteJournal::new(Store::open(path)?)
}

/// A connection like any SQLite tool's.
pub(crate) fn tool(path: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).unwrap()
}

pub(crate) fn record(run: &str, seq: u64, body: Body) -> Record {
    Record { run: id(run), seq, at: Timestamp::from_unix_ms(1_000 + seq), body }
}

/// The run's `seq`th entry, with `bytes` of data, which say the number.
pub(crate) fn enter_with(run: &str, seq: u64, bytes: usize) -> Record {
    let number = seq.to_string();
    let zeros = "0".repeat(bytes.saturating_sub(number.len()));
    let body = Body::Enter {
        entry: seq,
        machine: "job".to_owned(),
        version: 1,
        origin: "tests 1".to_owned(),
        graph: "graph".to_owned(),
        state: "work".to_owned(),
        data: Data::from_bytes((zeros + &number).into_bytes()),
        wake_at: None,
        carried: Box::default(),
    };
    record(run, seq, body)
}

pub(crate) fn enter(run: &str, seq: u64) -> Record {
    enter_with(run, seq, 100)
}

pub(crate) fn append(journal: &SqliteJournal, record: Record) -> Result<(), JournalError> {
    block_on(journal.append(vec![record]))
}

/// The numbers of the run's records, which must be contiguous and say what was written.
#[track_caller]
pub(crate) fn check_history(journal: &SqliteJournal, run: &str) -> u64 {
    let history = block_on(journal.history(&id(run))).unwrap();
    for (place, record) in history.iter().enumerate() {
        assert_eq!(record.seq, place as u64 + 1, "{run}");
        let Body::Enter { entry, data, .. } = &record.body else { panic!("{record:?}") };
        assert_eq!(*entry, record.seq, "{run}");
        let said: u64 = data.as_text().unwrap().parse().unwrap();
        assert_eq!(said, record.seq, "{run}");
    }
    let head = block_on(journal.head(&id(run))).unwrap();
    assert_eq!(head.unwrap_or(0), history.len() as u64, "{run}");
    let loaded = block_on(journal.load(&id(run))).unwrap();
    assert_eq!(loaded.map_or(0, |snapshot| snapshot.seq), history.len() as u64, "{run}");
    history.len() as u64
}

/// A xorshift generator: the same numbers for the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    /// From the environment variable `FSM_CORE_SEED`, or at random; printed, so that a failure
    /// can be had again.
    pub(crate) fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        let given = std::env::var("FSM_CORE_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0)) | 1;
        println!("seed: FSM_CORE_SEED={seed}");
        Dice(seed)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Keeps the writer's thread busy until the sender is used or dropped.
pub(crate) fn block(store: &Store) -> std::sync::mpsc::Sender<()> {
    let (release, blocked) = std::sync::mpsc::channel();
    let (begun, begins) = std::sync::mpsc::channel();
    drop(store.write(move |_| {
        let _ = begun.send(());
        let _ = blocked.recv();
        Ok::<_, JournalError>(())
    }));
    begins.recv().unwrap();
    release
}
