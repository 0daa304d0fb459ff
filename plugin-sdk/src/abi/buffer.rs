//! A buffer that the host lends and the plugin fills in place.
//!
//! **Promise.** Freezing makes bytes out of the same memory with the same owner, so a chunk
//! written by the plugin is read by the host at the address where it was written. The memory goes
//! back to its lender once, when the buffer, or the last slice of the bytes, drops.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::{fmt, ptr, slice};

use abi_stable::StableAbi;
use bytes::Bytes;

use super::bytes::AbiBytes;
use super::guard::contain_quietly;

/// A lent buffer as it crosses.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiBuffer {
    pub(super) ptr: *mut u8,
    pub(super) capacity: usize,
    pub(super) owner: *mut (),
    pub(super) release: unsafe extern "C" fn(*mut ()),
}

// SAFETY: a lender's memory is `Send` (see `LentBuffer::new`), and this value is its only handle.
unsafe impl Send for AbiBuffer {}
// SAFETY: nothing is reachable through a shared reference.
unsafe impl Sync for AbiBuffer {}

impl AbiBuffer {
    /// No buffer at all: what travels beside a status that says "none".
    pub(super) fn none() -> Self {
        unsafe extern "C" fn nothing(_: *mut ()) {}
        Self { ptr: ptr::null_mut(), capacity: 0, owner: ptr::null_mut(), release: nothing }
    }
}

impl Drop for AbiBuffer {
    fn drop(&mut self) {
        // SAFETY: called once, here; freezing moves the owner out without running this.
        unsafe { (self.release)(self.owner) }
    }
}

impl fmt::Debug for AbiBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbiBuffer").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// A buffer on loan: write into it, then [`freeze`](Self::freeze) what was written.
///
/// It dereferences to its whole capacity. The content is whatever the last user left there;
/// nothing is promised about it except that it is initialised. Dropping it gives it back.
#[derive(Debug)]
pub struct LentBuffer(AbiBuffer);

impl LentBuffer {
    /// Lends the memory of `owner`, which is dropped when the loan ends.
    ///
    /// The owner must answer `as_mut` with the memory itself; it is asked once.
    #[must_use]
    pub fn new<O: AsMut<[u8]> + Send + 'static>(owner: O) -> Self {
        unsafe extern "C" fn release<O>(owner: *mut ()) {
            contain_quietly("returning a buffer", || {
                // SAFETY: `owner` is the box below, and the contract of `release` is "once".
                drop(unsafe { Box::from_raw(owner.cast::<O>()) });
            });
        }
        let owner = Box::into_raw(Box::new(owner));
        // SAFETY: the box was just leaked, so this is the only reference; it is not looked at
        // again until `release`, which keeps the slice's exclusive borrow of it alive.
        let memory = unsafe { &mut *owner }.as_mut();
        Self(AbiBuffer {
            ptr: memory.as_mut_ptr(),
            capacity: memory.len(),
            owner: owner.cast(),
            release: release::<O>,
        })
    }

    pub(super) fn from_abi(buffer: AbiBuffer) -> Self {
        Self(buffer)
    }

    pub(super) fn into_abi(self) -> AbiBuffer {
        self.0
    }

    /// The first `len` bytes as a chunk: same memory, same owner, no copy.
    ///
    /// # Panics
    ///
    /// If `len` is more than the buffer holds.
    #[must_use]
    pub fn freeze(self, len: usize) -> Chunk {
        assert!(len <= self.0.capacity, "cannot freeze {len} of {} bytes", self.0.capacity);
        let buffer = ManuallyDrop::new(self.0);
        // SAFETY: the lender's memory is readable for `capacity >= len` bytes; nobody writes to it
        // any more, because the buffer is consumed; its owner moves along with its release.
        let bytes = unsafe { AbiBytes::from_parts(buffer.ptr, len, buffer.owner, buffer.release) };
        Chunk { bytes, lent: true }
    }
}

impl Deref for LentBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.0.capacity == 0 {
            return &[];
        }
        // SAFETY: the lender gave `capacity` initialised bytes to this value alone.
        unsafe { slice::from_raw_parts(self.0.ptr, self.0.capacity) }
    }
}

impl DerefMut for LentBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        if self.0.capacity == 0 {
            return &mut [];
        }
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { slice::from_raw_parts_mut(self.0.ptr, self.0.capacity) }
    }
}

/// What can be sent into a sink: a filled loan, or bytes of the sender's own.
///
/// A loan is already counted by its lender; foreign bytes wait until the sink has room.
#[derive(Debug)]
pub struct Chunk {
    bytes: AbiBytes,
    lent: bool,
}

impl Chunk {
    /// Whether the memory is a loan of the host's.
    #[must_use]
    pub fn is_lent(&self) -> bool {
        self.lent
    }

    /// The same bytes as an ordinary value; nothing is copied. Sent later, they count as foreign.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes.into_bytes()
    }

    pub(super) fn into_abi(self) -> AbiBytes {
        self.bytes
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Self { bytes: bytes.into(), lent: false }
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Counted(Vec<u8>, Arc<AtomicUsize>);
    impl AsMut<[u8]> for Counted {
        fn as_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }
    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn freezing_keeps_the_memory_and_returns_it_once_with_the_last_slice() {
        let returned = Arc::new(AtomicUsize::new(0));
        let mut buffer = LentBuffer::new(Counted(vec![0; 64], returned.clone()));
        buffer[..3].copy_from_slice(b"abc");
        let at = buffer.as_ptr();
        let bytes = buffer.freeze(3).into_bytes();
        assert_eq!((&bytes[..], bytes.as_ptr()), (&b"abc"[..], at));
        let tail = bytes.slice(1..);
        drop(bytes);
        assert_eq!(returned.load(Ordering::SeqCst), 0);
        std::thread::spawn(move || drop(tail)).join().expect("the thread ends");
        assert_eq!(returned.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_unused_buffer_and_an_empty_chunk_go_back_at_once() {
        let returned = Arc::new(AtomicUsize::new(0));
        drop(LentBuffer::new(Counted(vec![0; 8], returned.clone())));
        assert!(LentBuffer::new(Counted(vec![0; 8], returned.clone())).freeze(0).is_empty());
        assert_eq!(returned.load(Ordering::SeqCst), 2);
    }

    #[test]
    #[should_panic(expected = "cannot freeze 9 of 8 bytes")]
    fn more_than_the_buffer_holds_is_not_frozen() {
        let _ = LentBuffer::new(vec![0; 8]).freeze(9);
    }
}
