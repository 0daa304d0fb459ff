//! Which chunks are already stored, and where: what deduplication asks.
//!
//! **Promise.** A place that [`Index::find`] gives lies in a pack that is durable.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use crate::pack::{Chunk, ChunkId, PackRef};

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pack: u32,
    pub(crate) raw_start: u32,
    pub(crate) length: u32,
}

/// The index of one session; its packs are numbered as they come.
#[derive(Default)]
pub(crate) struct Index {
    packs: Vec<Option<PackRef>>,
    names: HashSet<blake3::Hash>,
    chunks: HashMap<ChunkId, Place, BuildHasherDefault<IdHasher>>,
    chunks_max: usize,
}

impl Index {
    pub(crate) fn new(chunks_max: usize) -> Self {
        Self { chunks_max, ..Self::default() }
    }

    /// A number for a pack that is being filled.
    pub(crate) fn reserve(&mut self) -> u32 {
        self.packs.push(None);
        (self.packs.len() - 1) as u32
    }

    /// The pack with this number is durable: its chunks may be found from now on.
    pub(crate) fn settle(&mut self, number: u32, pack: PackRef, chunks: &[Chunk]) {
        self.names.insert(pack.name);
        self.packs[number as usize] = Some(pack);
        for chunk in chunks {
            if self.is_full() {
                break;
            }
            let place =
                Place { pack: number, raw_start: chunk.raw_start as u32, length: chunk.length };
            self.chunks.entry(chunk.id).or_insert(place);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.chunks.len() >= self.chunks_max
    }

    pub(crate) fn knows(&self, pack: &PackRef) -> bool {
        self.names.contains(&pack.name)
    }

    pub(crate) fn find(&self, id: &ChunkId) -> Option<Place> {
        self.chunks.get(id).copied()
    }

    /// The pack with this number, once it is durable.
    pub(crate) fn pack(&self, number: u32) -> Option<&PackRef> {
        self.packs.get(number as usize)?.as_ref()
    }
}

/// Chunk ids are as good as random, under a key that nobody else has: they need no more hashing.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for (at, byte) in bytes.iter().take(8).enumerate() {
            self.0 ^= u64::from(*byte) << (8 * at);
        }
    }

    // The length of an array comes before its bytes and says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
