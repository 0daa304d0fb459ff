//! One token bucket, in whole numbers.
//!
//! **Promise.** In any window of length T, no more than rate * T + burst bytes are taken
//! from it while it is not charged beyond its balance.
//!
//! **How.** The balance is counted in billionths of a byte, so that a rate in bytes per
//! second times a time in nanoseconds needs no rounding.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::clock::Instant;

const ONE_BYTE: i128 = 1_000_000_000;

/// A number of bytes per second and how many may pass at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    bytes_per_second: NonZeroU64,
    burst_bytes: NonZeroU64,
}

impl Rate {
    const DEFAULT_BURST_BYTES: NonZeroU64 = NonZeroU64::new(1 << 20).expect("1 MiB is not zero");

    /// This many bytes per second, with a burst of 1 MiB.
    pub const fn bytes_per_second(bytes: NonZeroU64) -> Self {
        Self { bytes_per_second: bytes, burst_bytes: Self::DEFAULT_BURST_BYTES }
    }

    /// Sets how many bytes may pass at once.
    ///
    /// It is also the most that one turn is granted, so a small burst shares the rate
    /// evenly and a large one has fewer turns.
    pub const fn burst_bytes(self, bytes: NonZeroU64) -> Self {
        Self { burst_bytes: bytes, ..self }
    }

    pub(super) fn burst(self) -> u64 {
        self.burst_bytes.get()
    }
}

/// One token bucket; without a rate it is bottomless.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    rate: Option<Rate>,
    /// What there was at `at`, in billionths of a byte. Less than zero is debt.
    balance: i128,
    at: Instant,
}

impl Bucket {
    pub(super) fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// Another rate from `now` on. What was taken before stays taken.
    pub(super) fn set_rate(&mut self, rate: Option<Rate>, now: Instant) {
        let full = rate.map_or(0, |rate| i128::from(rate.burst()) * ONE_BYTE);
        self.balance = match self.rate {
            Some(_) => self.balance_at(now).min(full),
            None => full,
        };
        self.at = self.at.max(now);
        self.rate = rate;
    }

    /// When `bytes` can be taken, if nobody takes any before.
    pub(super) fn ready_at(&self, bytes: u64) -> Instant {
        let Some(rate) = self.rate else { return Instant::ORIGIN };
        let missing = i128::from(bytes) * ONE_BYTE - self.balance;
        if missing <= 0 {
            return self.at;
        }
        let per_nanosecond = i128::from(rate.bytes_per_second.get());
        let nanoseconds = (missing + per_nanosecond - 1) / per_nanosecond;
        self.at + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Takes `bytes` at `now`, into debt if they are not there.
    pub(super) fn take(&mut self, bytes: u64, now: Instant) {
        self.add(-i128::from(bytes), now);
    }

    /// Puts back `bytes` that were taken and not used.
    pub(super) fn put_back(&mut self, bytes: u64, now: Instant) {
        self.add(i128::from(bytes), now);
    }

    fn add(&mut self, bytes: i128, now: Instant) {
        if let Some(rate) = self.rate {
            let full = i128::from(rate.burst()) * ONE_BYTE;
            self.balance = (self.balance_at(now) + bytes * ONE_BYTE).min(full);
            self.at = self.at.max(now);
        }
    }

    fn balance_at(&self, now: Instant) -> i128 {
        let Some(rate) = self.rate else { return 0 };
        let passed = i128::try_from(now.since(self.at).as_nanos()).unwrap_or(i128::MAX);
        let gained = passed.saturating_mul(i128::from(rate.bytes_per_second.get()));
        let full = i128::from(rate.burst()) * ONE_BYTE;
        self.balance.saturating_add(gained).min(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(bytes_per_second: u64, burst_bytes: u64) -> Bucket {
        let rate = Rate::bytes_per_second(NonZeroU64::new(bytes_per_second).unwrap())
            .burst_bytes(NonZeroU64::new(burst_bytes).unwrap());
        let mut bucket = Bucket::default();
        bucket.set_rate(Some(rate), Instant::ORIGIN);
        bucket
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::after_origin(Duration::from_millis(milliseconds))
    }

    #[test]
    fn a_full_bucket_is_ready_at_once() {
        assert_eq!(bucket(1000, 100).ready_at(100), at(0));
    }

    #[test]
    fn what_was_taken_flows_back_at_the_rate() {
        let mut bucket = bucket(1000, 100);
        bucket.take(100, at(0));
        assert_eq!(bucket.ready_at(50), at(50));
    }

    #[test]
    fn a_debt_is_paid_before_anything_is_ready() {
        let mut bucket = bucket(1000, 100);
        bucket.take(300, at(0));
        assert_eq!(bucket.ready_at(1), at(201));
    }

    #[test]
    fn another_rate_keeps_what_was_taken() {
        let mut bucket = bucket(1000, 100);
        bucket.take(100, at(0));
        let faster = Rate::bytes_per_second(NonZeroU64::new(10_000).unwrap())
            .burst_bytes(NonZeroU64::new(100).unwrap());
        bucket.set_rate(Some(faster), at(50));
        assert_eq!(bucket.ready_at(100), at(55));
    }

    #[test]
    fn a_time_that_cannot_be_divided_is_rounded_up() {
        let mut bucket = bucket(3, 1);
        bucket.take(1, at(0));
        let third = Instant::after_origin(Duration::from_nanos(333_333_334));
        assert_eq!(bucket.ready_at(1), third);
    }
}
