//! The boundary between an agent and a plugin: what crosses, and the safe side of it.
//!
//! A plugin and its host are two Rust programs in one process that may have been built years
//! apart. They share no allocator, no runtime, no log and no standard library; they share the
//! types of this module, all `#[repr(C)]`, whose layouts are compared field by field when a library
//! is loaded.
//!
//! **Promise.**
//! - *Small and frozen.* Three functions of the plugin ([`PluginRoot`]), one of the host
//!   ([`HostHandle::call`]), and what they pass. Everything else is inside the documents that they
//!   carry, which this layer does not read.
//! - *No executor.* Work is a polled task ([`AbiTask`]); any host can drive it. The job behind it
//!   has a thread of its own by default ([`Place`]).
//! - *No copy.* Bytes stay where they were written ([`AbiBytes`], [`LentBuffer`]).
//! - *No panic crosses.* Each function that the other side calls contains the panics of its own
//!   side; they are answers ([`TaskFault::Panicked`]).
//!
//! Two types of other crates are part of it: [`Bytes`](::bytes::Bytes), in the safe interface, and
//! `abi_stable`'s header of a library, which nobody but the loader reads.
//!
//! A plugin that is not written in Rust exports a plain table instead ([`AbiCPlugin`]), over the same
//! types; see `include/mercury_plugin.h`.
//!
//! **Who uses what.** A plugin implements [`Entry`] and [`Instance`] and exports the former with
//! [`export_entry!`](crate::export_entry). A host implements [`HostCalls`], [`HostSink`] and
//! [`HostSource`], and loads with `plugin_sdk::host`. The `Abi…` types are what crosses; only this
//! module and the loader look inside them.

// What the derive of `abi_stable` generates: its `X_Ref` names, and impls inside constants.
#![allow(non_camel_case_types, non_local_definitions)]

mod buffer;
mod bytes;
mod c_entry;
#[cfg(test)]
mod c_header;
mod descriptor;
mod entry;
mod exec;
mod guard;
mod host_calls;
mod log;
mod reply;
mod root;
mod sink;
mod source;
mod task;
mod waker;

pub use abi_stable::library::LibHeader as PluginHeader;
pub use buffer::{AbiBuffer, Chunk, LentBuffer};
pub use bytes::AbiBytes;
pub use c_entry::{ABI_MINOR, AbiCHost, AbiCPlugin, C_MAGIC, C_SYMBOL_PREFIX};
pub use descriptor::{AbiDescriptor, OwnedDescriptor};
pub use entry::{Call, Entry, Instance, Place, root};
pub use exec::{Executor, Own};
pub use fsm_core::{Cancellation, Requested};
pub use host_calls::{AbiHost, HostCalls, HostHandle};
pub use log::record;
pub use reply::{AbiObject, AbiReply, CallError, Crash, Object, Reply, TaskFault};
pub use root::{
    ABI_MAJOR, AbiCall, AbiInstance, AbiLog, AbiOutcome, AbiToken, Exported, HostTable,
    HostTable_Ref, PluginRoot, PluginRoot_Ref, RootProvider, SYMBOL_PREFIX, header,
};
pub use sink::{AbiLend, AbiSink, HostSink, SinkError, SinkHandle};
pub use source::{AbiSource, HostSource, SourceHandle};
pub use task::{AbiPoll, AbiTask, BoxFuture};
pub use waker::AbiWaker;

#[cfg(feature = "host")]
pub(crate) use c_entry::CTableError;
pub(crate) use exec::{own, wait};
pub(crate) use guard::contain;
#[cfg(all(feature = "host", target_os = "linux"))]
pub(crate) use guard::contain_quietly;
#[cfg(feature = "host")]
pub(crate) use host_calls::host_handle;
#[cfg(all(feature = "host", target_os = "linux"))]
pub(crate) use reply::answer;
#[cfg(feature = "host")]
pub(crate) use root::Start;
#[cfg(feature = "host")]
pub(crate) use task::ForeignTask;
