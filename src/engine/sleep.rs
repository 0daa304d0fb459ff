//! Time from tokio, for the byte rate: what runs wait for comes from
//! [`TokioEnvironment`](fsm_core::TokioEnvironment).

use std::time::Duration;

/// Timers of the tokio runtime that the engine was started in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokioSleep;

impl throttle::Sleep for TokioSleep {
    fn sleep(&self, duration: Duration) -> throttle::Sleeping {
        Box::pin(tokio::time::sleep(duration))
    }
}
