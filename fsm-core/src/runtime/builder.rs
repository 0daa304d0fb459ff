//! How a runtime is made.

use std::{fmt, sync::Arc, time::Duration};

use super::{Inner, Observer, Runtime};
use crate::{Environment, Journal};

/// What a [`Runtime`] is made with.
pub struct RuntimeBuilder {
    journal: Arc<dyn Journal>,
    environment: Arc<dyn Environment>,
    observer: Arc<dyn Observer>,
    cancel_grace: Duration,
}

impl RuntimeBuilder {
    pub(super) fn new(journal: impl Journal, environment: impl Environment) -> Self {
        RuntimeBuilder {
            journal: Arc::new(journal),
            environment: Arc::new(environment),
            observer: Arc::new(()),
            cancel_grace: Duration::from_secs(30),
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

    /// The runtime. Nothing runs before [`Runtime::start`] or [`Runtime::resume`].
    pub fn build(self) -> Runtime {
        let RuntimeBuilder { journal, environment, observer, cancel_grace } = self;
        let (machines, tasks, gates) = Default::default();
        let inner = Inner { journal, environment, observer, cancel_grace, machines, tasks, gates };
        Runtime { inner: Arc::new(inner) }
    }
}

impl fmt::Debug for RuntimeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeBuilder").field("environment", &self.environment).finish()
    }
}
