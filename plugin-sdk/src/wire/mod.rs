//! What an agent and the process of an isolated plugin say to each other.
//!
//! **Promise.** Whatever the other side writes, reading it takes memory in proportion to what was
//! really written, never reads beyond it, and ends with messages or with a [`WireError`].
//!
//! **How.** A frame is a length, a short JSON document (the message) and bytes as they are (its
//! payload). Some messages carry a descriptor, as `SCM_RIGHTS`. The decoder is pure
//! ([`frame`]); the socket is beside it ([`socket`]). Bulk data does not go through the socket: a
//! stream has a memory of its own ([`memory`]), with counters that say what was sent and taken
//! ([`ring`]). A message is needed only where one side waits for the other.

mod frame;
mod memory;
mod message;
mod receive;
mod ring;
mod socket;

pub(crate) use frame::{Outgoing, WireError};
pub(crate) use memory::SharedMemory;
pub(crate) use message::{
    Handed, Hello, LogRecord, Refusal, Status, ToChild, ToHost, pack, unpack,
};
pub(crate) use receive::{Incoming, Receiver};
pub(crate) use ring::{Sent, Taker};
pub(crate) use socket::{Flow, send};

/// Spoken by both sides; a runner of another version is refused.
pub(crate) const PROTOCOL: u32 = 3;

/// A stream's memory is cut into slots of this many bytes.
pub(crate) const SLOT_BYTES: usize = 1 << 20;
/// The slots that a plugin borrows as buffers come first.
pub(crate) const LENT_SLOTS: u32 = 4;
/// Then those for bytes that lie in memory of the plugin's own.
pub(crate) const FOREIGN_SLOTS: u32 = 2;
/// All slots of a stream.
pub(crate) const SLOTS: u32 = LENT_SLOTS + FOREIGN_SLOTS;
/// The most that one read of a source asks for; a longer one is several.
pub(crate) const READ_BYTES_MAX: u64 = 1 << 20;
