//! The writing end of one stream.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cut::{Cut, CutTask, Input};
use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Content, INLINE_BYTES_MAX, PackList};
use crate::hold::HoldRecord;
use crate::receipt::{Receipt, StreamHash, StreamStats};
use crate::session::SessionInner;
use crate::upload::Upload;

/// What is handed to the cutting thread at once, at most.
const PIECE_BYTES_MAX: usize = 1 << 20;
/// Pieces that wait for the cutting thread, at most.
const PIECES_WAITING_MAX: usize = 4;

/// Writes one stream, first byte to last. It cannot be rewound; a stream that is dropped before
/// [`StreamWriter::finish`] returned has failed.
#[derive(Debug)]
pub struct StreamWriter {
    session: Arc<SessionInner>,
    name: String,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Small so far: nothing has been stored.
    Small(Vec<u8>),
    Large(Pipeline),
    /// A call failed or was dropped half-way.
    Failed,
    Finished,
}

/// A thread that cuts, hashes, compresses and encrypts; a task that stores what it made.
#[derive(Debug)]
struct Pipeline {
    pieces: mpsc::Sender<Input>,
    cut: JoinHandle<Result<Cut>>,
    upload: JoinHandle<Result<()>>,
}

impl StreamWriter {
    pub(crate) fn new(session: Arc<SessionInner>, name: String) -> Self {
        Self { session, name, state: State::Small(Vec::new()) }
    }

    /// The stream's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Appends `bytes` to the stream. Returns when there is room for them, which is long before
    /// they are durable.
    ///
    /// Only bytes that are new are copied, and those that wait for the next write to end their
    /// chunk. So `bytes` is let go of soon, whether more is written or not: it may be one of a few
    /// buffers that the caller fills in turn, however little is in it.
    ///
    /// # Errors
    ///
    /// What the store said about earlier bytes. After an error the stream has failed, and every
    /// call says [`ErrorKind::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: how much was taken is not known. The stream has failed.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Small(mut small) => {
                if small.len() + bytes.len() <= INLINE_BYTES_MAX {
                    small.extend_from_slice(&bytes);
                    self.state = State::Small(small);
                    return Ok(());
                }
                let pipeline = Pipeline::start(Arc::clone(&self.session)).await?;
                let pipeline = pipeline.send(small.into()).await?;
                self.state = State::Large(pipeline.send(bytes).await?);
            }
            State::Large(pipeline) => self.state = State::Large(pipeline.send(bytes).await?),
            State::Failed | State::Finished => return Err(self.closed()),
        }
        Ok(())
    }

    /// Ends the stream. When this returns, all of it is durable, and held until its take is
    /// released.
    ///
    /// # Errors
    ///
    /// What the store said. The stream has failed then; what was stored of it is found again by the
    /// next take of the item.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the stream has failed, or is held without a receipt; see
    /// [`Item::holds`](crate::Item::holds).
    pub async fn finish(mut self) -> Result<Receipt> {
        let hold = match std::mem::replace(&mut self.state, State::Failed) {
            State::Small(small) => self.small(small),
            State::Large(pipeline) => self.large(pipeline.finish().await?).await?,
            State::Failed | State::Finished => return Err(self.closed()),
        };
        let receipt = hold.store(&self.session.item).await?;
        self.session.finished(&receipt);
        self.state = State::Finished;
        Ok(receipt)
    }

    fn small(&self, bytes: Vec<u8>) -> HoldRecord {
        let hash = StreamHash(*blake3::hash(&bytes).as_bytes());
        let length = bytes.len() as u64;
        let stats = StreamStats {
            read_bytes: length,
            new_raw_bytes: length,
            new_stored_bytes: length,
            ..StreamStats::default()
        };
        self.hold(length, hash, stats, Vec::new(), Content::Inline(bytes.into()))
    }

    async fn large(&self, cut: Cut) -> Result<HoldRecord> {
        let index = self.session.index().await?;
        let index = index.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut packs = PackList::default();
        let mut extents = cut.extents;
        for extent in &mut extents {
            let pack = index.pack(extent.pack).ok_or_else(|| {
                Error::new(ErrorKind::Closed, &self.name, "one of its packs was not stored")
            })?;
            extent.pack = packs.number(pack);
        }
        let content = Content::Extents(extents);
        Ok(self.hold(cut.length, cut.hash, cut.stats, packs.packs, content))
    }

    fn hold(
        &self,
        length: u64,
        hash: StreamHash,
        stats: StreamStats,
        packs: Vec<crate::pack::PackRef>,
        content: Content,
    ) -> HoldRecord {
        let take = self.session.take.id.clone();
        let receipt = Receipt { take, stream: self.name.clone(), length, hash, stats };
        HoldRecord { receipt, epoch: self.session.take.epoch, packs, content }
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::Closed, &self.name, "an earlier call failed or was dropped")
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if !matches!(self.state, State::Finished) {
            self.session.failed(&self.name);
        }
    }
}

impl Pipeline {
    async fn start(session: Arc<SessionInner>) -> Result<Self> {
        let index = session.index().await?;
        let (pieces, input) = mpsc::channel(PIECES_WAITING_MAX);
        let (packs, ready) = mpsc::channel(1);
        let task = CutTask::new(&session.item, Arc::clone(&index), input, packs)?;
        let cut = tokio::task::spawn_blocking(move || task.run());
        let upload = tokio::spawn(Upload { session, index, ready }.run());
        Ok(Self { pieces, cut, upload })
    }

    async fn send(self, mut bytes: Bytes) -> Result<Self> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE_BYTES_MAX));
            if self.pieces.send(Input::Piece(piece)).await.is_err() {
                return Err(self.failure().await);
            }
        }
        Ok(self)
    }

    async fn finish(self) -> Result<Cut> {
        if self.pieces.send(Input::End).await.is_err() {
            return Err(self.failure().await);
        }
        let (cut, upload) = (joined(self.cut).await, joined(self.upload).await);
        // When an upload fails the cutting thread only finds that nobody listens.
        upload.and(cut)
    }

    /// Why the cutting thread went away.
    async fn failure(self) -> Error {
        drop(self.pieces);
        let (cut, upload) = (joined(self.cut).await, joined(self.upload).await);
        upload.and(cut).err().unwrap_or_else(|| {
            Error::new(ErrorKind::Closed, "stream", "its thread ended without an answer")
        })
    }
}

async fn joined<T>(task: JoinHandle<Result<T>>) -> Result<T> {
    match task.await {
        Ok(result) => result,
        Err(error) => Err(Error::task("stream", error)),
    }
}
