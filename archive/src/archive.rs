//! An archive: a place in a store where items keep their recovery points.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use serde::{Deserialize, Serialize};

use crate::chunk::ChunkSize;
use crate::crypto::{Secret, random, short};
use crate::error::{Error, ErrorKind, Result};
use crate::item::Item;
use crate::item_key::ItemPlace;
use crate::key::Key;
use crate::layout::{ARCHIVE, ItemPaths, root_key};
use crate::local::{Directories, Missing};
use crate::pack::PACK_BYTES_MAX;
use crate::record::{Magic, open_record, seal_record};
use crate::store::{Put, Store};
use crate::wire::{Reader, Writer};

const FORMAT: u32 = 1;
const VERSION: u64 = 1;
const CHECK_CONTEXT: &str = "mercury archive v1 key check";

/// How an archive is written. None of it is needed to read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The chunk size of items that are created from now on; items keep theirs.
    pub chunk_size: ChunkSize,
    /// A pack is stored when it has grown to this many bytes: 1 MiB to 32 MiB. Up to two packs a
    /// stream are in memory at once.
    pub pack_bytes: u64,
    /// How many chunks a session remembers to find what is stored already, at about 50 bytes each.
    /// What it does not remember is stored again.
    pub index_chunks_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { chunk_size: ChunkSize::default(), pack_bytes: 16 << 20, index_chunks_max: 2_000_000 }
    }
}

/// An archive that has been opened with its key. Clones are cheap and share it.
///
/// # Examples
///
/// ```
/// use archive::{Archive, Epoch, Key, SealRequest, Take};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("vault");
/// let key = Key::generate()?;
/// let archive = Archive::create_dir(&path, &key).await?;
/// let item = archive.item("orders").await?;
///
/// let session = item.begin(Take::new("take-1", Epoch(1))).await?;
/// let mut stream = session.stream("data")?;
/// stream.write("every byte of the database".into()).await?;
/// stream.finish().await?;
/// session.seal(SealRequest::new("monday", Epoch(1), 1_700_000_000_000)).await?;
///
/// let point = item.points().await?.pop().ok_or("no point")?;
/// let stream = item.read(&point).await?.stream("data")?;
/// assert_eq!(stream.read_at(6, 4).await?, "byte");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Archive {
    store: Store,
    key: Key,
    names: Secret,
    options: Options,
}

impl Archive {
    /// Creates an archive in the directory `path`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Exists`] if the directory is an archive already.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves either no archive or a whole one.
    pub async fn create_dir(path: impl Into<PathBuf>, key: &Key) -> Result<Self> {
        Self::create_in(local(path.into(), Missing::Make).await?, key).await
    }

    /// Opens the archive in the directory `path`.
    ///
    /// Removes what killed writers left half written more than an hour ago, and syncs every
    /// directory, so that whatever is visible from now on survives a power cut.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is no archive, [`ErrorKind::WrongKey`] if `key` is not its
    /// key, [`ErrorKind::Damaged`] if it cannot be recognised.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn open_dir(path: impl Into<PathBuf>, key: &Key) -> Result<Self> {
        Self::open_in(local(path.into(), Missing::Refuse).await?, key).await
    }

    /// Opens the archive in the directory `path`, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As for [`Archive::open_dir`], but never [`ErrorKind::NotFound`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves either no archive or a whole one.
    pub async fn open_or_create_dir(path: impl Into<PathBuf>, key: &Key) -> Result<Self> {
        Self::open_or_create_in(local(path.into(), Missing::Make).await?, key).await
    }

    /// Creates an archive in `store`, at its root.
    ///
    /// The store must support put-if-absent and list what was put at once; a put that it
    /// acknowledges must be durable. Use an [`object_store::prefix::PrefixStore`] to give the
    /// archive a part of a bucket.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Exists`] if the store holds an archive already.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves either no archive or a whole one.
    pub async fn create(store: Arc<dyn ObjectStore>, key: &Key) -> Result<Self> {
        Self::create_in(Store::new(store), key).await
    }

    /// Opens the archive in `store`.
    ///
    /// # Errors
    ///
    /// As for [`Archive::open_dir`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn open(store: Arc<dyn ObjectStore>, key: &Key) -> Result<Self> {
        Self::open_in(Store::new(store), key).await
    }

    /// Opens the archive in `store`, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As for [`Archive::open_or_create_dir`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves either no archive or a whole one.
    pub async fn open_or_create(store: Arc<dyn ObjectStore>, key: &Key) -> Result<Self> {
        Self::open_or_create_in(Store::new(store), key).await
    }

    /// The same archive, written as `options` say.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Input`] if `pack_bytes` is out of its range.
    pub fn with_options(self, options: Options) -> Result<Self> {
        if !(1 << 20..=PACK_BYTES_MAX).contains(&options.pack_bytes) {
            return Err(Error::input("pack bytes", "a pack has 1 MiB to 32 MiB"));
        }
        Ok(Self { options, ..self })
    }

    /// The item `name`, which is created if the archive does not know it.
    ///
    /// The name is any text; it is not visible at rest.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Damaged`] if the item's key cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves either no item or an empty one.
    pub async fn item(&self, name: &str) -> Result<Item> {
        if let Some(item) = self.find_item(name).await? {
            return Ok(item);
        }
        self.place(self.item_paths(name)).create(&self.key, name).await
    }

    /// The item `name`, if the archive knows it.
    ///
    /// # Errors
    ///
    /// As for [`Archive::item`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn find_item(&self, name: &str) -> Result<Option<Item>> {
        self.place(self.item_paths(name)).open(&self.key).await
    }

    /// The names of all items, in order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Damaged`] if the key of an item cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn items(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for directory in self.store.directories().await? {
            if !ItemPaths::is_item(&directory) {
                continue;
            }
            if let Some(item) = self.place(ItemPaths::new(directory)).open(&self.key).await? {
                names.push(item.name().to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn item_paths(&self, name: &str) -> ItemPaths {
        ItemPaths::new(hex::encode(self.names.hide(name.as_bytes())))
    }

    fn place(&self, paths: ItemPaths) -> ItemPlace {
        ItemPlace {
            store: self.store.clone(),
            paths,
            names: self.names.clone(),
            options: self.options.clone(),
        }
    }

    async fn create_in(store: Store, key: &Key) -> Result<Self> {
        let about = About { format: FORMAT, id: hex::encode(random::<16>()?) };
        if store.find(ARCHIVE).await?.is_some() {
            return Err(Error::new(ErrorKind::Exists, ARCHIVE, "there is an archive here"));
        }
        // The secrets first: the archive exists as soon as `archive.json` does. Secrets that lost a
        // race belong to an archive id that nobody has.
        let path = root_key(&check(key, &about.id));
        let names = Secret::generate()?;
        let mut writer = Writer::default();
        writer.number(VERSION).fixed(names.bytes());
        let payload = zeroize::Zeroizing::new(writer.finish());
        let object = seal_record(&Secret::from(key), Magic::ROOT_KEY, &path, &payload)?;
        store.put_new(&path, object).await?;
        match store.put_new(ARCHIVE, about.render()).await? {
            Put::Created => {
                Ok(Self { store, key: key.clone(), names, options: Options::default() })
            }
            Put::Existed => Err(Error::new(ErrorKind::Exists, ARCHIVE, "there is an archive here")),
        }
    }

    async fn open_in(store: Store, key: &Key) -> Result<Self> {
        let Some(object) = store.find(ARCHIVE).await? else {
            return Err(Error::not_found(ARCHIVE, "there is no archive here"));
        };
        let about = About::parse(&object)?;
        let path = root_key(&check(key, &about.id));
        let Some(object) = store.find(&path).await? else {
            return Err(Error::new(ErrorKind::WrongKey, ARCHIVE, "it was made with another key"));
        };
        let payload = open_record(&Secret::from(key), Magic::ROOT_KEY, &path, &object)?;
        let mut reader = Reader::new(&payload, &path);
        reader.version(VERSION)?;
        let names = Secret::from_bytes(reader.array()?);
        Ok(Self { store, key: key.clone(), names, options: Options::default() })
    }

    async fn open_or_create_in(store: Store, key: &Key) -> Result<Self> {
        match Self::open_in(store.clone(), key).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        match Self::create_in(store.clone(), key).await {
            // Somebody was faster.
            Err(error) if error.kind() == ErrorKind::Exists => Self::open_in(store, key).await,
            created => created,
        }
    }
}

async fn local(path: PathBuf, missing: Missing) -> Result<Store> {
    let directories = Directories::open(path, missing).await?;
    let root = directories.root();
    let store = LocalFileSystem::new_with_prefix(root)
        .map_err(|error| Error::store(root.display().to_string(), error))?
        .with_fsync(true);
    Ok(Store::local(Arc::new(store), directories))
}

/// A value that only this key has for this archive, and that says nothing about the key.
fn check(key: &Key, archive: &str) -> [u8; 16] {
    let secret = Secret::from(key).derive(CHECK_CONTEXT, archive.as_bytes());
    short(&blake3::Hash::from_bytes(*secret.bytes()))
}

/// The content of `archive.json`.
#[derive(Serialize, Deserialize)]
struct About {
    format: u32,
    id: String,
}

impl About {
    fn render(&self) -> Vec<u8> {
        let Self { format, id } = self;
        let sum = self.sum();
        format!("{{\"format\":{format},\"id\":\"{id}\",\"sum\":\"{sum}\"}}\n").into_bytes()
    }

    fn sum(&self) -> String {
        let text = format!("mercury archive {} {}", self.format, self.id);
        hex::encode(short(&blake3::hash(text.as_bytes())))
    }

    fn parse(object: &[u8]) -> Result<Self> {
        let about: Self = serde_json::from_slice(object)
            .map_err(|_| Error::damaged(ARCHIVE, "it is not what an archive begins with"))?;
        if about.format != FORMAT {
            return Err(Error::damaged(ARCHIVE, "its format is not known to this program"));
        }
        if about.render() != object {
            return Err(Error::damaged(ARCHIVE, "its sum does not fit"));
        }
        Ok(about)
    }
}
