//! The host's side of the boundary: from a path to a running request.
//!
//! ```no_run
//! # use std::{path::Path, sync::Arc};
//! # use plugin_sdk::{abi::HostCalls, host::{Library, Trust}};
//! # async fn example(services: Arc<dyn HostCalls>) -> Result<(), Box<dyn std::error::Error>> {
//! let library = Library::load(Path::new("/opt/acme/libacme.so"), &Trust::root_owned())?;
//! let manifest = library.manifest()?;
//! let plugin = library.init("{}")?;
//! let reply = plugin.start(r#"{"discover":{}}"#, services).await?;
//! # Ok(()) }
//! ```
//!
//! **Promise.** A file that is no plugin, or one of another version, is refused before any of its
//! code runs, with one line that names the file and what to do. A loaded library is never unloaded.
//! Dropping a [`Task`] ends its request: from then on the plugin's calls are refused.

mod channel;
mod elf;
mod error;
mod instance;
mod library;
mod local;
mod log;
mod open;
mod pool;
mod trust;

pub use crate::abi::{HostCalls, HostSink, HostSource};
pub use channel::{ChannelSink, ChannelStats, ChunkReceiver};
pub use error::{InitError, LoadError, LoadErrorKind};
pub use instance::{Canceller, PluginInstance, Task};
pub use library::Library;
pub use pool::{BufferPool, PoolStats};
pub use trust::Trust;
