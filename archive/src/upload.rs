//! Storing the packs of a stream while the next one is being filled.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::error::Result;
use crate::index::Index;
use crate::pack::Pack;
use crate::session::SessionInner;

/// Whether a pack needs a checkpoint of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checkpoint {
    Write,
    /// It is the last one: the hold records it a moment later.
    Skip,
}

/// A pack on its way to the store.
pub(crate) struct ReadyPack {
    pub(crate) number: u32,
    pub(crate) pack: Pack,
    pub(crate) checkpoint: Checkpoint,
    /// The pack's place in memory, free again when it is stored.
    pub(crate) slot: OwnedSemaphorePermit,
}

/// The task that stores the packs of one stream, in order.
pub(crate) struct Upload {
    pub(crate) session: Arc<SessionInner>,
    pub(crate) index: Arc<Mutex<Index>>,
    pub(crate) ready: mpsc::Receiver<ReadyPack>,
}

impl Upload {
    pub(crate) async fn run(mut self) -> Result<()> {
        while let Some(ready) = self.ready.recv().await {
            let ReadyPack { number, pack, checkpoint, slot } = ready;
            let Pack { reference, payload, chunks } = pack;
            let item = &self.session.item;
            item.store.put_new(&item.paths.pack(&reference.name), payload).await?;
            drop(slot);
            if checkpoint == Checkpoint::Write {
                self.session.checkpoint(&reference).await?;
            }
            let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            index.settle(number, reference, &chunks);
        }
        Ok(())
    }
}
