//! Plugins as the engine uses them: where they come from, what they are asked, how their steps
//! run.
//!
//! A plugin's library runs in processes of its own or in this one ([`Plugin::library`]), or is
//! linked in ([`Plugin::linked`]); from then on there is no difference. Each of its workloads is
//! asked through typed requests ([`workload`]), its machines run as [`remote`] machines of the
//! runtime, and what their steps ask for is answered by [`calls`], with [`streams`] into and out of
//! the archive. What they are told in confidence comes through a [`vault`]. A [`watchdog`] notices
//! those that keep a thread.

pub(crate) mod calls;
mod remote;
mod source;
mod streams;
pub(crate) mod vault;
pub(crate) mod watchdog;
pub(crate) mod workload;

pub use source::{Isolation, Plugin};
