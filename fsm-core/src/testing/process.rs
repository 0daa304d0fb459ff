//! One process of a trial: the only place of the kit that calls the runtime.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{channel::oneshot, future::BoxFuture};

use super::{Intercepted, ManualEnvironment};
use crate::{
    AnyMachine, Data, Environment, Pending, RunId, Runtime, RuntimeError, RuntimeErrorKind,
};

/// A runtime over a journal. What it is asked for runs as tasks of the environment.
pub(super) struct Process {
    runtime: Runtime,
    environment: ManualEnvironment,
    troubles: Arc<Mutex<Vec<String>>>,
}

impl Process {
    pub(super) fn new(journal: Intercepted, environment: &ManualEnvironment) -> Self {
        let runtime = Runtime::builder(journal, environment.clone()).build();
        Process { runtime, environment: environment.clone(), troubles: Arc::default() }
    }

    pub(super) fn register(&self, machine: impl AnyMachine + 'static) -> Result<(), RuntimeError> {
        self.runtime.register(machine, "trial")
    }

    /// Continues what earlier processes have left, starts `run` unless it exists, and tells the
    /// runs again what they were told.
    pub(super) fn begin(
        &self,
        run: RunId,
        machine: &str,
        input: Data,
        told: Vec<(RunId, Pending)>,
    ) {
        let (runtime, machine) = (self.runtime.clone(), machine.to_owned());
        let troubles = Arc::clone(&self.troubles);
        self.spawn(Box::pin(async move {
            for (run, why) in runtime.recover().await?.quarantined {
                note(&troubles, format!("{run} was not continued: {why}"));
            }
            runtime.start(run, &machine, input).await?;
            for (run, signal) in told {
                tell(&runtime, &run, signal).await?;
            }
            Ok(())
        }));
    }

    /// Tells `run` something.
    pub(super) fn tell(&self, run: RunId, signal: Pending) {
        let runtime = self.runtime.clone();
        self.spawn(Box::pin(async move { tell(&runtime, &run, signal).await }));
    }

    /// Asks `run` to stop; `done` is used once the request is durable.
    pub(super) fn cancel(&self, run: RunId, done: Option<oneshot::Sender<()>>) {
        let runtime = self.runtime.clone();
        self.spawn(Box::pin(async move {
            runtime.cancel(&run, "the trial asks").await?;
            if let Some(done) = done {
                let _ = done.send(());
            }
            Ok(())
        }));
    }

    /// Lets a paused run continue, as an operator does.
    pub(super) fn unpause(&self, run: RunId) {
        let runtime = self.runtime.clone();
        self.spawn(Box::pin(async move { runtime.resume(&run).await.map(drop) }));
    }

    /// What the runtime has answered with errors.
    pub(super) fn troubles(&self) -> Vec<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn spawn(&self, call: BoxFuture<'static, Result<(), RuntimeError>>) {
        let troubles = Arc::clone(&self.troubles);
        self.environment.spawn(Box::pin(async move {
            if let Err(error) = call.await {
                note(&troubles, error.to_string());
            }
        }));
    }
}

fn note(troubles: &Mutex<Vec<String>>, trouble: String) {
    troubles.lock().unwrap_or_else(PoisonError::into_inner).push(trouble);
}

async fn tell(runtime: &Runtime, run: &RunId, signal: Pending) -> Result<(), RuntimeError> {
    let Pending { id, name, data } = signal;
    match runtime.signal(run, &id, &name, data).await {
        // It came to its end without hearing of it.
        Err(error) if error.kind() == RuntimeErrorKind::Ended => Ok(()),
        told => told.map(drop),
    }
}
