//! The few things that the archive asks of an object store.
//!
//! **Promise.** Nothing is ever overwritten: the only write is put-if-absent. When
//! [`Store::put_new`] returns, the object survives a power cut (as far as the store keeps its own
//! promise; for a directory see [`crate::local`]).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::error::{Error, ErrorKind, Result};
use crate::local::Directories;

/// One object of a listing.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) path: String,
    pub(crate) length: u64,
}

/// Whether a put found its place empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Created,
    Existed,
}

#[derive(Clone, Debug)]
pub(crate) struct Store {
    inner: Arc<dyn ObjectStore>,
    directories: Option<Arc<Directories>>,
}

impl Store {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, directories: None }
    }

    pub(crate) fn local(inner: Arc<dyn ObjectStore>, directories: Arc<Directories>) -> Self {
        Self { inner, directories: Some(directories) }
    }

    pub(crate) async fn put_new(&self, path: &str, payload: impl Into<PutPayload>) -> Result<Put> {
        if let Some(directories) = &self.directories {
            directories.ensure(path).await?;
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.inner.put_opts(&Path::from(path), payload.into(), options).await {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. }) => {
                self.make_durable(path).await?;
                Ok(Put::Existed)
            }
            Err(error) => Err(Error::store(path, error)),
        }
    }

    /// Makes an object durable that was found, which somebody else may have left half done.
    pub(crate) async fn make_durable(&self, path: &str) -> Result<()> {
        match &self.directories {
            Some(directories) => directories.sync(path).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Bytes> {
        let result = self.inner.get(&Path::from(path)).await;
        let result = result.map_err(|error| Error::store(path, error))?;
        result.bytes().await.map_err(|error| Error::store(path, error))
    }

    /// Like [`Store::get`]; `None` if there is no such object.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Bytes>> {
        absent_is_none(self.get(path).await)
    }

    /// The bytes of `range`, or fewer when the object ends before.
    pub(crate) async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let bytes = self.inner.get_range(&Path::from(path), range).await;
        bytes.map_err(|error| Error::store(path, error))
    }

    /// The length of the object; `None` if there is no such object.
    pub(crate) async fn length(&self, path: &str) -> Result<Option<u64>> {
        let meta = self.inner.head(&Path::from(path)).await;
        absent_is_none(meta.map(|meta| meta.size).map_err(|error| Error::store(path, error)))
    }

    /// All objects below `prefix`, in the order of their paths.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let listing = self.inner.list(Some(&Path::from(prefix)));
        collect(prefix, listing).await
    }

    /// The names of the directories at the top.
    pub(crate) async fn directories(&self) -> Result<Vec<String>> {
        let listing = self.inner.list_with_delimiter(None).await;
        let listing = listing.map_err(|error| Error::store("archive", error))?;
        Ok(listing.common_prefixes.iter().map(|path| path.to_string()).collect())
    }

    /// Deletes the object if it is there.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        let deleted = self.inner.delete(&Path::from(path)).await;
        absent_is_none(deleted.map_err(|error| Error::store(path, error))).map(|_| ())
    }
}

fn absent_is_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn collect(
    prefix: &str,
    listing: futures::stream::BoxStream<'_, object_store::Result<object_store::ObjectMeta>>,
) -> Result<Vec<Object>> {
    let found = listing
        .map(|meta| meta.map(|meta| Object { path: meta.location.to_string(), length: meta.size }))
        .try_collect::<Vec<_>>()
        .await;
    let mut objects = match found {
        // A directory that is not there yet holds nothing.
        Err(object_store::Error::NotFound { .. }) => Vec::new(),
        found => found.map_err(|error| Error::store(prefix, error))?,
    };
    objects.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(objects)
}
