//! The throttle's time, from the engine's.

use std::{fmt, sync::Arc, time::Duration};

use fsm_core::{Environment, Timestamp};
use throttle::{Clock, Instant, SystemClock};

/// The time that the admission goes by.
///
/// A wall clock may be set; waits are not to end, nor to grow, because of that. So the system's
/// monotonic clock counts them, and a wall time is translated once. An environment that the
/// embedder has given is the only clock there is.
#[derive(Clone)]
pub(crate) struct Time {
    environment: Arc<dyn Environment>,
    counted: Counted,
}

#[derive(Clone, Copy)]
enum Counted {
    Monotonic(SystemClock),
    Given { origin: Timestamp },
}

impl Time {
    /// The system's time.
    pub(crate) fn system(environment: Arc<dyn Environment>) -> Self {
        Time { environment, counted: Counted::Monotonic(SystemClock::new()) }
    }

    /// The time of an environment that somebody else drives.
    pub(crate) fn given(environment: Arc<dyn Environment>) -> Self {
        let origin = environment.now();
        Time { environment, counted: Counted::Given { origin } }
    }

    /// The moment of the admission at which the wall clock will show `at`.
    pub(super) fn moment(&self, at: Timestamp) -> Instant {
        match self.counted {
            Counted::Given { origin } => Instant::after_origin(at.since(origin)),
            Counted::Monotonic(clock) => clock.now() + at.since(self.environment.now()),
        }
    }

    /// Completes when the admission's time is `due`, or earlier.
    pub(super) async fn sleep_until(&self, due: Instant) {
        let at = match self.counted {
            Counted::Given { origin } => origin + due.since_origin(),
            // Rounded up to what a wall clock can say: waking before the time is waking in vain.
            Counted::Monotonic(clock) => {
                let left = due.since(clock.now());
                self.environment.now() + left + Duration::from_millis(1)
            }
        };
        self.environment.sleep_until(at).await;
    }
}

impl Clock for Time {
    fn now(&self) -> Instant {
        match self.counted {
            Counted::Monotonic(clock) => clock.now(),
            Counted::Given { origin } => {
                Instant::after_origin(self.environment.now().since(origin))
            }
        }
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Time").field("environment", &self.environment).finish_non_exhaustive()
    }
}
