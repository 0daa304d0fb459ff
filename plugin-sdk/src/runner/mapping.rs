//! A stream's memory in this process.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::wire::{SLOT_BYTES, SLOTS};

const BYTES: usize = SLOTS as usize * SLOT_BYTES;

/// The slots of one stream, mapped. Each slot is used by one owner at a time, which the callers
/// see to.
#[derive(Debug)]
pub(super) struct Mapping(NonNull<u8>);

// SAFETY: the memory belongs to this value and may be used from any thread.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference only `slot` gives access, whose contract is one owner a slot.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(memory: &OwnedFd) -> io::Result<Self> {
        if (rustix::fs::fstat(memory)?.st_size as u64) < BYTES as u64 {
            return Err(io::Error::other("it is shorter than a stream's"));
        }
        let (read_write, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the system's choice touches no other memory. The
        // memory is as long as the mapping, and sealed by the parent to stay so.
        let start = unsafe { mmap(std::ptr::null_mut(), BYTES, read_write, shared, memory, 0) }?;
        NonNull::new(start.cast()).map(Self).ok_or_else(|| io::Error::other("it is nowhere"))
    }

    /// The slot that begins at `address`, if one does.
    pub(super) fn slot_at(&self, address: *const u8) -> Option<u32> {
        let offset = address.addr().checked_sub(self.0.as_ptr().addr())?;
        let begins = offset < BYTES && offset % SLOT_BYTES == 0;
        begins.then(|| u32::try_from(offset / SLOT_BYTES).ok()).flatten()
    }

    /// The memory of a slot.
    ///
    /// # Safety
    ///
    /// Nobody else in this process uses the slot while the reference lives.
    #[allow(clippy::mut_from_ref, reason = "the caller says that nobody else has the slot")]
    pub(super) unsafe fn slot(&self, slot: u32) -> &mut [u8] {
        assert!(slot < SLOTS, "there is no slot {slot}");
        // SAFETY: within the mapping, see the assertion, and the caller's alone. The parent only
        // reads, in a copy of its own.
        unsafe {
            let start = self.0.as_ptr().add(slot as usize * SLOT_BYTES);
            std::slice::from_raw_parts_mut(start, SLOT_BYTES)
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole of the mapping that `new` made, which nothing refers to any more.
        // That it cannot be unmapped costs addresses and nothing else.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), BYTES) };
    }
}
