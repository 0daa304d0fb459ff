//! How a runtime is made.

use std::{fmt, sync::Arc, time::Duration};

use super::{Observer, Runtime, inner::Inner};
use crate::{Environment, Journal};

/// What a [`Runtime`] is made with.
pub struct RuntimeBuilder {
    journal: Arc<dyn Journal>,
    environment: Arc<dyn Environment>,
    observer: Arc<dyn Observer>,
    cancel_grace: Duration,
    concurrency: usize,
}

impl RuntimeBuilder {
    pub(super) fn new(journal: impl Journal, environment: impl Environment) -> Self {
        RuntimeBuilder {
            journal: Arc::new(journal),
            environment: Arc::new(environment),
            observer: Arc::new(()),
            cancel_grace: Duration::from_secs(30),
            concurrency: 1_024,
        }
    }

    /// Who hears of what happens to runs. Nobody by default.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// How long a step may go on after it was asked to stop. 30 seconds by default.
    #[must_use]
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.cancel_grace = grace;
        self
    }

    /// How many runs of one origin ([`Runtime::register`]) may have a step at work at a time; at
    /// least one, 1,024 by default. The others are rows until one of those ends or waits. A
    /// plugin whose steps never return keeps its own runs waiting, and nobody else's.
    #[must_use]
    pub fn concurrency(mut self, runs: usize) -> Self {
        self.concurrency = runs.max(1);
        self
    }

    /// The runtime. Nothing runs before [`Runtime::start`], [`Runtime::attach`] or
    /// [`Runtime::recover`].
    pub fn build(self) -> Runtime {
        let RuntimeBuilder { journal, environment, observer, cancel_grace, concurrency } = self;
        let (watchers, machines, table, clock) = Default::default();
        Runtime {
            inner: Arc::new(Inner {
                journal,
                environment,
                observer,
                watchers,
                cancel_grace,
                concurrency,
                machines,
                table,
                clock,
            }),
        }
    }
}

impl fmt::Debug for RuntimeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeBuilder").field("environment", &self.environment).finish()
    }
}
