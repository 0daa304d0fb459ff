//! A sample plugin: backs up PostgreSQL clusters, and restores them to any moment.
//!
//! Written as a third party would write it: against `plugin-sdk` and nothing else of Mercury.
//! [`Postgres`] is the workload. A *full* point is a base backup as `pg_basebackup` makes it; a
//! *log* point holds the segments of the write-ahead log since the one before. A restore puts a
//! full point and the logs behind it into a data directory; the server that is started there
//! replays them to the end, to a time or to a place in the log, and takes writes.
//!
//! **Promise.** A log is forgotten by the server only when it is sealed: a physical replication
//! slot keeps it, and only the step after the seal moves that slot. What a crash in between leaves
//! is sent again, never lost.
//!
//! | module | does |
//! | --- | --- |
//! | `workload` | finds, decides, plans |
//! | `full_machine`, `log_machine`, `restore_machine` | the three machines |
//! | `chain` | which points a restore needs, where the next log begins: pure |
//! | `notes`, `lsn` | what a point notes; places in a log, and its segments |
//! | `server` | what is asked by SQL, and the server's errors |
//! | `programs`, `tar_watch`, `segment` | PostgreSQL's programs, and a look at what they send |
//! | `restore` | a data directory on its way to its place: files only |
//!
//! # What it needs
//!
//! `pg_basebackup` and `pg_receivewal` of the server's version or a newer one, on the same node;
//! PostgreSQL 13 or newer; a user with `REPLICATION` (also in `pg_hba.conf`) and `EXECUTE` on
//! `pg_switch_wal`; for logs one free replication slot (`max_replication_slots`). SQL goes over a
//! socket or TCP without TLS. Tablespaces outside of the data directory are refused, and so is a
//! standby.
//!
//! The server keeps its log until it is in a log point. Whoever takes no log backups says
//! `"logs": false`; whoever takes them seldom bounds `max_slot_wal_keep_size` on the server: then a
//! full point is needed once the bound was reached. A full point after which no log was taken until
//! the next one lets go of the log between them.

#![forbid(unsafe_code)]

mod chain;
mod full_machine;
mod log_machine;
mod lsn;
mod notes;
mod programs;
mod restore;
mod restore_machine;
mod segment;
mod server;
mod settings;
mod tar_watch;
mod workload;

pub use chain::{NextLog, has_no_log_since_its_base, next_log, plan};
pub use full_machine::{Copy, Full, Inspect, Release, SealFull};
pub use log_machine::{CopyLog, InspectLog, Log, ReleaseLog, SealLog};
pub use lsn::{InvalidLsn, InvalidSegmentSize, Lsn, SegmentSize};
pub use notes::{Base, Lineage, Notes, Wal};
pub use restore::ReplayTo;
pub use restore_machine::{
    Aborted, Discard, Failed, Fetch, Publish, Restore, Restored, Unpack, Wish,
};
pub use server::Look;
pub use workload::Postgres;

plugin_sdk::export!(Postgres);
