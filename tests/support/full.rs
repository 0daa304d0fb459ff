//! An object store that runs out of room, or fails once, when it is told to.

use std::{
    fmt,
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory,
    path::Path,
};

#[derive(Debug, Default)]
pub struct Room {
    objects: InMemory,
    is_full: AtomicBool,
    hiccup: AtomicBool,
}

impl Room {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// From now on there is no room.
    pub fn fill(&self) {
        self.is_full.store(true, Ordering::SeqCst);
    }

    /// There is room again.
    pub fn empty(&self) {
        self.is_full.store(false, Ordering::SeqCst);
    }

    /// The next put fails, without a lasting reason.
    pub fn hiccup(&self) {
        self.hiccup.store(true, Ordering::SeqCst);
    }

    pub async fn objects(&self) -> Vec<String> {
        let listing = self.objects.list(None).map(|meta| meta.unwrap().location.to_string());
        let mut objects: Vec<_> = listing.collect().await;
        objects.sort();
        objects
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("room")
    }
}

#[async_trait]
impl ObjectStore for Room {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let failure = match () {
            () if self.is_full.load(Ordering::SeqCst) => Some(ErrorKind::StorageFull),
            () if self.hiccup.swap(false, Ordering::SeqCst) => Some(ErrorKind::TimedOut),
            () => None,
        };
        if let Some(kind) = failure {
            let source = Box::new(std::io::Error::from(kind));
            return Err(Error::Generic { store: "room", source });
        }
        self.objects.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.objects.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
