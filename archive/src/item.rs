//! An item: one thing that is protected on its own, with its own key and its own points.

use std::sync::Arc;

use crate::archive::Options;
use crate::chunk::ChunkSize;
use crate::crypto::Secret;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::hold::{Hold, HoldRecord};
use crate::ids::TakeId;
use crate::layout::ItemPaths;
use crate::log::PointLog;
use crate::point::{PointEntry, SealRequest};
use crate::read::PointReader;
use crate::session::{Session, Take};
use crate::store::Store;
use crate::verify::{Level, VerifyReport};

/// One item of an archive. Clones are cheap and share it.
#[derive(Clone, Debug)]
pub struct Item(Arc<ItemInner>);

/// All points of an item that can be read, and what is wrong with the others.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Listing {
    /// The readable points, oldest first.
    pub points: Vec<PointEntry>,
    /// One error for each point that is not readable; its subject is the object.
    pub damaged: Vec<Error>,
}

pub(crate) struct ItemInner {
    pub(crate) store: Store,
    pub(crate) paths: ItemPaths,
    /// Hides the names in paths.
    pub(crate) names: Secret,
    pub(crate) options: Options,
    pub(crate) name: String,
    /// The item's data key.
    pub(crate) data: Secret,
    /// What chunk ids are keyed with.
    pub(crate) chunk_ids: Secret,
    pub(crate) chunk_size: ChunkSize,
    pub(crate) log: PointLog,
}

impl std::fmt::Debug for ItemInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Item").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Item {
    pub(crate) fn new(inner: ItemInner) -> Self {
        Self(Arc::new(inner))
    }

    /// The name that the item was created with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How large the item's chunks are.
    #[must_use]
    pub fn chunk_size(&self) -> ChunkSize {
        self.0.chunk_size
    }

    /// Begins a take: from now on streams can be written.
    ///
    /// Nothing is written for it yet. Takes of one item may overlap.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fenced`] if the newest point was sealed with a higher epoch.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn begin(&self, take: Take) -> Result<Session> {
        let points = self.0.log.refresh(&self.0).await?;
        points.fence(take.epoch)?;
        Ok(Session::new(Arc::clone(&self.0), take))
    }

    /// Makes a recovery point of finished streams.
    ///
    /// The receipts are all that is needed: the session that wrote the streams may be long gone.
    /// The point is there, as a whole, when this returns; before that nothing of it is visible.
    /// Sealing the same point id again returns the point that is there. The holds stay until
    /// [`Item::release`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fenced`] if the newest point has a higher epoch; [`ErrorKind::NotFound`] if a
    /// held stream, a base or the point to alias does not exist; [`ErrorKind::Exists`] if the point
    /// id is taken by different data; [`ErrorKind::Input`] if a receipt is not that of its hold,
    /// two streams have one name, or a finished stream of a take is left out: a take is sealed
    /// whole or not at all.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves either no point or a whole one; seal again to know.
    pub async fn seal(&self, request: SealRequest) -> Result<PointEntry> {
        crate::seal::seal(&self.0, request).await
    }

    /// All points, oldest first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Damaged`] naming the first point that cannot be read; use [`Item::listing`] to
    /// see the others all the same.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn points(&self) -> Result<Vec<PointEntry>> {
        let mut listing = self.listing().await?;
        match listing.damaged.is_empty() {
            true => Ok(listing.points),
            false => Err(listing.damaged.swap_remove(0)),
        }
    }

    /// All points that can be read, and what is wrong with the others.
    ///
    /// # Errors
    ///
    /// Only if the store cannot be asked.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn listing(&self) -> Result<Listing> {
        let points = self.0.log.refresh(&self.0).await?;
        let entries = points.entries.values().map(|entry| PointEntry::clone(entry)).collect();
        Ok(Listing { points: entries, damaged: points.damaged })
    }

    /// Opens a point to read its streams.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if the point has gone, [`ErrorKind::Damaged`] if its object is
    /// damaged.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn read(&self, point: &PointEntry) -> Result<PointReader> {
        PointReader::open(Arc::clone(&self.0), point).await
    }

    /// Checks a point as thoroughly as `level` says, and reports every problem it finds.
    ///
    /// # Errors
    ///
    /// Only if the store cannot be asked: damage is in the report.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn verify(&self, point: &PointEntry, level: Level) -> Result<VerifyReport> {
        crate::verify::verify(&self.0, point, level).await
    }

    /// The finished streams that the archive keeps, sealed or not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Damaged`] naming the first hold that cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn holds(&self) -> Result<Vec<Hold>> {
        let holds = HoldRecord::all(&self.0).await?;
        Ok(holds
            .into_iter()
            .map(|hold| Hold { receipt: hold.receipt, epoch: hold.epoch })
            .collect())
    }

    /// Lets go of a take: its holds, its checkpoints, its pin.
    ///
    /// This is the only thing that ever removes a hold. Streams that were sealed stay in their
    /// points; streams that were not are lost to the caller. Releasing what is not there is fine.
    ///
    /// # Errors
    ///
    /// Only if the store refuses; release again to go on.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave some of it; release again to go on.
    pub async fn release(&self, take: &TakeId) -> Result<()> {
        let paths = self.0.paths.take(&self.0.names, take.as_str());
        let objects = self.0.store.list(paths.directory()).await?;
        // The pin sorts first and goes last: it guards the others.
        for object in objects.iter().rev() {
            self.0.store.delete(&object.path).await?;
        }
        Ok(())
    }
}
