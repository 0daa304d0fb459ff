//! A run of bytes that crosses without a copy.
//!
//! **Promise.** The bytes stay where their maker put them; `release` is called exactly once, on
//! whichever thread drops the last slice, and only the maker's own code frees them.
//!
//! **How.** The receiving side wraps the value with [`Bytes::from_owner`], so slices and clones
//! are the receiver's business and cost the maker nothing.

use std::slice;

use abi_stable::StableAbi;
use bytes::Bytes;

use super::guard::contain_quietly;

/// Bytes owned by the side that made them.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiBytes {
    pub(super) ptr: *const u8,
    pub(super) len: usize,
    pub(super) owner: *mut (),
    pub(super) release: unsafe extern "C" fn(*mut ()),
}

// SAFETY: the maker guarantees that the bytes do not change and may be read, and `release` be
// called, on any thread (both constructors take owners that are `Send`, and share only `[u8]`).
unsafe impl Send for AbiBytes {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for AbiBytes {}

impl AbiBytes {
    /// Bytes from their parts; see [`super::buffer`].
    ///
    /// # Safety
    ///
    /// `ptr` is readable for `len` bytes, unchanged, from any thread, until `release(owner)`,
    /// which is callable once from any thread.
    pub(super) unsafe fn from_parts(
        ptr: *const u8,
        len: usize,
        owner: *mut (),
        release: unsafe extern "C" fn(*mut ()),
    ) -> Self {
        Self { ptr, len, owner, release }
    }

    /// The same bytes as an ordinary value; nothing is copied.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        // No byte of an empty run is ever read, so its owner can go now.
        if self.as_ref().is_empty() { Bytes::new() } else { Bytes::from_owner(self) }
    }

    /// The bytes as text, with anything that is not UTF-8 replaced.
    pub(crate) fn to_text(&self) -> String {
        String::from_utf8_lossy(self.as_ref()).into_owned()
    }
}

impl From<Bytes> for AbiBytes {
    fn from(bytes: Bytes) -> Self {
        unsafe extern "C" fn release(owner: *mut ()) {
            contain_quietly("dropping bytes", || {
                // SAFETY: `owner` is the box below, and the contract of `release` is "once".
                drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
            });
        }
        let (ptr, len) = (bytes.as_ptr(), bytes.len());
        let owner = Box::into_raw(Box::new(bytes)).cast();
        Self { ptr, len, owner, release }
    }
}

impl From<String> for AbiBytes {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl AsRef<[u8]> for AbiBytes {
    fn as_ref(&self) -> &[u8] {
        // A maker in C may say "nothing" with a null pointer.
        if self.len == 0 || self.ptr.is_null() {
            return &[];
        }
        // SAFETY: the maker's guarantee; `release` runs only when `self` drops.
        unsafe { slice::from_raw_parts(self.ptr, self.len) }
    }
}

impl Drop for AbiBytes {
    fn drop(&mut self) {
        // SAFETY: called once, here.
        unsafe { (self.release)(self.owner) }
    }
}

impl std::fmt::Debug for AbiBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the content: it may be a customer's data.
        f.debug_struct("AbiBytes").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_stay_where_they_are_and_outlive_the_wrapper() {
        let bytes = Bytes::from(vec![9_u8; 4096]);
        let at = bytes.as_ptr();
        let crossed = AbiBytes::from(bytes).into_bytes();
        assert_eq!(crossed.as_ptr(), at);
        let slice = crossed.slice(10..20);
        drop(crossed);
        assert_eq!(&slice[..], &[9; 10]);
    }

    #[test]
    fn no_bytes_are_no_bytes() {
        assert!(AbiBytes::from(Bytes::new()).into_bytes().is_empty());
    }
}
