//! Recovery points at rest: deduplicated, compressed, encrypted, verifiable.
//!
//! An [`Archive`] lives in a directory or in any object store. It keeps *items*; an [`Item`] has a
//! log of *recovery points*; a point has named *streams* of bytes. The archive does not know what
//! the bytes are.
//!
//! # What it promises
//!
//! - **Acknowledged means durable.** When [`StreamWriter::finish`] returns a [`Receipt`], every
//!   byte survives a power cut, and is held until [`Item::release`].
//! - **A point is whole or absent.** [`Item::seal`] creates one object with put-if-absent; before
//!   that nothing of the point is visible. It needs receipts and nothing else, so another process
//!   can do it after a restart. Sealing the same point id again finds the first point.
//! - **What is read is what was written.** Everything is authenticated: an altered, swapped or
//!   shortened object is an error that names it. Nothing at rest shows a name or a byte.
//! - **Stored once.** Streams are cut by content; a chunk that the item has is not stored again,
//!   nor is what an unfinished take had stored before it was killed (its source is still read in
//!   full: a database stream cannot be rewound).
//! - **Bounded memory**, whatever the length of a stream: up to two packs (16 MiB each unless
//!   [`Options`] say otherwise) a stream being written, 16 MiB a point being read, and the index of
//!   known chunks.
//!
//! # How it is built
//!
//! A stream passes through one thread that cuts it ([`ChunkSize`]), hashes, compresses and
//! encrypts, and one task that stores the packs, so that both overlap. The only write to the store
//! is put-if-absent; nothing is ever changed in place, and no lock is needed. The format is
//! described byte by byte in `docs/archive-format.md`.
//!
//! The crate runs inside a [tokio](https://docs.rs/tokio) runtime. [`bytes::Bytes`] and
//! [`object_store::ObjectStore`] appear in its interface.
//!
//! # Durability of a directory
//!
//! Files are written beside their place, synced, linked into it, and the directory synced; a new
//! directory is synced into its parent before anything is put into it. On Windows directories
//! cannot be synced, and their entries are as durable as the file system's journal makes them.

#![forbid(unsafe_code)]

mod archive;
mod cache;
mod chunk;
mod crypto;
mod cut;
mod error;
mod extent;
mod hold;
mod ids;
mod index;
mod item;
mod item_key;
mod key;
mod layout;
mod local;
mod log;
mod pack;
mod point;
mod read;
mod receipt;
mod record;
mod seal;
mod session;
mod squeeze;
mod store;
mod stream;
mod upload;
mod verify;
mod wire;
mod writer;

pub use archive::{Archive, Options};
pub use chunk::ChunkSize;
pub use error::{Error, ErrorKind, Result};
pub use hold::Hold;
pub use ids::{Epoch, PointId, TakeId};
pub use item::{Item, Listing};
pub use key::Key;
pub use point::{PointEntry, SealRequest, StreamEntry};
pub use read::PointReader;
pub use receipt::{Receipt, StreamHash, StreamStats};
pub use session::{Session, Take};
pub use stream::{SequentialReader, StreamReader};
pub use verify::{Level, VerifyReport};
pub use writer::StreamWriter;
