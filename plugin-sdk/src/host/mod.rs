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
//! **Promise.** A file that the policy ([`Trust`]) does not trust, one that is no plugin, or one of
//! another version, is refused before any of its code runs, with one line that names the file and
//! what to do. What was checked is what is loaded ([`Image`]). A loaded library is never unloaded.
//! Dropping a [`Task`] ends its request: from then on the plugin's calls are refused.
//!
//! Whether the code is in this process or in a child is decided when the library is loaded
//! ([`Library::load`], [`Library::isolated`]); an instance and its tasks are the same to use.
//!
//! **A plugin that does not do its part.** A request that does not end when asked is given a time
//! of grace and then abandoned ([`Task::stoppable`]). A function of the plugin that does not return
//! holds the thread that called it; a [`Watch`] knows which ones, and since when.

mod channel;
mod digest;
mod elf;
mod error;
mod expected;
mod image;
mod instance;
mod library;
mod local;
mod lock;
mod log;
mod machine;
mod no_calls;
mod open;
mod place;
mod pool;
#[cfg(target_os = "linux")]
mod process;
mod redact;
mod sidecar;
mod signature;
mod stop;
mod trust;
mod watch;

pub use crate::abi::{HostCalls, HostSink, HostSource};
pub use channel::{ChannelSink, ChannelStats, ChunkReceiver};
pub use digest::{Digest, InvalidDigest};
pub use error::{InitError, LoadError, LoadErrorKind};
pub use image::Image;
pub use instance::{Canceller, PluginInstance, Task};
pub use library::Library;
pub use lock::{InvalidLock, PluginLock, target};
pub use machine::{RemoteMachine, StepHost, StepHosts, machine_name};
pub use no_calls::NoCalls;
pub use pool::{BufferPool, PoolStats};
#[cfg(target_os = "linux")]
pub use process::{Process, Runner};
pub use sidecar::{Capabilities, InvalidSidecar, Sidecar};
pub use signature::{InvalidKey, SigningKey};
pub use stop::{Ended, Stoppable};
pub use trust::Trust;
pub use watch::{OpenCall, Watch, Watched};
#[cfg(all(feature = "runner", target_os = "linux"))]
pub(crate) use {
    instance::Work,
    local::Local,
    log::Elsewhere,
    process::{ARGUMENT, this_program_serves},
};
