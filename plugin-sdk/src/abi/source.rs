//! Bytes to read from, at any position.
//!
//! A source is a length and `read_at`; reading it from front to back is an adapter's business.

use std::fmt;
use std::future::Future;

use abi_stable::StableAbi;
use bytes::Bytes;

use super::guard::{contain, contain_quietly};
use super::host_calls::unless_revoked;
use super::reply::{CallError, TaskFault, answer, body};
use super::task::{AbiTask, BoxFuture, ForeignTask};
use fsm_core::Cancellation;

/// A source as it crosses.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiSource {
    pub(super) data: *const (),
    pub(super) len: u64,
    pub(super) read_at: unsafe extern "C" fn(*const (), u64, u64) -> AbiTask,
    pub(super) drop: unsafe extern "C" fn(*const ()),
}

// SAFETY: the only constructor takes a `Send + Sync` implementation.
unsafe impl Send for AbiSource {}
// SAFETY: as above; `read_at` takes the implementation by shared reference.
unsafe impl Sync for AbiSource {}

impl fmt::Debug for AbiSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbiSource").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Drop for AbiSource {
    fn drop(&mut self) {
        // SAFETY: called once, here.
        unsafe { (self.drop)(self.data) }
    }
}

/// What stands behind a source.
///
/// The caller reads from any thread, several ranges at a time, in any order. A panic here is
/// contained and is the reader's [`CallError::Fault`].
pub trait HostSource: Send + Sync + 'static {
    /// How many bytes there are. Asked once, when the source is handed over.
    fn len(&self) -> u64;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes from `offset`, at most `len` of them: fewer only at the end, none past it.
    fn read_at(&self, offset: u64, len: u64) -> BoxFuture<Result<Bytes, CallError>>;
}

/// The reader's end of a source.
#[derive(Debug)]
pub struct SourceHandle(AbiSource);

impl SourceHandle {
    /// A source that `source` answers for.
    #[must_use]
    pub fn serve<S: HostSource>(source: S) -> Self {
        unsafe extern "C" fn read_at<S: HostSource>(
            data: *const (),
            offset: u64,
            len: u64,
        ) -> AbiTask {
            // SAFETY: `data` is the box below, not yet dropped, and `S` is `Sync`.
            let source = unsafe { &*data.cast::<S>() };
            match contain(|| source.read_at(offset, len)) {
                Ok(reading) => {
                    AbiTask::new(Box::pin(async { answer(reading.await) }), Cancellation::new())
                }
                Err(text) => AbiTask::panicked(text),
            }
        }
        unsafe extern "C" fn release<S>(data: *const ()) {
            contain_quietly("dropping a source", || {
                // SAFETY: `data` is the box below; this is the one call of `drop`.
                drop(unsafe { Box::from_raw(data.cast_mut().cast::<S>()) });
            });
        }
        let len = source.len();
        let data = Box::into_raw(Box::new(source)).cast_const().cast();
        Self(AbiSource { data, len, read_at: read_at::<S>, drop: release::<S> })
    }

    pub(super) fn from_abi(source: AbiSource) -> Self {
        Self(source)
    }

    pub(super) fn into_abi(self) -> AbiSource {
        self.0
    }

    /// A source that refuses once `revoked` is raised.
    pub(super) fn revocable(self, revoked: &Cancellation) -> Self {
        Self::serve(Revocable { source: self, revoked: revoked.clone() })
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len
    }

    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Reads from `offset`, at most `len` bytes: fewer only at the end, none past it. Several
    /// reads may be under way at once.
    ///
    /// # Errors
    ///
    /// [`CallError::Refused`] with the owner's error document, or the fault that kept it from
    /// answering.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons this read only.
    pub fn read_at(
        &self,
        offset: u64,
        len: u64,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + 'static {
        let reading = self.start_read(offset, len);
        async { body(reading.await) }
    }

    fn start_read(&self, offset: u64, len: u64) -> ForeignTask {
        // SAFETY: the source is not dropped; `read_at` may be called from any thread.
        ForeignTask::new(unsafe { (self.0.read_at)(self.0.data, offset, len) })
    }
}

/// A source of a request that may end before its user knows.
struct Revocable {
    source: SourceHandle,
    revoked: Cancellation,
}

impl HostSource for Revocable {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_at(&self, offset: u64, len: u64) -> BoxFuture<Result<Bytes, CallError>> {
        if self.revoked.is_requested() {
            return Box::pin(std::future::ready(Err(CallError::Fault(TaskFault::Revoked))));
        }
        let (reading, revoked) = (self.source.start_read(offset, len), self.revoked.clone());
        Box::pin(async move { body(unless_revoked(reading, &revoked).await.flatten()) })
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    struct Memory(Bytes);
    impl HostSource for Memory {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, len: u64) -> BoxFuture<Result<Bytes, CallError>> {
            assert!(len > 0, "a read of nothing");
            let end = self.len().min(offset + len);
            let read = match usize::try_from(offset.min(end))
                .and_then(|from| usize::try_from(end).map(|end| self.0.slice(from..end)))
            {
                Ok(bytes) if offset <= self.len() => Ok(bytes),
                _ => Err(CallError::Refused(Bytes::from("past the end"))),
            };
            Box::pin(std::future::ready(read))
        }
    }

    #[test]
    fn reads_overlap_refusals_are_typed_and_panics_are_contained() {
        let source = SourceHandle::serve(Memory(Bytes::from("0123456789")));
        assert_eq!(source.len(), 10);
        let (head, tail) = (source.read_at(0, 4), source.read_at(8, 100));
        assert_eq!(block_on(tail), Ok(Bytes::from("89")));
        assert_eq!(block_on(head), Ok(Bytes::from("0123")));
        let refused = block_on(source.read_at(11, 1));
        assert_eq!(refused, Err(CallError::Refused(Bytes::from("past the end"))));
        let panicked = block_on(source.read_at(0, 0));
        assert_eq!(
            panicked,
            Err(CallError::Fault(TaskFault::Panicked("a read of nothing".into())))
        );
    }
}
