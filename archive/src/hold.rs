//! Holds: what keeps a finished stream until it is sealed into a point or released.
//!
//! A hold is an object of its own, written by the last step of finishing a stream. It says where
//! the stream's bytes are, so that a receipt can be sealed by a process that knows nothing else.

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Content, PackList};
use crate::ids::{Epoch, TakeId};
use crate::item::ItemInner;
use crate::layout::{OpenObject, open_object};
use crate::pack::PackRef;
use crate::receipt::{Receipt, StreamHash, StreamStats};
use crate::record::{Magic, open_record, seal_record};
use crate::store::Put;
use crate::wire::{Reader, Writer};

const VERSION: u64 = 1;

/// A finished stream that the archive keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hold {
    /// What [`StreamWriter::finish`](crate::StreamWriter::finish) returned.
    pub receipt: Receipt,
    /// The epoch of the writer that finished the stream.
    pub epoch: Epoch,
}

/// A hold with what only the archive needs to know.
pub(crate) struct HoldRecord {
    pub(crate) receipt: Receipt,
    pub(crate) epoch: Epoch,
    pub(crate) packs: Vec<PackRef>,
    pub(crate) content: Content,
}

impl HoldRecord {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.number(VERSION).text(self.receipt.take.as_str()).text(&self.receipt.stream);
        writer.number(self.epoch.0).number(self.receipt.length).fixed(&self.receipt.hash.0);
        self.receipt.stats.write(&mut writer);
        let mut packs = PackList::default();
        for pack in &self.packs {
            packs.number(pack);
        }
        packs.write(&mut writer);
        self.content.write(&mut writer);
        writer.finish()
    }

    fn decode(path: &str, payload: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(payload, path);
        reader.version(VERSION)?;
        let take = TakeId::new(reader.text()?);
        let stream = reader.text()?;
        let epoch = Epoch(reader.number()?);
        let length = reader.number()?;
        let hash = StreamHash(reader.array()?);
        let stats = StreamStats::read(&mut reader)?;
        let packs = PackList::read(&mut reader)?;
        let content = Content::read(&mut reader, packs.len(), length)?;
        Ok(Self { receipt: Receipt { take, stream, length, hash, stats }, epoch, packs, content })
    }

    /// Writes the hold. One that is there already must hold the same bytes; its receipt wins.
    pub(crate) async fn store(self, item: &ItemInner) -> Result<Receipt> {
        let take = item.paths.take(&item.names, self.receipt.take.as_str());
        let path = take.hold(&item.names, &self.receipt.stream);
        let object = seal_record(&item.data, Magic::HOLD, &path, &self.encode())?;
        match item.store.put_new(&path, object).await? {
            Put::Created => Ok(self.receipt),
            Put::Existed => {
                let found = Self::load(item, &path).await?.receipt;
                if (found.length, found.hash) != (self.receipt.length, self.receipt.hash) {
                    return Err(Error::new(
                        ErrorKind::Exists,
                        self.receipt.stream,
                        "the take has finished a different stream of this name",
                    ));
                }
                Ok(found)
            }
        }
    }

    pub(crate) async fn load(item: &ItemInner, path: &str) -> Result<Self> {
        let object = item.store.get(path).await?;
        Self::decode(path, &open_record(&item.data, Magic::HOLD, path, &object)?)
    }

    /// Like [`HoldRecord::load`]. The hold survives a power cut, also if its writer was stopped
    /// before it could see to that.
    async fn load_durable(item: &ItemInner, path: &str) -> Result<Self> {
        item.store.make_durable(path).await?;
        Self::load(item, path).await
    }

    /// Finds the hold that `receipt` speaks of.
    pub(crate) async fn find(item: &ItemInner, receipt: &Receipt) -> Result<Self> {
        let take = item.paths.take(&item.names, receipt.take.as_str());
        let path = take.hold(&item.names, &receipt.stream);
        let Some(object) = item.store.find(&path).await? else {
            return Err(Error::not_found(
                format!("stream {} of take {}", receipt.stream, receipt.take),
                "it was never finished, or its take was released",
            ));
        };
        let hold = Self::decode(&path, &open_record(&item.data, Magic::HOLD, &path, &object)?)?;
        if (hold.receipt.length, hold.receipt.hash) != (receipt.length, receipt.hash) {
            return Err(Error::input(
                &receipt.stream,
                "its receipt is not that of the held stream",
            ));
        }
        Ok(hold)
    }

    /// Every hold of the item.
    pub(crate) async fn all(item: &ItemInner) -> Result<Vec<Self>> {
        let mut holds = Vec::new();
        for object in item.store.list(&item.paths.open()).await? {
            if open_object(&object.path) != Some(OpenObject::Hold) {
                continue;
            }
            match Self::load_durable(item, &object.path).await {
                Ok(hold) => holds.push(hold),
                // Released since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(holds)
    }
}
