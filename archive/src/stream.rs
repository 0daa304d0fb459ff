//! Reading one stream of a recovery point, anywhere or from first byte to last.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Content, Extent};
use crate::read::PointInner;
use crate::receipt::StreamHash;

const PARTS_AT_ONCE: usize = 4;
/// What one call of [`SequentialReader::next_chunk`] returns, at most.
const STEP_BYTES: u64 = 512 << 10;
const STEPS_AHEAD: usize = 4;

/// One stream of a recovery point. Clones are cheap; reads may run at the same time.
#[derive(Clone, Debug)]
pub struct StreamReader {
    point: Arc<PointInner>,
    stream: usize,
    /// Where each extent begins in the stream.
    starts: Arc<[u64]>,
}

impl StreamReader {
    pub(crate) fn new(point: Arc<PointInner>, stream: usize) -> Self {
        let mut start = 0;
        let starts = match point.content(stream) {
            Content::Inline(_) => Arc::default(),
            Content::Extents(extents) => extents
                .iter()
                .map(|extent| {
                    start += extent.length;
                    start - extent.length
                })
                .collect(),
        };
        Self { point, stream, starts }
    }

    /// Bytes in the stream.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.point.entry().streams[self.stream].length
    }

    /// Whether the stream has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash of the whole stream, as it was written.
    #[must_use]
    pub fn hash(&self) -> StreamHash {
        self.point.entry().streams[self.stream].hash
    }

    /// Reads `length` bytes at `offset`, or fewer where the stream ends. What comes back is what
    /// was written: every frame is authenticated.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Damaged`] naming the object; [`ErrorKind::Input`] if `offset` lies beyond the
    /// end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn read_at(&self, offset: u64, length: u64) -> Result<Bytes> {
        if offset > self.len() {
            return Err(Error::input(self.name(), "the offset lies beyond the end of the stream"));
        }
        let end = offset.saturating_add(length).min(self.len());
        let extents = match self.point.content(self.stream) {
            Content::Inline(bytes) => return Ok(bytes.slice(offset as usize..end as usize)),
            Content::Extents(extents) => self.within(extents, offset, end),
        };
        let mut parts = Vec::new();
        for extent in extents {
            parts.extend(self.point.parts(extent).await?);
        }
        let parts: Vec<_> = parts.into_iter().map(|part| self.point.part(part)).collect();
        let mut parts = stream::iter(parts).buffered(PARTS_AT_ONCE);
        let first = parts.try_next().await?.unwrap_or_default();
        if first.len() as u64 == end - offset {
            return Ok(first);
        }
        let mut bytes = BytesMut::with_capacity((end - offset) as usize);
        bytes.extend_from_slice(&first);
        while let Some(part) = parts.try_next().await? {
            bytes.extend_from_slice(&part);
        }
        Ok(bytes.freeze())
    }

    /// Reads the stream from first byte to last, ahead of the caller, and checks its hash.
    #[must_use]
    pub fn sequential(&self) -> SequentialReader {
        SequentialReader {
            stream: self.clone(),
            ahead: VecDeque::new(),
            asked: 0,
            given: 0,
            whole: blake3::Hasher::new(),
            state: State::Reading,
        }
    }

    fn name(&self) -> &str {
        &self.point.entry().streams[self.stream].name
    }

    /// The parts of `extents` that lie between `offset` and `end` in the stream.
    fn within(&self, extents: &[Extent], offset: u64, end: u64) -> Vec<Extent> {
        let first = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let mut found = Vec::new();
        for (extent, start) in extents.iter().zip(self.starts.iter()).skip(first) {
            if *start >= end {
                break;
            }
            let skipped = offset.saturating_sub(*start);
            let stop = extent.length.min(end - start);
            if stop > skipped {
                found.push(Extent {
                    pack: extent.pack,
                    raw_start: extent.raw_start + skipped,
                    length: stop - skipped,
                });
            }
        }
        found
    }
}

/// Reads a stream from first byte to last.
#[derive(Debug)]
pub struct SequentialReader {
    stream: StreamReader,
    ahead: VecDeque<JoinHandle<Result<Bytes>>>,
    asked: u64,
    given: u64,
    whole: blake3::Hasher,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    Done,
    Failed,
}

impl SequentialReader {
    /// The next bytes, at most 512 KiB; `None` after the last ones.
    ///
    /// The last bytes are handed out only if the hash of the whole stream is the one that was
    /// recorded when it was written.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Damaged`] naming the object, or the stream if only its hash does not fit. After
    /// an error every call says [`ErrorKind::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no bytes are lost when the future is dropped.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        match self.state {
            State::Reading => {}
            State::Done => return Ok(None),
            State::Failed => {
                return Err(Error::new(
                    ErrorKind::Closed,
                    self.stream.name(),
                    "an earlier read failed",
                ));
            }
        }
        let chunk = self.read_next().await;
        if chunk.is_err() {
            self.state = State::Failed;
        }
        chunk
    }

    async fn read_next(&mut self) -> Result<Option<Bytes>> {
        let length = self.stream.len();
        while self.ahead.len() < STEPS_AHEAD && self.asked < length {
            let (stream, offset) = (self.stream.clone(), self.asked);
            self.ahead
                .push_back(tokio::spawn(async move { stream.read_at(offset, STEP_BYTES).await }));
            self.asked = (self.asked + STEP_BYTES).min(length);
        }
        let Some(next) = self.ahead.front_mut() else {
            return self.check_hash().map(|()| None);
        };
        let chunk = next.await.map_err(|error| Error::task(self.stream.name(), error));
        self.ahead.pop_front();
        let chunk = chunk??;
        self.whole.update(&chunk);
        self.given += chunk.len() as u64;
        if self.given == length {
            self.check_hash()?;
        }
        Ok(Some(chunk))
    }

    fn check_hash(&mut self) -> Result<()> {
        self.state = State::Done;
        match self.whole.finalize().as_bytes() == &self.stream.hash().0 {
            true => Ok(()),
            false => Err(Error::damaged(
                format!("stream {} of point {}", self.stream.name(), self.stream.point.entry().id),
                "its bytes are not those that were written",
            )),
        }
    }
}

impl Drop for SequentialReader {
    fn drop(&mut self) {
        for read in &self.ahead {
            read.abort();
        }
    }
}
