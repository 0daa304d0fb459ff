//! Memory that parent and child share: the slots of one stream or source, and a few counters.
//!
//! **Promise.** What is copied out of it is looked at in the copy alone, once; nothing in this
//! process refers to bytes of it that the other side may change. Its size is sealed when it is
//! made, so that no access can find it cut short.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
/// The fence between two of the counters. It is named here, beside what it orders, so that both can
/// be replaced for a test (`tests/loom_ring.rs`).
pub(super) use std::sync::atomic::fence;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::{SLOT_BYTES, SLOTS};

/// The counters lie behind the slots, on a page of their own.
const COUNTERS: usize = SLOTS as usize * SLOT_BYTES;
const BYTES: usize = COUNTERS + 4096;
/// Two counters that different sides write are not on one line of the processor's cache.
const LINE: usize = 64;

/// Who has come how far: one word each.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(super) enum Counter {
    /// How many slots were sent. The child's.
    Sent,
    /// How many of them were taken. The parent's.
    Taken,
    /// Whether the parent is to be told of the next slot that is sent.
    ParentWaits,
    /// Whether the child is to be told of the next slot that is taken.
    ChildWaits,
}

/// The words that say what was sent lie behind the counters: as many as there can be slots under
/// way, in turns.
const ENTRIES: usize = COUNTERS + 4 * LINE;
/// A power of two, so that the turns go on where the counters overflow.
const ENTRY_COUNT: u32 = SLOTS.next_power_of_two();

/// The memory, mapped. It is unmapped when this drops.
#[derive(Debug)]
pub(crate) struct SharedMemory(NonNull<u8>);

// SAFETY: the mapping belongs to this value, and may be used from any thread.
unsafe impl Send for SharedMemory {}
// SAFETY: through a shared reference there are copies, atomic words, and `slot`, whose contract is
// one owner a slot.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// A new memory, and a descriptor of it for the other side.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = memfd_create(c"mercury-stream", flags)?;
        ftruncate(&memory, BYTES as u64)?;
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok((Self::of(&memory)?, memory))
    }

    /// The memory that the other side has made.
    pub(crate) fn of(memory: &OwnedFd) -> io::Result<Self> {
        if (rustix::fs::fstat(memory)?.st_size as u64) < BYTES as u64 {
            return Err(io::Error::other("it is shorter than a stream's"));
        }
        if !fcntl_get_seals(memory)?.contains(SealFlags::SHRINK) {
            return Err(io::Error::other("it can be cut short"));
        }
        let (read_write, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the system's choice touches no other memory. The
        // memory is as long as the mapping, and sealed to stay so.
        let start = unsafe { mmap(std::ptr::null_mut(), BYTES, read_write, shared, memory, 0) }?;
        NonNull::new(start.cast()).map(Self).ok_or_else(|| io::Error::other("it is nowhere"))
    }

    /// Copies from the slot, from `offset` on. The other side may be writing there: then these
    /// are some of the bytes from before and some from after.
    pub(crate) fn copy_out(&self, slot: u32, offset: usize, into: &mut [u8]) {
        let from = self.within(slot, offset, into.len());
        // SAFETY: `within` has seen that the whole source is in the mapping, which lives as long
        // as `self` and cannot be cut short. The target is borrowed for this call alone, so they
        // do not overlap. No reference to the source is made, any byte is a valid `u8`, and what
        // the other process writes meanwhile can make no more of the copy than other bytes.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        // Whoever looks at the copy does not look at the memory instead.
        compiler_fence(Ordering::SeqCst);
    }

    /// Where a piece of a slot begins.
    fn within(&self, slot: u32, offset: usize, len: usize) -> *mut u8 {
        assert!(slot < SLOTS, "there is no slot {slot}");
        let fits = offset.checked_add(len).is_some_and(|end| end <= SLOT_BYTES);
        assert!(fits, "{len} bytes from {offset} on are not in a slot");
        // SAFETY: in the mapping, see the two assertions.
        unsafe { self.0.as_ptr().add(slot as usize * SLOT_BYTES + offset) }
    }

    /// A counter. What it holds is what any process has put there.
    pub(super) fn counter(&self, which: Counter) -> &AtomicU32 {
        // SAFETY: aligned and in the mapping, which lives as long as `self`. An atomic may change
        // at any time, so the other process can do nothing to it that this one's code does not
        // expect; all of this process uses it as an atomic.
        unsafe { AtomicU32::from_ptr(self.0.as_ptr().add(COUNTERS + which as usize * LINE).cast()) }
    }

    /// What was sent as number `number`.
    pub(super) fn entry(&self, number: u32) -> &AtomicU64 {
        let at = ENTRIES + (number % ENTRY_COUNT) as usize * size_of::<u64>();
        // SAFETY: as for a counter.
        unsafe { AtomicU64::from_ptr(self.0.as_ptr().add(at).cast()) }
    }
}

/// The child's.
#[cfg(any(test, feature = "runner"))]
impl SharedMemory {
    /// Copies into the slot, from its beginning on.
    pub(crate) fn copy_in(&self, slot: u32, bytes: &[u8]) {
        let to = self.within(slot, 0, bytes.len());
        // SAFETY: as in `copy_out`, the other way round.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// The slot that begins at `address`, if one does.
    pub(crate) fn slot_at(&self, address: *const u8) -> Option<u32> {
        let offset = address.addr().checked_sub(self.0.as_ptr().addr())?;
        let begins = offset < COUNTERS && offset % SLOT_BYTES == 0;
        begins.then(|| u32::try_from(offset / SLOT_BYTES).ok()).flatten()
    }

    /// The memory of a slot, for the child to write into.
    ///
    /// # Safety
    ///
    /// This is the child, whose parent is trusted, and nobody else in this process uses the slot
    /// while the reference lives; the parent does not write to it.
    #[allow(clippy::mut_from_ref, reason = "the caller says that nobody else has the slot")]
    pub(crate) unsafe fn slot(&self, slot: u32) -> &mut [u8] {
        let start = self.within(slot, 0, SLOT_BYTES);
        // SAFETY: within the mapping, and the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(start, SLOT_BYTES) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the whole of the mapping that `of` made, which nothing refers to any more.
        // That it cannot be unmapped costs addresses and nothing else.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_too_short_or_can_be_cut_short_is_refused() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        for (bytes, seals, why) in [
            (BYTES as u64 - 1, SealFlags::SHRINK, "shorter"),
            (BYTES as u64, SealFlags::GROW, "cut short"),
        ] {
            let memory = memfd_create(c"test", flags).expect("a memfd");
            ftruncate(&memory, bytes).expect("a size");
            fcntl_add_seals(&memory, seals).expect("a seal");
            let refused = SharedMemory::of(&memory).expect_err(why);
            assert!(refused.to_string().contains(why), "{refused}");
        }
        let (_memory, descriptor) = SharedMemory::new().expect("memory");
        assert_eq!(ftruncate(&descriptor, 0), Err(rustix::io::Errno::PERM));
    }
}
