//! What a plugin is written against.
//!
//! A plugin describes how one kind of system (a *workload*) is backed up and restored: a
//! [`Workload`] finds items, decides what a wanted backup needs, and has typed state machines that
//! do the work. The same crate is loaded as a dynamic library or linked into a host; one line,
//! [`export!`], makes the difference.
//!
//! ```
//! use plugin_sdk::{
//!     Config, Context, Decision, Fault, Host, Item, ItemId, Machine, Machines, Manifest,
//!     Operation, PointKind, PointMeta, PointNotes, RestoreRequest, RunPlan, Seal, Sealed, State, Step, Take,
//!     Wanted, Workload, async_trait, check, go,
//! };
//! use serde::{Deserialize, Serialize};
//! use std::sync::Arc;
//!
//! /// Backs up one greeting.
//! struct Greeting;
//!
//! struct Backup;
//! impl Machine for Backup {
//!     const NAME: &'static str = "backup";
//!     type Host = Host;
//!     type Initial = Send;
//!     type States = (Send, Seal, Sealed);
//! }
//! check!(Backup);
//!
//! #[derive(Serialize, Deserialize)]
//! struct Send;
//! impl State<Backup> for Send {
//!     const NAME: &'static str = "send";
//!     type Next = (Seal,);
//!     async fn run(self, _: &Backup, cx: &mut Context<'_, Backup>) -> Step<Self> {
//!         let take = match cx.host().take("greeting").await? {
//!             Take::Begun(take) => {
//!                 let mut sink = take.stream("text").await?;
//!                 let mut buffer = sink.buffer(5).await?;
//!                 buffer[..5].copy_from_slice(b"hello");
//!                 sink.send(buffer.freeze(5)).await?;
//!                 sink.finish().await?;
//!                 take.finish().await?
//!             }
//!             Take::Finished(take) => take,
//!         };
//!         go(Seal::full(take, PointNotes::new()))
//!     }
//! }
//!
//! #[async_trait]
//! impl Workload for Greeting {
//!     fn manifest() -> Manifest {
//!         let full = Operation::Backup(PointKind::Full);
//!         Manifest::new("plugin-greeting", "0.1.0", "greeting").operation(full)
//!     }
//!     fn open(_: Config) -> Result<Self, Fault> {
//!         Ok(Greeting)
//!     }
//!     async fn discover(&self) -> Result<Vec<Item>, Fault> {
//!         Ok(Vec::new())
//!     }
//!     async fn decide(&self, _: &ItemId, _: &Wanted, _: &[PointMeta]) -> Result<Decision, Fault> {
//!         Ok(Decision::Run(RunPlan::new::<Backup>(Send)?))
//!     }
//!     async fn restore(&self, _: &RestoreRequest) -> Result<RunPlan, Fault> {
//!         Err(Fault::permanent("greeting.restore", "greetings are not given back"))
//!     }
//!     fn machines(self: &Arc<Self>) -> Machines {
//!         Machines::new().with(Backup)
//!     }
//! }
//!
//! plugin_sdk::export!(Greeting);
//! # fn main() {}
//! ```
//!
//! | to | see |
//! | --- | --- |
//! | describe a workload | [`Workload`], [`Manifest`], [`Item`], [`Decision`], [`RunPlan`] |
//! | describe its machines | [`Machine`], [`State`], [`go`], [`check!`], [`Seal`] |
//! | move bytes | [`Host`], [`Take`], [`Sink`], [`Source`] |
//! | serve programs of the workload that call | [`Endpoint`], [`IncomingCall`], [`Route`], [`Taken`] |
//! | log in somewhere | [`Manifest::secret`], [`Host::secret`], [`Secrets`], [`Secret`] |
//! | say what went wrong | [`Fault`], [`Class`] |
//! | know what crosses the boundary | [`message`], [`abi`] |
//! | load plugins (feature `host`) | `host` |
//! | be the process of an isolated plugin (feature `runner`) | `runner` |
//! | prove that a plugin is right (feature `conformance`) | `conformance` |
//!
//! Third-party types in signatures: `serde_json::Value` for documents of the plugin's own,
//! `bytes::Bytes`, and what is re-exported here of `fsm-core`, `throttle` and `async-trait`.

/// The code in `docs/writing-a-plugin.md` compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/writing-a-plugin.md")]
struct WritingAPlugin;

pub mod abi;
mod blocking;
#[cfg(feature = "conformance")]
pub mod conformance;
mod decision;
mod dispatch;
mod export;
#[cfg(feature = "host")]
pub mod host;
mod ingress;
mod item;
mod manifest;
pub mod message;
mod plan;
mod point;
#[cfg(all(feature = "runner", target_os = "linux"))]
pub mod runner;
mod seal;
mod secret;
mod secrets;
mod services;
mod take;
#[cfg(feature = "tokio")]
mod tokio;
mod until;
#[cfg(all(feature = "host", target_os = "linux"))]
mod wire;
mod workload;

pub use async_trait::async_trait;
pub use blocking::{Blocking, blocking};
pub use decision::{Claim, Decision, OperationId, Overwrite, RestoreRequest, RunPlan, Wanted};
#[doc(hidden)]
pub use dispatch::Opened;
pub use dispatch::{Bundle, Workloads};
pub use fsm_core::{
    Cancel, Cancellation, Class, Context, Data, Effect, Ending, Fault, Graph, Machine, Progress,
    Retry, State, Step, Timestamp, check, go, go_at,
};
pub use ingress::{Caller, Create, Endpoint, IncomingCall, Peer, Route, Taken, Work};
pub use item::{InvalidItemId, Item, ItemId};
pub use manifest::{Manifest, Operation, PluginManifest};
pub use point::{PointId, PointKind, PointMeta, PointNotes, Receipt, StreamInfo};
pub use seal::{Redirect, Seal, Sealed};
pub use secret::Secret;
pub use secrets::Secrets;
pub use services::{FinishedTake, Host, OpenTake, Sink, Source, Take};
pub use take::TakeId;
pub use throttle;
#[cfg(feature = "tokio")]
pub use tokio::TokioExecutor;
pub use until::Until;
pub use workload::{Config, Machines, Workload};
