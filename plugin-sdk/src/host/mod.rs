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
//!
//! Whether the code is in this process or in a child is decided when the library is loaded
//! ([`Library::load`], [`Library::isolated`]); an instance and its tasks are the same to use.

mod channel;
mod elf;
mod error;
mod instance;
mod library;
mod local;
mod log;
mod open;
mod pool;
#[cfg(target_os = "linux")]
mod process;
mod trust;

pub use crate::abi::{HostCalls, HostSink, HostSource};
pub use channel::{ChannelSink, ChannelStats, ChunkReceiver};
pub use error::{InitError, LoadError, LoadErrorKind};
pub use instance::{Canceller, PluginInstance, Task};
pub use library::Library;
pub use pool::{BufferPool, PoolStats};
#[cfg(target_os = "linux")]
pub use process::{Process, Runner};
pub use trust::Trust;
#[cfg(all(feature = "runner", target_os = "linux"))]
pub(crate) use {
    instance::Work,
    local::Local,
    log::Elsewhere,
    process::{ARGUMENT, this_program_serves},
};
