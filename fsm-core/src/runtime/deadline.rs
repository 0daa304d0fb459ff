//! Ends of waits, for a clock that somebody may set.

use std::time::Duration;

use crate::Timestamp;

/// The end of a wait, and when the wait began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline {
    from: Timestamp,
    at: Timestamp,
}

impl Deadline {
    /// A wait from `now` on.
    pub(super) fn after(now: Timestamp, wait: Duration) -> Self {
        Deadline { from: now, at: now + wait }
    }

    /// A wait until `at` that began, as the journal says, at `from`.
    pub(super) fn since(from: Timestamp, at: Timestamp) -> Self {
        Deadline { from, at }
    }

    /// A wait for a point in wall time that somebody chose: what the clock shows is all that
    /// counts.
    pub(super) fn wall(at: Timestamp) -> Self {
        Deadline { from: Timestamp::default(), at }
    }

    /// When to look again.
    pub(super) fn at(self) -> Timestamp {
        self.at
    }

    /// Whether the wait is over.
    ///
    /// A clock that shows a time before the beginning was set back. Such a wait is over at once:
    /// too short a wait does no harm, while one that lasts as long as the clock was set back
    /// would.
    pub(super) fn is_over(self, now: Timestamp) -> bool {
        now >= self.at || now < self.from
    }

    /// The same for a limit, which must not be reached too soon: if the clock was set back, it is
    /// counted anew.
    pub(super) fn counted_anew(self, now: Timestamp) -> Self {
        if now < self.from { Deadline::after(now, self.at.since(self.from)) } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_unix_ms(10_000);

    #[track_caller]
    fn check(wait: Deadline, now_ms: u64, over: bool) {
        assert_eq!(wait.is_over(Timestamp::from_unix_ms(now_ms)), over, "{wait:?} at {now_ms}");
    }

    #[test]
    fn a_wait_is_over_when_its_time_has_come() {
        let wait = Deadline::after(START, Duration::from_secs(5));
        check(wait, 10_000, false);
        check(wait, 14_999, false);
        check(wait, 15_000, true);
        check(wait, 99_000, true);
    }

    #[test]
    fn a_clock_set_back_ends_a_wait_but_not_an_appointment() {
        check(Deadline::after(START, Duration::from_secs(5)), 9_999, true);
        check(Deadline::since(START, START), 9_999, true);
        check(Deadline::wall(START), 9_999, false);
    }

    #[test]
    fn a_clock_set_back_lets_a_limit_begin_anew() {
        let limit = Deadline::after(START, Duration::from_secs(5));
        assert_eq!(limit.counted_anew(START), limit);
        let anew = limit.counted_anew(Timestamp::from_unix_ms(1_000));
        check(anew, 5_999, false);
        check(anew, 6_000, true);
    }
}
