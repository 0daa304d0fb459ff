//! Mercury backs up and restores any workload on a computer.
//!
//! A vendor describes its backup and restore as typed state machines in a plugin; an [`Engine`]
//! runs them: durable across any crash, throttled by rules that the plugin declares, into a
//! deduplicated, encrypted archive. Host agents embed this crate; plugins are written against
//! `plugin-sdk`.
//!
//! ```no_run
//! use std::time::Duration;
//! use mercury::{Engine, KeySource, Plugin, Trust};
//! use serde_json::json;
//!
//! # async fn story() -> Result<(), Box<dyn std::error::Error>> {
//! // In `main`, before there is a runtime: `mercury::runner::serve_if_asked()`. Plugins run in
//! // processes of their own, and that lets this program be one of them.
//! let trust = Trust::root_owned().pinned("/etc/mercury/plugins.lock");
//! let engine = Engine::builder()
//!     .state_dir("/var/lib/mercury")
//!     .archive_dir("/srv/archive", KeySource::file("/etc/mercury/archive.key"))
//!     .plugin(
//!         Plugin::library("/opt/mercury/libplugin_sqlite.so", trust)
//!             .config("sqlite", json!({ "directories": ["/srv/databases"] })),
//!     )
//!     .start()
//!     .await?;
//!
//! for item in engine.discover().await? {
//!     let backup = engine.backup(&item.id).submit().await?;
//!     println!("{}: {:?}", item.id, backup.outcome().await?);
//! }
//! engine.shutdown(Duration::from_secs(30)).await;
//! # Ok(())
//! # }
//! ```
//!
//! | to | see |
//! | --- | --- |
//! | start and stop it | [`Engine`], [`EngineBuilder`], [`Shutdown`] |
//! | give it an archive | [`KeySource`], [`Key`] |
//! | give it plugins | [`Plugin`], [`Isolation`], [`Process`], [`runner`], [`Trust`], [`SigningKey`], [`PluginLock`] |
//! | give plugins their secrets | [`SecretStore`], [`SecretDirectory`], [`MemorySecrets`] |
//! | ask for work | [`BackupRequest`], [`RestoreTo`], [`Operation`], [`Outcome`] |
//! | say what may run at once | [`EngineBuilder::streams`], [`EngineBuilder::lane`], [`Priority`] |
//! | let the workloads' programs call | [`EngineBuilder::ingress_dir`], [`CalledBy`], [`Peer`] |
//! | watch it | [`Events`], [`Event`], [`OperationStatus`] |
//! | see who waits for whom | [`Engine::waiting`], [`Snapshot`], [`WaitsFor`] |
//! | act on an error | [`Error`], [`ErrorKind`], [`Class`] |
//!
//! An engine installs no global state: no runtime, no `tracing` subscriber, no signal handler. It
//! runs on the tokio runtime that [`EngineBuilder::start`] is called in.

#![forbid(unsafe_code)]

mod admission;
mod catalog;
mod convert;
mod engine;
mod error;
mod events;
mod ingress;
mod key;
mod operation;
mod plugins;
mod secrets;

/// The program as the process of an isolated plugin.
pub mod runner {
    pub use plugin_sdk::runner::serve_if_asked;
}

pub use archive::Key;
pub use engine::{
    BackupRequest, Engine, EngineBuilder, LostExclusion, Operation, RestoreTo, Shutdown,
};
pub use error::{Error, ErrorKind};
pub use events::{Event, Events};
pub use fsm_core::{Class, Environment, Fault, Graph, Progress, RunId, Timestamp};
pub use key::KeySource;
pub use operation::{BackupStats, CalledBy, OperationStatus, Outcome, Phase, Task, WaitsFor};
pub use plugin_sdk::{
    Item, ItemId, OperationId, Overwrite, Peer, PointId, PointKind, PointMeta, Secret, Until,
    async_trait,
    host::{PluginLock, Process, Runner, SigningKey, Trust},
};
pub use plugins::{Isolation, Plugin};
pub use secrets::{MemorySecrets, SecretDirectory, SecretStore};
pub use throttle::{Priority, Scope, Snapshot};

/// The examples in the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
