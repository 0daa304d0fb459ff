//! How a state is tried again: data, in the graph.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often, how soon and how long a state is tried.
///
/// The wait before attempt `n + 1` is drawn evenly from zero to `first * factor^(n - 1)`, at most
/// the cap ("full jitter", AWS Architecture Blog, *Exponential Backoff And Jitter*, 2015).
/// Attempts and the time of the next one are journaled: a restart does not forget any. The last one
/// has no next one, and is journaled with what follows it: a crash in between repeats it.
///
/// ```
/// use fsm_core::Retry;
/// use std::time::Duration;
///
/// const COPY: Retry = Retry::times(5).backoff(Duration::from_secs(1), 2.0);
/// assert_eq!(COPY.longest_wait(3), Duration::from_secs(4));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    attempts: u32,
    first_ms: u64,
    factor: f64,
    cap_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt_timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total_timeout_ms: Option<u64>,
    #[serde(default)]
    pause: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pause_always: bool,
}

impl Retry {
    /// One attempt and no other.
    pub const NEVER: Retry = Retry::times(1);

    /// Up to `attempts` attempts in all, at least one; waits start at a second and double, up to
    /// five minutes.
    pub const fn times(attempts: u32) -> Self {
        Retry {
            attempts: if attempts == 0 { 1 } else { attempts },
            first_ms: 1_000,
            factor: 2.0,
            cap_ms: 300_000,
            attempt_timeout_ms: None,
            total_timeout_ms: None,
            pause: false,
            pause_always: false,
        }
    }

    /// The longest wait before the second attempt, and what each further wait is multiplied by.
    /// A factor that is negative or no finite number counts as 1.
    #[must_use]
    pub const fn backoff(mut self, first: Duration, factor: f64) -> Self {
        self.first_ms = first.as_millis() as u64;
        self.factor = if factor.is_finite() && factor >= 0.0 { factor } else { 1.0 };
        self
    }

    /// No wait is longer than this.
    #[must_use]
    pub const fn cap(mut self, longest: Duration) -> Self {
        self.cap_ms = longest.as_millis() as u64;
        self
    }

    /// An attempt that takes longer is stopped and counts as a retryable fault.
    #[must_use]
    pub const fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt_timeout_ms = Some(limit.as_millis() as u64);
        self
    }

    /// All attempts and the waits between them take no longer than this: the attempt that is
    /// under way then is stopped, no further one begins, and the state counts as exhausted.
    /// Counted from the entry into the state, or from the time that it was to wait for
    /// ([`go_at`](crate::go_at)). The first attempt always begins.
    #[must_use]
    pub const fn total_timeout(mut self, limit: Duration) -> Self {
        self.total_timeout_ms = Some(limit.as_millis() as u64);
        self
    }

    /// When no attempt is left the run pauses for an operator instead of taking its failure edge.
    /// Faults that are not retryable take that edge all the same.
    #[must_use]
    pub const fn or_pause(mut self) -> Self {
        self.pause = true;
        self
    }

    /// When the state will not be tried again, whatever the fault, the run pauses for an operator
    /// instead of taking its failure edge: for states that undo something, which nobody else will.
    #[must_use]
    pub const fn or_pause_always(mut self) -> Self {
        (self.pause, self.pause_always) = (true, true);
        self
    }

    /// Attempts in all.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How long one attempt may take.
    pub const fn attempt_limit(&self) -> Option<Duration> {
        match self.attempt_timeout_ms {
            Some(limit_ms) => Some(Duration::from_millis(limit_ms)),
            None => None,
        }
    }

    /// How long all attempts may take together.
    pub const fn total_limit(&self) -> Option<Duration> {
        match self.total_timeout_ms {
            Some(limit_ms) => Some(Duration::from_millis(limit_ms)),
            None => None,
        }
    }

    /// Whether the run pauses after a fault that is retryable, or one that is not.
    pub const fn pauses(&self, retryable: bool) -> bool {
        if retryable { self.pause } else { self.pause_always }
    }

    /// Whether both are the same, asked by a constant.
    pub(crate) const fn is(&self, other: &Retry) -> bool {
        self.attempts == other.attempts
            && self.first_ms == other.first_ms
            && self.factor == other.factor
            && self.cap_ms == other.cap_ms
            && same(self.attempt_timeout_ms, other.attempt_timeout_ms)
            && same(self.total_timeout_ms, other.total_timeout_ms)
            && self.pause == other.pause
            && self.pause_always == other.pause_always
    }

    /// What is wrong with a policy that came over a boundary, if anything is. The constructors
    /// here make no such policy.
    pub(crate) fn mistake(&self) -> Option<&'static str> {
        if self.attempts == 0 {
            return Some("it is to be tried zero times; one attempt is the least");
        }
        let sane = self.factor.is_finite() && self.factor >= 0.0;
        (!sane).then_some("the factor of its retries is negative or no finite number")
    }

    /// The longest wait after attempt `attempt` (counted from 1).
    pub fn longest_wait(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let wait_ms = self.first_ms as f64 * self.factor.max(0.0).powi(exponent);
        // `as` saturates, and NaN (0 * infinity) becomes zero.
        Duration::from_millis((wait_ms as u64).min(self.cap_ms))
    }

    /// The wait after attempt `attempt`, for a number drawn evenly from all of `u64`.
    pub fn jittered_wait(&self, attempt: u32, random: u64) -> Duration {
        let longest_ms = self.longest_wait(attempt).as_millis() as u64;
        let share = ((u128::from(longest_ms) + 1) * u128::from(random)) >> 64;
        Duration::from_millis(share as u64)
    }
}

const fn same(one: Option<u64>, other: Option<u64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other,
        (None, None) => true,
        _ => false,
    }
}
