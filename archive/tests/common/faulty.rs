//! A store in memory that counts, and fails when told to.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens, and the caller is told so.
    Before,
    /// It happens, but the caller hears of a failure: an answer that was lost.
    After,
    /// Nothing happens, then or ever again: the process died.
    DeadBefore,
    /// It happens, and nothing ever again.
    DeadAfter,
    /// The disk is full.
    Full,
    /// Somebody else has removed the object since it was listed.
    Gone,
}

#[derive(Debug, Default)]
pub struct Faulty {
    inner: InMemory,
    calls: AtomicU64,
    puts: AtomicU64,
    plan: Mutex<Option<(u64, Fault)>>,
    hit: Mutex<Option<String>>,
}

impl Faulty {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The `nth` call from now, counted from 1, fails.
    pub fn fail(&self, nth: u64, fault: Fault) {
        self.calls.store(0, Ordering::SeqCst);
        *self.hit.lock().unwrap() = None;
        *self.plan.lock().unwrap() = Some((nth, fault));
    }

    /// Fails no more. Says which call failed, if one did.
    pub fn heal(&self) -> Option<String> {
        *self.plan.lock().unwrap() = None;
        self.hit.lock().unwrap().take()
    }

    pub fn puts(&self) -> u64 {
        self.puts.load(Ordering::SeqCst)
    }

    pub async fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.inner.list(None).map(|meta| meta.unwrap().location.to_string()).collect().await;
        names.sort();
        names
    }

    pub async fn object(&self, name: &str) -> Vec<u8> {
        self.inner.get(&Path::from(name)).await.unwrap().bytes().await.unwrap().to_vec()
    }

    pub async fn replace(&self, name: &str, bytes: Vec<u8>) {
        self.inner.put(&Path::from(name), bytes.into()).await.unwrap();
    }

    pub async fn remove(&self, name: &str) {
        self.inner.delete(&Path::from(name)).await.unwrap();
    }

    /// Counts a call; `Some` if it is the one to fail.
    fn call(&self, what: String) -> Option<Fault> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let (nth, fault) = (*self.plan.lock().unwrap())?;
        if number == nth {
            *self.hit.lock().unwrap() = Some(what);
            return Some(fault);
        }
        let dead = matches!(fault, Fault::DeadBefore | Fault::DeadAfter);
        (number > nth && dead).then_some(Fault::DeadBefore)
    }
}

fn failure(fault: Fault) -> Error {
    let kind = match fault {
        Fault::Gone => {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound).into();
            return Error::NotFound { path: "gone".to_owned(), source };
        }
        Fault::Full => std::io::ErrorKind::StorageFull,
        _ => std::io::ErrorKind::TimedOut,
    };
    Error::Generic { store: "faulty", source: Box::new(std::io::Error::from(kind)) }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        assert_eq!(options.mode, PutMode::Create, "{path}: every put is put-if-absent");
        self.puts.fetch_add(1, Ordering::SeqCst);
        match self.call(format!("put {path}")) {
            None => self.inner.put_opts(path, payload, options).await,
            Some(fault) => {
                if matches!(fault, Fault::After | Fault::DeadAfter) {
                    self.inner.put_opts(path, payload, options).await?;
                }
                Err(failure(fault))
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        unimplemented!("the archive puts whole objects")
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        match self.call(format!("get {path}")) {
            None => self.inner.get_opts(path, options).await,
            Some(fault) => Err(failure(fault)),
        }
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.call("delete".to_owned()) {
            None => self.inner.delete_stream(paths),
            Some(fault) => futures::stream::iter([Err(failure(fault))]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.call(format!("list {prefix:?}")) {
            None => self.inner.list(prefix),
            Some(fault) => futures::stream::iter([Err(failure(fault))]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.call(format!("list {prefix:?}")) {
            None => self.inner.list_with_delimiter(prefix).await,
            Some(fault) => Err(failure(fault)),
        }
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unimplemented!("the archive copies nothing")
    }
}
