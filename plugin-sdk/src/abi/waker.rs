//! Wakers across the boundary.
//!
//! **Promise.** A waker may be cloned, sent to any thread and woken after its task is gone. A
//! poller that polls N times with the same waker shows the same identity N times, so a pollee that
//! keeps "the last waker" clones it once. A waker that panics is contained.
//!
//! **How.** The polling side keeps one reference-counted cell per task that holds its own waker;
//! the pollee sees the cell's address. A new cell is made only when the poller's waker changes.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

use abi_stable::StableAbi;

use super::guard::contain_quietly;

/// The head of a waker cell: four functions, each given the cell's own address.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiWaker {
    pub(super) clone: unsafe extern "C" fn(*const AbiWaker) -> *const AbiWaker,
    pub(super) wake: unsafe extern "C" fn(*const AbiWaker),
    pub(super) wake_by_ref: unsafe extern "C" fn(*const AbiWaker),
    pub(super) drop: unsafe extern "C" fn(*const AbiWaker),
}

impl std::fmt::Debug for AbiWaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AbiWaker").finish_non_exhaustive()
    }
}

#[repr(C)]
struct Cell {
    /// First, so that the cell's address is the head's address.
    head: AbiWaker,
    waker: Waker,
}

/// The polling side's cell for one task.
#[derive(Default)]
pub(crate) struct WakerCache(Option<Arc<Cell>>);

impl WakerCache {
    /// The address that stands for `waker`; valid until the next call or the cache's drop, and
    /// for as long as a clone made through it lives.
    pub(crate) fn address_of(&mut self, waker: &Waker) -> *const AbiWaker {
        let cell = match self.0.take() {
            Some(cell) if cell.waker.will_wake(waker) => cell,
            _ => Arc::new(Cell {
                head: AbiWaker { clone, wake, wake_by_ref, drop: release },
                waker: waker.clone(),
            }),
        };
        Arc::as_ptr(self.0.insert(cell)).cast()
    }
}

// The four functions below all rely on one fact, stated here once.
// SAFETY: they are only reachable through the head of a `Cell` in an `Arc`, and the caller holds a
// reference: the borrow of a poll, or a clone that it has not yet given up.

unsafe extern "C" fn clone(head: *const AbiWaker) -> *const AbiWaker {
    // SAFETY: see above.
    unsafe { Arc::increment_strong_count(head.cast::<Cell>()) };
    head
}

unsafe extern "C" fn wake(head: *const AbiWaker) {
    // SAFETY: see above; `wake` gives the caller's reference up.
    let cell = unsafe { Arc::from_raw(head.cast::<Cell>()) };
    contain_quietly("waking", move || cell.waker.wake_by_ref());
}

unsafe extern "C" fn wake_by_ref(head: *const AbiWaker) {
    // SAFETY: see above.
    let cell = unsafe { &*head.cast::<Cell>() };
    contain_quietly("waking", || cell.waker.wake_by_ref());
}

unsafe extern "C" fn release(head: *const AbiWaker) {
    // SAFETY: see above; this gives the caller's reference up.
    let cell = unsafe { Arc::from_raw(head.cast::<Cell>()) };
    contain_quietly("dropping a waker", move || drop(cell));
}

/// Runs `poll` with the foreign waker as an ordinary one.
///
/// # Safety
///
/// `head` comes from the other side's [`WakerCache::address_of`] and is valid for this call.
pub(crate) unsafe fn with_waker<R>(
    head: *const AbiWaker,
    poll: impl FnOnce(&mut Context<'_>) -> R,
) -> R {
    // SAFETY: the table below keeps the contract of `RawWaker` as long as the cell does.
    // The caller keeps the reference that `head` stands for, so this waker is never dropped.
    let waker = ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(head.cast(), &FOREIGN)) });
    poll(&mut Context::from_waker(&waker))
}

static FOREIGN: RawWakerVTable = {
    unsafe fn clone(data: *const ()) -> RawWaker {
        let head = data.cast::<AbiWaker>();
        // SAFETY: `data` is a live head; cloning keeps it alive.
        RawWaker::new(unsafe { ((*head).clone)(head) }.cast(), &FOREIGN)
    }
    unsafe fn wake(data: *const ()) {
        let head = data.cast::<AbiWaker>();
        // SAFETY: `data` is a live head, given up by this call.
        unsafe { ((*head).wake)(head) }
    }
    unsafe fn wake_by_ref(data: *const ()) {
        let head = data.cast::<AbiWaker>();
        // SAFETY: `data` is a live head.
        unsafe { ((*head).wake_by_ref)(head) }
    }
    unsafe fn drop(data: *const ()) {
        let head = data.cast::<AbiWaker>();
        // SAFETY: `data` is a live head, given up by this call.
        unsafe { ((*head).drop)(head) }
    }
    RawWakerVTable::new(clone, wake, wake_by_ref, drop)
};

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }

    #[cfg_attr(miri, ignore = "Miri gives one table of a waker several addresses")]
    #[test]
    fn the_identity_is_stable_until_the_poller_changes() {
        let (first, second) = (Waker::from(Arc::new(Count::default())), Waker::noop());
        let mut cache = WakerCache::default();
        let one = cache.address_of(&first);
        assert_eq!(one, cache.address_of(&first));
        assert_ne!(one, cache.address_of(second));
    }

    #[test]
    fn a_clone_wakes_after_the_cache_is_gone_from_another_thread() {
        let count = Arc::new(Count::default());
        let mut cache = WakerCache::default();
        let head = cache.address_of(&Waker::from(count.clone()));
        // SAFETY: the cache is alive.
        let kept = unsafe { with_waker(head, |cx| cx.waker().clone()) };
        drop(cache);
        let woken = std::thread::spawn(move || {
            kept.wake_by_ref();
            let other = kept.clone();
            drop(kept);
            other.wake();
        });
        woken.join().expect("the thread ends");
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn a_panicking_waker_is_contained() {
        let mut cache = WakerCache::default();
        let head = cache.address_of(&Waker::from(Arc::new(Panics)));
        // SAFETY: the cache is alive.
        let kept = unsafe { with_waker(head, |cx| cx.waker().clone()) };
        kept.wake_by_ref();
        kept.wake();
    }
}
