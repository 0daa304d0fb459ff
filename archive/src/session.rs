//! A session: one take's streams on their way into the archive.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;

use crate::error::{Error, ErrorKind, Result};
use crate::hold::HoldRecord;
use crate::ids::{Epoch, TakeId};
use crate::index::Index;
use crate::item::ItemInner;
use crate::layout::{OpenObject, TakePaths, decimal, open_object};
use crate::log::{Points, fetch_body};
use crate::pack::{Footer, PackRef};
use crate::point::{PointEntry, SealRequest};
use crate::receipt::{Receipt, StreamStats};
use crate::record::{Magic, open_record, seal_record};
use crate::seal::seal;
use crate::store::Put;
use crate::wire::{Reader, Writer};
use crate::writer::StreamWriter;

const VERSION: u64 = 1;
/// How many of the newest points, with the points that they build on, are searched for chunks.
const POINTS_SEARCHED: usize = 32;
const FOOTERS_AT_ONCE: usize = 8;

/// One attempt to produce streams, as [`Item::begin`](crate::Item::begin) wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    pub(crate) id: TakeId,
    pub(crate) epoch: Epoch,
}

impl Take {
    /// The take `id` of the writer of `epoch`.
    pub fn new(id: impl Into<TakeId>, epoch: Epoch) -> Self {
        Self { id: id.into(), epoch }
    }
}

/// A take that is being written. Streams of it can be written at the same time, each from a task of
/// its own. Dropping the session changes nothing: what was finished is held.
#[derive(Clone, Debug)]
pub struct Session(Arc<SessionInner>);

pub(crate) struct SessionInner {
    pub(crate) item: Arc<ItemInner>,
    pub(crate) take: Take,
    paths: TakePaths,
    index: OnceCell<Arc<Mutex<Index>>>,
    checkpoint: AtomicU64,
    streams: Mutex<BTreeMap<String, StreamState>>,
}

enum StreamState {
    Open,
    Finished(Receipt),
    Failed,
}

impl std::fmt::Debug for SessionInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("take", &self.take).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(item: Arc<ItemInner>, take: Take) -> Self {
        let paths = item.paths.take(&item.names, take.id.as_str());
        Self(Arc::new(SessionInner {
            item,
            take,
            paths,
            index: OnceCell::new(),
            checkpoint: AtomicU64::new(1),
            streams: Mutex::default(),
        }))
    }

    /// The take that is being written.
    #[must_use]
    pub fn take(&self) -> &TakeId {
        &self.0.take.id
    }

    /// Starts the stream `name`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Exists`] if the session has had a stream of this name.
    pub fn stream(&self, name: impl Into<String>) -> Result<StreamWriter> {
        let name = name.into();
        let mut streams = self.0.streams();
        if streams.contains_key(&name) {
            return Err(Error::new(ErrorKind::Exists, name, "the session has had this stream"));
        }
        streams.insert(name.clone(), StreamState::Open);
        drop(streams);
        Ok(StreamWriter::new(Arc::clone(&self.0), name))
    }

    /// How much of all finished streams together was new.
    #[must_use]
    pub fn stats(&self) -> StreamStats {
        let mut sum = StreamStats::default();
        for state in self.0.streams().values() {
            if let StreamState::Finished(receipt) = state {
                sum += receipt.stats;
            }
        }
        sum
    }

    /// Makes a recovery point of all streams of the session.
    ///
    /// The receipts of its streams need not be in `request`; those of other takes may be.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Input`] if a stream has failed or is not finished: then there is no point.
    /// Otherwise as for [`Item::seal`](crate::Item::seal).
    ///
    /// # Cancel safety
    ///
    /// As for [`Item::seal`](crate::Item::seal).
    pub async fn seal(&self, mut request: SealRequest) -> Result<PointEntry> {
        for (name, state) in self.0.streams().iter() {
            match state {
                StreamState::Finished(receipt) if request.receipts.contains(receipt) => {}
                StreamState::Finished(receipt) => request.receipts.push(receipt.clone()),
                StreamState::Open => return Err(Error::input(name, "the stream is not finished")),
                StreamState::Failed => return Err(Error::input(name, "the stream has failed")),
            }
        }
        seal(&self.0.item, request).await
    }
}

impl SessionInner {
    fn streams(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, StreamState>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn finished(&self, receipt: &Receipt) {
        self.streams().insert(receipt.stream.clone(), StreamState::Finished(receipt.clone()));
    }

    pub(crate) fn failed(&self, stream: &str) {
        self.streams().insert(stream.to_owned(), StreamState::Failed);
    }

    /// What is stored already. The first stream that is more than small asks for it; the take is
    /// pinned before anything stored is relied upon.
    pub(crate) async fn index(&self) -> Result<Arc<Mutex<Index>>> {
        let index = self.index.get_or_try_init(|| async {
            let points = self.item.log.refresh(&self.item).await?;
            self.pin(&points).await?;
            let index = self.load(&points).await?;
            Ok(Arc::new(Mutex::new(index)))
        });
        index.await.cloned()
    }

    async fn pin(&self, points: &Points) -> Result<()> {
        let path = self.paths.pin();
        let mut writer = Writer::default();
        writer.number(VERSION).text(self.take.id.as_str()).number(self.take.epoch.0);
        writer.count(points.entries.len());
        for seq in points.entries.keys() {
            writer.number(*seq);
        }
        let object = seal_record(&self.item.data, Magic::PIN, &path, &writer.finish())?;
        if self.item.store.put_new(&path, object).await? == Put::Existed {
            // The take has been begun before: its checkpoints are numbered on.
            let objects = self.item.store.list(self.paths.directory()).await?;
            let last = objects.iter().filter_map(|object| decimal(&object.path)).max();
            self.checkpoint.store(last.unwrap_or(0).saturating_add(1), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Records a pack, so that a later take finds its chunks if this one dies.
    pub(crate) async fn checkpoint(&self, pack: &PackRef) -> Result<()> {
        loop {
            let number = self.checkpoint.fetch_add(1, Ordering::Relaxed);
            let path = self.paths.checkpoint(number);
            let mut writer = Writer::default();
            writer.number(VERSION).count(1);
            pack.write(&mut writer);
            let object = seal_record(&self.item.data, Magic::CHECKPOINT, &path, &writer.finish())?;
            if self.item.store.put_new(&path, object).await? == Put::Created {
                return Ok(());
            }
        }
    }

    async fn load(&self, points: &Points) -> Result<Index> {
        let mut index = Index::new(self.item.options.index_chunks_max);
        // What a killed take left comes first: it is the most like what comes now.
        for packs in [self.open_packs().await?, self.point_packs(points).await?] {
            let unknown: Vec<_> = packs.into_iter().filter(|pack| !index.knows(pack)).collect();
            let footers: Vec<_> = unknown.into_iter().map(|pack| self.footer(pack)).collect();
            let mut footers = stream::iter(footers).buffered(FOOTERS_AT_ONCE);
            while let Some(footer) = footers.next().await {
                match footer {
                    _ if index.is_full() => break,
                    Ok((pack, _)) if index.knows(&pack) => {}
                    Ok((pack, footer)) => {
                        let number = index.reserve();
                        index.settle(number, pack, &footer.chunks);
                    }
                    // A pack that cannot be read is not built upon; its bytes are stored again.
                    Err(error) if is_lost(&error) => {
                        tracing::warn!(%error, "pack is not used for deduplication");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(index)
    }

    async fn footer(&self, pack: PackRef) -> Result<(PackRef, Footer)> {
        let path = self.item.paths.pack(&pack.name);
        // The length is asked for because the footer may be fine in a pack that is cut short.
        match self.item.store.length(&path).await? {
            Some(length) if length == pack.length => {}
            Some(_) => return Err(Error::damaged(path, "its length is wrong")),
            None => return Err(Error::damaged(path, "it is missing")),
        }
        let sealed = self.item.store.get_range(&path, pack.footer_range()).await?;
        let footer = Footer::open(&pack, &self.item.data, &path, &sealed)?;
        Ok((pack, footer))
    }

    async fn open_packs(&self) -> Result<Vec<PackRef>> {
        let mut packs = Vec::new();
        for object in self.item.store.list(&self.item.paths.open()).await? {
            let found = match open_object(&object.path) {
                Some(OpenObject::Checkpoint(_)) => self.checkpointed(&object.path).await,
                Some(OpenObject::Hold) => {
                    HoldRecord::load(&self.item, &object.path).await.map(|hold| hold.packs)
                }
                _ => continue,
            };
            match found {
                Ok(found) => packs.extend(found),
                Err(error) if is_lost(&error) => {
                    tracing::warn!(%error, "open take is not used for deduplication");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(packs)
    }

    async fn checkpointed(&self, path: &str) -> Result<Vec<PackRef>> {
        let object = self.item.store.get(path).await?;
        let payload = open_record(&self.item.data, Magic::CHECKPOINT, path, &object)?;
        let mut reader = Reader::new(&payload, path);
        reader.version(VERSION)?;
        (0..reader.count(PackRef::WIRE_BYTES_MIN)?).map(|_| PackRef::read(&mut reader)).collect()
    }

    async fn point_packs(&self, points: &Points) -> Result<Vec<PackRef>> {
        let mut chosen = BTreeMap::new();
        let newest = points.entries.values().rev().take(POINTS_SEARCHED);
        let mut waiting: Vec<_> = newest.collect();
        while let Some(entry) = waiting.pop() {
            if chosen.insert(entry.seq, entry).is_none() {
                waiting.extend(entry.base.iter().filter_map(|base| points.find(base)));
            }
        }
        let bodies: Vec<_> = chosen.into_values().rev().map(|entry| self.packs_of(entry)).collect();
        let mut bodies = stream::iter(bodies).buffered(FOOTERS_AT_ONCE);
        let (mut packs, mut names) = (Vec::new(), HashSet::new());
        while let Some(found) = bodies.try_next().await? {
            // The points of an item have most of their packs in common.
            packs.extend(found.into_iter().filter(|pack| names.insert(pack.name)));
        }
        Ok(packs)
    }

    async fn packs_of(&self, entry: &PointEntry) -> Result<Vec<PackRef>> {
        match fetch_body(&self.item, entry).await {
            Ok(body) => Ok(body.packs),
            Err(error) if is_lost(&error) => {
                tracing::warn!(%error, "point is not used for deduplication");
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether an object is gone or unreadable for good, as opposed to out of reach.
fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound)
}
