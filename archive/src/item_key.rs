//! The object that makes a place in an archive an item: its data key, wrapped.
//!
//! The same object carries the item's name and chunk size, so that archive and key are all that it
//! takes to list and restore. When the key of the archive changes, each item gets another such
//! object with a higher number and the same content.

use zeroize::Zeroizing;

use crate::archive::Options;
use crate::chunk::ChunkSize;
use crate::crypto::Secret;
use crate::error::{Error, Result};
use crate::item::{Item, ItemInner};
use crate::key::Key;
use crate::layout::{ItemPaths, decimal};
use crate::log::PointLog;
use crate::record::{Magic, open_record, seal_record};
use crate::store::{Put, Store};
use crate::wire::{Reader, Writer};

const VERSION: u64 = 1;
const CHUNK_CONTEXT: &str = "mercury archive v1 chunk ids";

/// Where an item is, or would be.
pub(crate) struct ItemPlace {
    pub(crate) store: Store,
    pub(crate) paths: ItemPaths,
    pub(crate) names: Secret,
    pub(crate) options: Options,
}

/// What the object says.
struct ItemKey {
    data: Secret,
    name: String,
    chunk_size: ChunkSize,
}

impl ItemPlace {
    /// Creates the item, unless somebody else just did.
    pub(crate) async fn create(self, key: &Key, name: &str) -> Result<Item> {
        let path = self.paths.key(1);
        let item = ItemKey {
            data: Secret::generate()?,
            name: name.to_owned(),
            chunk_size: self.options.chunk_size,
        };
        let object = seal_record(
            &Secret::from(key),
            Magic::ITEM_KEY,
            &path,
            &Zeroizing::new(item.encode()),
        )?;
        match self.store.put_new(&path, object).await? {
            Put::Created => Ok(self.item(item)),
            Put::Existed => {
                let found = self.open(key).await?;
                found.ok_or_else(|| Error::damaged(path, "it vanished"))
            }
        }
    }

    /// Opens the item with the highest-numbered object that `key` opens; `None` if there is none.
    pub(crate) async fn open(self, key: &Key) -> Result<Option<Item>> {
        let mut keys = self.store.list(&self.paths.keys()).await?;
        keys.retain(|object| decimal(&object.path).is_some());
        keys.sort_by_key(|object| std::cmp::Reverse(decimal(&object.path)));
        let mut refused = None;
        for object in keys {
            let bytes = self.store.get(&object.path).await?;
            match ItemKey::open(key, &object.path, &bytes) {
                Ok(item) if self.directory_of(&item.name) == self.paths.directory() => {
                    return Ok(Some(self.item(item)));
                }
                Ok(_) => refused = Some(Error::damaged(object.path, "another item's key")),
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    fn directory_of(&self, name: &str) -> String {
        hex::encode(self.names.hide(name.as_bytes()))
    }

    fn item(self, key: ItemKey) -> Item {
        let Self { store, paths, names, options } = self;
        let ItemKey { data, name, chunk_size } = key;
        let chunk_ids = data.derive(CHUNK_CONTEXT, &[]);
        let log = PointLog::default();
        Item::new(ItemInner {
            store,
            paths,
            names,
            options,
            name,
            data,
            chunk_ids,
            chunk_size,
            log,
        })
    }
}

impl ItemKey {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.number(VERSION).fixed(self.data.bytes()).text(&self.name);
        writer.number(self.chunk_size.bytes_avg().into());
        writer.finish()
    }

    fn open(key: &Key, path: &str, object: &[u8]) -> Result<Self> {
        let payload = open_record(&Secret::from(key), Magic::ITEM_KEY, path, object)?;
        let mut reader = Reader::new(&payload, path);
        reader.version(VERSION)?;
        let data = Secret::from_bytes(reader.array()?);
        let name = reader.text()?;
        let chunk_size = ChunkSize::new(reader.number_u32()?)
            .map_err(|_| Error::damaged(path, "its chunk size is impossible"))?;
        Ok(Self { data, name, chunk_size })
    }
}
