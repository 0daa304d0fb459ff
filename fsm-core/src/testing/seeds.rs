//! One test under many orders of its tasks.

use std::ops::Range;

use super::ManualEnvironment;

/// The variable that names the one seed to replay.
const VARIABLE: &str = "FSM_SEED";

/// Calls `test` with an environment of each of the `seeds`; see [`ManualEnvironment::seeded`].
///
/// When the test panics, the seed and the command that replays it are printed: with `FSM_SEED=7`
/// in the process's environment only seed 7 is tried.
///
/// ```
/// use fsm_core::{Environment, testing::for_each_seed};
///
/// for_each_seed(0..16, |environment| {
///     environment.spawn(Box::pin(async { /* one thing */ }));
///     environment.spawn(Box::pin(async { /* another, before it or after it */ }));
///     environment.run_until_stalled();
/// });
/// ```
///
/// # Panics
///
/// If `test` does, or if `FSM_SEED` is no number.
pub fn for_each_seed(seeds: Range<u64>, test: impl Fn(&ManualEnvironment)) {
    let only = std::env::var(VARIABLE).ok().map(|seed| {
        let read = seed.parse::<u64>();
        read.unwrap_or_else(|error| panic!("{VARIABLE} is `{seed}`: {error}"))
    });
    let seeds = only.map_or(seeds, |seed| seed..seed.saturating_add(1));
    for seed in seeds {
        let _told = Told(seed);
        let environment = ManualEnvironment::seeded(seed);
        test(&environment);
        // A task holds the environment that holds the task.
        environment.drop_tasks();
    }
}

/// Says how to replay its seed if it is dropped by a panic.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let thread = std::thread::current();
            let test = thread.name().unwrap_or_default();
            eprintln!("replay: {VARIABLE}={} cargo test {test}", self.0);
        }
    }
}
