//! Time that a test drives, for an engine that runs on tokio.

use std::{sync::Arc, time::Duration};

use fsm_core::{TokioEnvironment, testing::ManualEnvironment};
use futures::future::BoxFuture;
use mercury::{Environment, Event, Events, Timestamp};
use tokio::runtime::Handle;

/// A clock that stands still until a test moves it; tasks run on tokio. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct Driven {
    clock: Arc<ManualEnvironment>,
    tokio: TokioEnvironment,
}

impl Driven {
    pub fn new() -> Self {
        let tokio = TokioEnvironment::new(Handle::current());
        Driven { clock: Arc::default(), tokio }
    }

    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Moves the clock on, `step` by `step`, until the event comes.
    pub async fn until(
        &self,
        events: &mut Events,
        step: Duration,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Event {
        super::soon(async {
            loop {
                // Whoever works has a moment to come to where it waits for time.
                match tokio::time::timeout(Duration::from_millis(20), events.next()).await {
                    Ok(event) => {
                        let event = event.expect("the engine is there");
                        if wanted(&event) {
                            return event;
                        }
                    }
                    Err(_) => self.advance(step),
                }
            }
        })
        .await
    }
}

impl Environment for Driven {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        self.clock.sleep_until(at)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.tokio.spawn(task);
    }

    fn random(&self) -> u64 {
        self.clock.random()
    }
}
