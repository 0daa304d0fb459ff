//! Reading a recovery point: its streams, and whether all that they need is there.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::cache::Cache;
use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Content, Extent};
use crate::item::ItemInner;
use crate::log::fetch_body;
use crate::pack::{Footer, Frame, PackRef, open_frame};
use crate::point::{PointBody, PointEntry};
use crate::stream::StreamReader;

const FRAMES_KEPT: usize = 16;
const FOOTERS_KEPT: usize = 64;
const CHECKS_AT_ONCE: usize = 16;

/// A recovery point that has been opened to be read.
#[derive(Clone, Debug)]
pub struct PointReader(Arc<PointInner>);

pub(crate) struct PointInner {
    item: Arc<ItemInner>,
    entry: PointEntry,
    body: PointBody,
    footers: Cache<u32, Arc<Vec<Frame>>>,
    frames: Cache<(u32, u64), Bytes>,
}

/// A part of one frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pack: u32,
    frame: Frame,
    start: usize,
    length: usize,
}

impl std::fmt::Debug for PointInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PointReader").field("entry", &self.entry).finish_non_exhaustive()
    }
}

impl PointReader {
    pub(crate) async fn open(item: Arc<ItemInner>, point: &PointEntry) -> Result<Self> {
        let body = fetch_body(&item, point).await?;
        Ok(Self(Arc::new(PointInner {
            item,
            entry: point.clone(),
            body,
            footers: Cache::new(FOOTERS_KEPT),
            frames: Cache::new(FRAMES_KEPT),
        })))
    }

    /// The point that is read.
    #[must_use]
    pub fn entry(&self) -> &PointEntry {
        &self.0.entry
    }

    /// Opens the stream `name`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if the point has no such stream.
    pub fn stream(&self, name: &str) -> Result<StreamReader> {
        let number = self.0.entry.streams.iter().position(|stream| stream.name == name);
        match number {
            Some(number) => Ok(StreamReader::new(Arc::clone(&self.0), number)),
            None => Err(Error::not_found(
                format!("stream {name} of point {}", self.0.entry.id),
                "the point has no such stream",
            )),
        }
    }

    /// Checks that every object that the point needs is there in its full length. A restore calls
    /// this before it touches its target.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Damaged`] naming the first object that is missing or of the wrong length.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn verify_present(&self) -> Result<()> {
        match self.0.presence_problems().await?.into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }
}

impl PointReader {
    pub(crate) fn packs(&self) -> &[PackRef] {
        &self.0.body.packs
    }

    pub(crate) async fn presence_problems(&self) -> Result<Vec<Error>> {
        self.0.presence_problems().await
    }
}

impl PointInner {
    pub(crate) fn entry(&self) -> &PointEntry {
        &self.entry
    }

    pub(crate) fn content(&self, stream: usize) -> &Content {
        &self.body.contents[stream]
    }

    /// One error for each pack that is missing or of the wrong length.
    async fn presence_problems(&self) -> Result<Vec<Error>> {
        let checks: Vec<_> =
            self.body.packs.iter().map(|pack| self.presence_problem(pack)).collect();
        let found: Vec<_> = stream::iter(checks).buffered(CHECKS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn presence_problem(&self, pack: &PackRef) -> Result<Option<Error>> {
        let path = self.item.paths.pack(&pack.name);
        Ok(match self.item.store.length(&path).await? {
            Some(length) if length == pack.length => None,
            Some(_) => Some(Error::damaged(path, "its length is wrong")),
            None => Some(Error::damaged(path, "it is missing")),
        })
    }

    /// The frames, and parts of them, that the bytes of `extent` lie in.
    pub(crate) async fn parts(&self, extent: Extent) -> Result<Vec<Part>> {
        let frames = self.frames_of(extent.pack).await?;
        let end = extent.raw_start + extent.length;
        let first =
            frames.partition_point(|frame| frame.raw_start + frame.raw_length <= extent.raw_start);
        let mut parts = Vec::new();
        let mut at = extent.raw_start;
        for frame in frames.iter().skip(first).take_while(|frame| frame.raw_start < end) {
            let stop = end.min(frame.raw_start + frame.raw_length);
            let start = (at - frame.raw_start) as usize;
            let length = (stop - at) as usize;
            parts.push(Part { pack: extent.pack, frame: *frame, start, length });
            at = stop;
        }
        match at == end {
            true => Ok(parts),
            false => Err(Error::damaged(self.path(extent.pack), "an extent ends beyond it")),
        }
    }

    /// The bytes of one part, out of the cache if its frame was fetched not long ago.
    pub(crate) async fn part(&self, part: Part) -> Result<Bytes> {
        let Part { pack, frame, start, length } = part;
        let fetch = async || {
            let path = self.path(pack);
            let reference = &self.body.packs[pack as usize];
            let key = reference.key(&self.item.data);
            let range = frame.start..frame.start + frame.length;
            let sealed = self.exactly(&path, range).await?;
            let task = tokio::task::spawn_blocking(move || {
                open_frame(&key, &frame, &path, Vec::from(sealed))
            });
            task.await.map_err(|error| Error::task(self.path(pack), error))?
        };
        let bytes = self.frames.get((pack, frame.number), fetch).await?;
        Ok(bytes.slice(start..start + length))
    }

    async fn frames_of(&self, pack: u32) -> Result<Arc<Vec<Frame>>> {
        let fetch = async || {
            let path = self.path(pack);
            let reference = &self.body.packs[pack as usize];
            let sealed = self.exactly(&path, reference.footer_range()).await?;
            let footer = Footer::open(reference, &self.item.data, &path, &sealed)?;
            Ok(Arc::new(footer.frames))
        };
        self.footers.get(pack, fetch).await
    }

    fn path(&self, pack: u32) -> String {
        self.item.paths.pack(&self.body.packs[pack as usize].name)
    }

    /// All of `range`. That a pack is gone or too short is damage, and not the store's failure.
    async fn exactly(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let wanted = range.end - range.start;
        let error = match self.item.store.get_range(path, range.clone()).await {
            Ok(bytes) if bytes.len() as u64 == wanted => return Ok(bytes),
            Ok(_) => return Err(Error::damaged(path, "it is too short")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::damaged(path, "it is missing"));
            }
            Err(error) => error,
        };
        // Some stores answer with a failure when a range begins after the end.
        match self.item.store.length(path).await {
            Ok(Some(length)) if length < range.end => Err(Error::damaged(path, "it is too short")),
            _ => Err(error),
        }
    }
}
