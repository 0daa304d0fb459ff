//! Time, tasks and chance from tokio and the operating system.
//!
//! **How.** Timers of tokio count the time that passes, and the runtime waits for points in wall
//! time, which somebody may set. So no timer is longer than a minute, and after each one the wall
//! clock is looked at again: one that was set forward ends the wait, and so does one that was set
//! back, as whoever waits has to decide anew.

use std::{
    future::Future,
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use tokio::runtime::Handle;

use crate::{Environment, Timestamp};

/// However far away a deadline is, the wall clock is looked at again after this long.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The [`Environment`] of a program that runs tokio, with either of its schedulers.
///
/// The runtime must have its timers enabled. When it is shut down, runs stop where they are, as
/// they do when the process ends.
///
/// ```
/// use std::time::Duration;
/// use fsm_core::{Hosted, MemoryJournal, Runtime, TokioEnvironment};
/// # use fsm_core::{Context, Machine, State, Step, check, go, go_at};
/// use tokio::runtime::Handle;
/// # use serde::{Deserialize, Serialize};
/// # struct Egg;
/// # #[derive(Serialize, Deserialize)] struct Raw;
/// # #[derive(Serialize, Deserialize)] struct Boiled;
/// # impl Machine for Egg {
/// #     const NAME: &'static str = "egg";
/// #     type Host = (); type Initial = Raw; type States = (Raw, InWater, Boiled);
/// # }
/// # check!(Egg);
/// # impl State<Egg> for Raw {
/// #     const NAME: &'static str = "raw"; type Next = (InWater,);
/// #     async fn run(self, _: &Egg, cx: &mut Context<'_, Egg>) -> Step<Self> {
/// #         go_at(cx.now() + Duration::from_millis(20), InWater)
/// #     }
/// # }
/// # #[derive(Serialize, Deserialize)] struct InWater;
/// # impl State<Egg> for InWater {
/// #     const NAME: &'static str = "in_water"; type Next = (Boiled,);
/// #     async fn run(self, _: &Egg, _: &mut Context<'_, Egg>) -> Step<Self> { go(Boiled) }
/// # }
/// # impl State<Egg> for Boiled { const NAME: &'static str = "boiled"; type Next = (); }
///
/// let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// let end = tokio.block_on(async {
///     let environment = TokioEnvironment::new(Handle::current());
///     let runtime = Runtime::builder(MemoryJournal::new(), environment).build();
///     runtime.register(Hosted::new(Egg, ()), "example")?;
///     let breakfast = runtime.begin::<Egg>("breakfast".parse()?, &Raw).await?;
///     Ok::<_, Box<dyn std::error::Error>>(breakfast.end().await?)
/// })?;
/// assert_eq!(end.state, "boiled");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TokioEnvironment {
    handle: Handle,
}

impl TokioEnvironment {
    /// An environment whose tasks and timers are those of `handle`.
    pub fn new(handle: Handle) -> Self {
        TokioEnvironment { handle }
    }
}

impl Environment for TokioEnvironment {
    fn now(&self) -> Timestamp {
        let since_epoch =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let (environment, handle) = (self.clone(), self.handle.clone());
        let sleep = move |time| {
            // Wherever the future is polled, the timer is that of the handle's runtime.
            let _entered = handle.enter();
            tokio::time::sleep(time)
        };
        Box::pin(until(at, move || environment.now(), sleep))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.handle.spawn(task);
    }

    fn random(&self) -> u64 {
        // Each `RandomState` is keyed from the operating system's randomness and differs from the
        // one before; jitter needs no more.
        RandomState::new().build_hasher().finish()
    }
}

/// Completes when the clock `now` shows `at`, or was set back.
async fn until<F: Future<Output = ()>>(
    at: Timestamp,
    now: impl Fn() -> Timestamp,
    sleep: impl Fn(Duration) -> F,
) {
    let mut seen = now();
    while seen < at {
        sleep(at.since(seen).min(LONGEST_SLEEP)).await;
        let before = std::mem::replace(&mut seen, now());
        if seen < before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures::{FutureExt, future::ready};

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    /// Sleeps for so long by a clock that is set by `set_ms` in the middle of the sleep `during`,
    /// counted from 0; compares how long each sleep was to be.
    #[track_caller]
    fn check(wait_secs: u64, during: usize, set_ms: i64, expected_secs: &[u64]) {
        let start = Timestamp::from_unix_ms(1_700_000_000_000);
        let (clock, slept) = (RefCell::new(start), RefCell::new(Vec::new()));
        let sleep = |time: Duration| {
            let set_ms = if slept.borrow().len() == during { set_ms } else { 0 };
            let shown = *clock.borrow() + time;
            *clock.borrow_mut() =
                Timestamp::from_unix_ms(shown.as_unix_ms().saturating_add_signed(set_ms));
            slept.borrow_mut().push(time.as_secs());
            ready(())
        };
        let woken = until(start + Duration::from_secs(wait_secs), || *clock.borrow(), sleep);
        assert_eq!(woken.now_or_never(), Some(()));
        assert_eq!(slept.into_inner(), expected_secs);
    }

    #[test]
    fn a_sleeper_looks_at_the_clock_every_minute() {
        check(0, 0, 0, &[]);
        check(10, 0, 0, &[10]);
        check(150, 0, 0, &[60, 60, 30]);
    }

    #[test]
    fn a_clock_set_forward_wakes_within_the_minute() {
        check(7_200, 1, 2 * HOUR_MS, &[60, 60]);
    }

    #[test]
    fn a_clock_set_back_wakes_within_the_minute() {
        check(10, 0, -HOUR_MS, &[10]);
        check(7_200, 1, -HOUR_MS, &[60, 60]);
    }
}
