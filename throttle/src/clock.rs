//! Where the time comes from.
//!
//! **Promise.** Nothing in this crate asks the operating system for the time except
//! [`SystemClock`]. Every decision takes the time as an argument, so the same events
//! at the same times lead to the same decisions.

use std::ops::Add;
use std::time::Duration;

/// A moment on a [`Clock`], counted from that clock's origin.
///
/// Moments of different clocks have nothing to do with each other. Unlike
/// [`std::time::Instant`] a moment can be written down as a number, which is what a
/// deterministic test needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// The moment from which the clock counts.
    pub const ORIGIN: Self = Self(Duration::ZERO);

    /// The moment that is `elapsed` after the clock's origin.
    pub const fn after_origin(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How long after the clock's origin this moment is.
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this moment is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// The moment that is `later` after this one, or the last one that can be written.
    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

/// A source of monotonic time.
///
/// The caller may ask from any thread, never while it holds a lock of its own. The
/// implementer guarantees that no answer is earlier than one that was given before.
/// An answer that goes back nevertheless is read as "no time has passed".
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Instant;
}

/// The operating system's monotonic clock; its origin is the moment it was made.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: std::time::Instant,
}

impl SystemClock {
    /// A clock that starts to count now.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    pub fn new() -> Self {
        Self { origin: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant(self.origin.elapsed())
    }
}
