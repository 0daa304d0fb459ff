//! The limiter that a stream asks before it moves bytes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use super::bucket::Rate;
use super::sleep::{Sleep, Sleeping};
use super::tree::{LevelId, Ticket, Tree, Turn};
use crate::clock::{Clock, Instant};
use crate::wakers::Wakers;

/// A limit to how fast bytes move, inside other such limits.
///
/// Make one for the node, from it a [child](ByteRate::child) for each workload, and from
/// that one for each operation. Bytes that are taken at one level are taken at every level
/// above it. Each level is unlimited until [`set_rate`](ByteRate::set_rate) is called.
///
/// In any window of length T no level grants more than rate * T + burst bytes.
///
/// Clones are handles to the same level.
///
/// # Examples
///
/// ```
/// use std::num::NonZeroU64;
/// use throttle::{ByteRate, ManualClock, Rate};
///
/// # futures::executor::block_on(async {
/// let clock = ManualClock::new();
/// let node = ByteRate::new(clock.clone(), clock.clone());
/// let operation = node.child();
/// let kilobyte = NonZeroU64::new(1024).ok_or("zero")?;
/// node.set_rate(Some(Rate::bytes_per_second(kilobyte).burst_bytes(kilobyte)));
///
/// // A large piece takes several turns, so that others have theirs in between.
/// assert_eq!(operation.acquire(4096).await, 1024);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ByteRate {
    level: Arc<Level>,
}

/// A handle to a level; the level goes with the last one.
#[derive(Debug)]
struct Level {
    shared: Arc<Shared>,
    id: LevelId,
    /// Kept so that the levels above outlive this one.
    _parent: Option<Arc<Level>>,
}

struct Shared {
    clock: Box<dyn Clock>,
    sleep: Box<dyn Sleep>,
    tree: Mutex<Tree>,
}

impl ByteRate {
    /// An unlimited level that is not inside any other.
    pub fn new(clock: impl Clock, sleep: impl Sleep) -> Self {
        let mut tree = Tree::default();
        let id = tree.add_level(None);
        let shared = Arc::new(Shared {
            clock: Box::new(clock),
            sleep: Box::new(sleep),
            tree: Mutex::new(tree),
        });
        Self { level: Arc::new(Level { shared, id, _parent: None }) }
    }

    /// A new unlimited level inside this one.
    pub fn child(&self) -> Self {
        let shared = Arc::clone(&self.level.shared);
        let id = shared.lock().add_level(Some(self.level.id));
        let parent = Some(Arc::clone(&self.level));
        Self { level: Arc::new(Level { shared, id, _parent: parent }) }
    }

    /// Changes the rate at once, also for those who wait; `None` is unlimited.
    ///
    /// What was taken stays taken. A level that was unlimited starts with a full burst.
    pub fn set_rate(&self, rate: Option<Rate>) {
        self.change(|tree, id, now, wakers| tree.set_rate(id, rate, now, wakers));
    }

    /// Waits for a turn and takes up to `bytes` at this level and every level above it.
    ///
    /// Resolves to how many bytes were granted: `bytes`, or the smallest burst of the
    /// levels if that is less. Zero bytes are granted without waiting.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in line and takes nothing. Bytes that were
    /// granted and not moved can be [put back](ByteRate::refund).
    pub fn acquire(&self, bytes: u64) -> AcquireBytes {
        AcquireBytes { level: Arc::clone(&self.level), bytes, ticket: None, sleep: None }
    }

    /// Takes bytes that have moved already, without waiting.
    ///
    /// What is not there becomes a debt, which is paid before anybody has a turn again.
    /// These bytes do not keep to the bound; those granted after them make up for it.
    pub fn charge(&self, bytes: u64) {
        self.change(|tree, id, now, _| tree.charge(id, bytes, now));
    }

    /// Puts back bytes that were granted and not moved.
    pub fn refund(&self, bytes: u64) {
        self.change(|tree, id, now, wakers| tree.refund(id, bytes, now, wakers));
    }

    fn change(&self, change: impl FnOnce(&mut Tree, LevelId, Instant, &mut Wakers)) {
        let shared = &self.level.shared;
        let now = shared.clock.now();
        let mut wakers = Wakers::default();
        change(&mut shared.lock(), self.level.id, now, &mut wakers);
        wakers.wake();
    }
}

/// The wait for a turn, from [`ByteRate::acquire`].
///
/// # Cancel safety
///
/// Dropping the future gives up the place in line and takes nothing.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireBytes {
    level: Arc<Level>,
    bytes: u64,
    ticket: Option<Ticket>,
    sleep: Option<(Instant, Sleeping)>,
}

impl Future for AcquireBytes {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u64> {
        let this = &mut *self;
        if this.bytes == 0 {
            return Poll::Ready(0);
        }
        let shared = &this.level.shared;
        loop {
            let now = shared.clock.now();
            let waker = context.waker().clone();
            let mut wakers = Wakers::default();
            let turn = {
                let mut tree = shared.lock();
                let ticket = *this.ticket.get_or_insert_with(|| tree.add_ticket());
                tree.turn(ticket, this.level.id, this.bytes, now, waker, &mut wakers)
            };
            wakers.wake();
            let not_before = match turn {
                Turn::Granted(bytes) => {
                    this.ticket = None;
                    return Poll::Ready(bytes);
                }
                Turn::NotBefore(not_before) => not_before,
            };
            if this.sleep.as_ref().is_none_or(|(until, _)| *until != not_before) {
                let sleeping = shared.sleep.sleep(not_before.since(now));
                this.sleep = Some((not_before, sleeping));
            }
            if let Some((_, sleeping)) = &mut this.sleep
                && sleeping.as_mut().poll(context).is_pending()
            {
                return Poll::Pending;
            }
            this.sleep = None;
        }
    }
}

impl Drop for AcquireBytes {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let mut wakers = Wakers::default();
            self.level.shared.lock().leave(ticket, &mut wakers);
            wakers.wake();
        }
    }
}

impl fmt::Debug for AcquireBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireBytes").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        self.shared.lock().remove_level(self.id);
    }
}
