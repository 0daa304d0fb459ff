//! Proof that a stream is durable, and what it cost.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ids::TakeId;
use crate::wire::{Reader, Writer};

/// The BLAKE3 hash of a whole stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct StreamHash(pub [u8; 32]);

impl From<StreamHash> for String {
    fn from(hash: StreamHash) -> Self {
        hex::encode(hash.0)
    }
}

impl TryFrom<String> for StreamHash {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash)?;
        Ok(Self(hash))
    }
}

impl std::fmt::Display for StreamHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// How much of a stream was new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StreamStats {
    /// Bytes that were written into the stream.
    pub read_bytes: u64,
    /// Of these, bytes that were not stored before.
    pub new_raw_bytes: u64,
    /// What the new bytes take in the store, compressed and encrypted.
    pub new_stored_bytes: u64,
    /// Chunks that the stream was cut into; 0 for a stream small enough to be kept whole.
    pub chunks: u64,
    /// Of these, chunks that were stored before.
    pub reused_chunks: u64,
}

impl AddAssign for StreamStats {
    fn add_assign(&mut self, other: Self) {
        self.read_bytes += other.read_bytes;
        self.new_raw_bytes += other.new_raw_bytes;
        self.new_stored_bytes += other.new_stored_bytes;
        self.chunks += other.chunks;
        self.reused_chunks += other.reused_chunks;
    }
}

impl StreamStats {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.number(self.read_bytes).number(self.new_raw_bytes);
        writer.number(self.new_stored_bytes).number(self.chunks).number(self.reused_chunks);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            read_bytes: reader.number()?,
            new_raw_bytes: reader.number()?,
            new_stored_bytes: reader.number()?,
            chunks: reader.number()?,
            reused_chunks: reader.number()?,
        })
    }
}

/// Proof that a stream is durable.
///
/// A receipt can be kept anywhere and sealed by another process, after any number of restarts: the
/// archive holds what it stands for until the take is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    /// The take that the stream belongs to.
    pub take: TakeId,
    /// The stream's name within the take.
    pub stream: String,
    /// Bytes in the stream.
    pub length: u64,
    /// The hash of all of them.
    pub hash: StreamHash,
    /// How much of it was new.
    pub stats: StreamStats,
}
