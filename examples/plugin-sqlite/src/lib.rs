//! A sample plugin: backs up and restores live SQLite databases.
//!
//! Written as a third party would write it: against `plugin-sdk` and nothing else of Mercury.
//! [`Sqlite`] is the workload; it finds databases, decides whether one has changed, and has two
//! machines, `Backup` and `Restore`, whose states are the modules of those names. What they do to
//! files is in modules that know nothing of Mercury:
//!
//! | module | does |
//! | --- | --- |
//! | [`discover`](mod@discover) | finds databases in directories |
//! | [`database`] | opens one without ever changing it |
//! | [`churn`] | tells from the outside whether one has changed |
//! | [`snapshot`] | reads one moment of a live one, page by page |
//! | [`restore`] | writes one, and puts it in place so that a crash leaves the old or the new |

#![forbid(unsafe_code)]

mod backup_machine;
mod faults;
mod header;
mod raw_file;
mod restore_machine;
mod workload;

pub mod churn;
pub mod database;
pub mod discover;
pub mod error;
pub mod restore;
pub mod snapshot;

pub use backup_machine::{Backup, Copy, Inspect};
pub use restore_machine::{Aborted, Discard, Failed, Publish, Receive, Restore, Restored};
pub use workload::Sqlite;

plugin_sdk::export!(Sqlite);
