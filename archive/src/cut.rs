//! The thread of one stream: cuts it into chunks, finds the new ones, fills packs with them.
//!
//! **Promise.** Memory stays bounded: a few pieces, a chunk, the pack that is being filled, the
//! packs that wait. A piece is let go of before the next one is taken. A byte is copied into its
//! frame, and only if it is new; those of a chunk that goes on in the next piece are copied before.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::chunk::Cutter;
use crate::crypto::{Secret, short};
use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, push};
use crate::index::{Index, Place};
use crate::item::ItemInner;
use crate::pack::{ChunkId, PackBuilder};
use crate::receipt::{StreamHash, StreamStats};
use crate::squeeze::Squeezer;
use crate::upload::{Checkpoint, ReadyPack};

/// One is being filled while another is being stored.
const PACKS_IN_MEMORY_MAX: usize = 2;

/// What the writer sends. A channel that closes without an `End` is a stream that was given up.
pub(crate) enum Input {
    Piece(Bytes),
    End,
}

/// A stream, cut.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) length: u64,
    pub(crate) hash: StreamHash,
    pub(crate) extents: Vec<Extent>,
    pub(crate) stats: StreamStats,
}

/// A pack that is not yet known to be durable, with the chunks that only its own stream may use.
struct Pending {
    number: u32,
    chunks: HashMap<ChunkId, Place>,
}

pub(crate) struct CutTask {
    data: Secret,
    chunk_ids: Secret,
    pack_bytes: u64,
    index: Arc<Mutex<Index>>,
    input: mpsc::Receiver<Input>,
    ready: mpsc::Sender<ReadyPack>,
    cutter: Cutter,
    squeezer: Squeezer,
    whole: blake3::Hasher,
    /// The chunk that is being collected, as far as it lies in earlier pieces. Copied, because a
    /// piece may be a buffer that its writer waits for before it writes on.
    begun: Vec<u8>,
    filling: Option<(PackBuilder, OwnedSemaphorePermit)>,
    slots: Arc<Semaphore>,
    runtime: Handle,
    /// Packs on their way, oldest first; the last one is being filled.
    pending: VecDeque<Pending>,
    extents: Vec<Extent>,
    stats: StreamStats,
}

impl CutTask {
    pub(crate) fn new(
        item: &ItemInner,
        index: Arc<Mutex<Index>>,
        input: mpsc::Receiver<Input>,
        ready: mpsc::Sender<ReadyPack>,
    ) -> Result<Self> {
        Ok(Self {
            data: item.data.clone(),
            chunk_ids: item.chunk_ids.clone(),
            pack_bytes: item.options.pack_bytes,
            index,
            input,
            ready,
            cutter: Cutter::new(item.chunk_size),
            squeezer: Squeezer::new()?,
            whole: blake3::Hasher::new(),
            begun: Vec::new(),
            filling: None,
            slots: Arc::new(Semaphore::new(PACKS_IN_MEMORY_MAX)),
            runtime: Handle::current(),
            pending: VecDeque::new(),
            extents: Vec::new(),
            stats: StreamStats::default(),
        })
    }

    /// Runs until the stream ends. Blocks while the store is behind.
    pub(crate) fn run(mut self) -> Result<Cut> {
        while let Some(input) = self.input.blocking_recv() {
            match input {
                Input::Piece(piece) => self.piece(&piece)?,
                Input::End => return self.end(),
            }
        }
        Err(Error::new(ErrorKind::Closed, "stream", "it was given up"))
    }

    fn piece(&mut self, piece: &[u8]) -> Result<()> {
        self.whole.update(piece);
        self.stats.read_bytes += piece.len() as u64;
        let mut rest = piece;
        while let Some(end) = self.cutter.find(rest) {
            let (tail, next) = rest.split_at(end);
            self.end_chunk(tail)?;
            rest = next;
        }
        self.begun.extend_from_slice(rest);
        Ok(())
    }

    fn end(mut self) -> Result<Cut> {
        if !self.begun.is_empty() {
            self.end_chunk(&[])?;
        }
        self.ship(Checkpoint::Skip)?;
        Ok(Cut {
            length: self.stats.read_bytes,
            hash: StreamHash(*self.whole.finalize().as_bytes()),
            extents: self.extents,
            stats: self.stats,
        })
    }

    /// Ends the chunk that was begun in earlier pieces, if it was, and ends with `tail`.
    fn end_chunk(&mut self, tail: &[u8]) -> Result<()> {
        let begun = std::mem::take(&mut self.begun);
        let mut hasher = blake3::Hasher::new_keyed(self.chunk_ids.bytes());
        hasher.update(&begun).update(tail);
        let id = short(&hasher.finalize());
        let length = begun.len() + tail.len();
        self.stats.chunks += 1;
        let place = match self.find(&id) {
            Some(place) => {
                self.stats.reused_chunks += 1;
                place
            }
            None => {
                self.stats.new_raw_bytes += length as u64;
                self.store(id, [&begun, tail], length)?
            }
        };
        push(&mut self.extents, place);
        // The collection keeps its room for the next chunk.
        self.begun = begun;
        self.begun.clear();
        Ok(())
    }

    fn find(&self, id: &ChunkId) -> Option<Place> {
        let pending = self.pending.iter().rev().find_map(|pack| pack.chunks.get(id).copied());
        pending.or_else(|| self.index().find(id))
    }

    fn store(&mut self, id: ChunkId, chunk: [&[u8]; 2], length: usize) -> Result<Place> {
        let pack_bytes = self.pack_bytes;
        if self.filling.as_ref().is_some_and(|(pack, _)| !pack.has_room(length, pack_bytes)) {
            self.ship(Checkpoint::Write)?;
        }
        if self.filling.is_none() {
            let slot = self.slot()?;
            let number = self.index().reserve();
            self.pending.push_back(Pending { number, chunks: HashMap::new() });
            self.filling = Some((PackBuilder::new(&self.data)?, slot));
        }
        let (Some((pack, _)), Some(pending)) = (&mut self.filling, self.pending.back_mut()) else {
            return Err(Error::new(ErrorKind::Closed, "stream", "it has no pack to fill"));
        };
        let raw_start = pack.push(id, chunk, &mut self.squeezer)? as u32;
        let place = Place { pack: pending.number, raw_start, length: length as u32 };
        pending.chunks.insert(id, place);
        Ok(place)
    }

    /// Sends the pack that is being filled, if there is one, on its way to the store.
    fn ship(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let (Some((pack, slot)), Some(pending)) = (self.filling.take(), self.pending.back()) else {
            return Ok(());
        };
        let number = pending.number;
        let pack = pack.finish(&mut self.squeezer)?;
        self.stats.new_stored_bytes += pack.reference.length;
        self.ready
            .blocking_send(ReadyPack { number, pack, checkpoint, slot })
            .map_err(|_| Error::new(ErrorKind::Closed, "stream", "its packs are not stored"))?;
        let settled = {
            let index = self.index();
            self.pending.iter().take_while(|pack| index.pack(pack.number).is_some()).count()
        };
        self.pending.drain(..settled);
        Ok(())
    }

    /// Waits until another pack may take up memory. A pack that could not be stored gives its place
    /// back too: then sending the next one finds that nobody listens.
    fn slot(&self) -> Result<OwnedSemaphorePermit> {
        let slot = self.runtime.block_on(Arc::clone(&self.slots).acquire_owned());
        slot.map_err(|_| Error::new(ErrorKind::Closed, "stream", "its packs are not stored"))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
