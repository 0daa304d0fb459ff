//! A run as its starter sees it.

use std::{fmt, sync::Arc};

use futures::{
    FutureExt,
    channel::{mpsc, oneshot},
    future::{BoxFuture, Shared},
};

use super::{End, RuntimeError, RuntimeErrorKind, drive::Command};
use crate::RunId;

/// How a task answers for its run.
pub(super) type Ended = Result<End, Arc<RuntimeError>>;

/// A run that is active in this process, or has ended.
#[derive(Clone)]
pub struct RunHandle {
    run: RunId,
    end: Shared<BoxFuture<'static, Ended>>,
    /// To the run's task; `None` if the run had ended already.
    commands: Option<mpsc::UnboundedSender<Command>>,
}

impl RunHandle {
    /// A run with a task, and where the task says how it ended.
    pub(super) fn active(
        run: RunId,
        commands: mpsc::UnboundedSender<Command>,
    ) -> (Self, oneshot::Sender<Ended>) {
        let (ended, end) = oneshot::channel::<Ended>();
        let subject = run.clone();
        let end = end.map(move |end| {
            end.unwrap_or_else(|_| {
                Err(Arc::new(RuntimeError::new(RuntimeErrorKind::Stopped, subject.as_str())))
            })
        });
        (RunHandle { run, end: end.boxed().shared(), commands: Some(commands) }, ended)
    }

    /// A run that has ended.
    pub(super) fn ended(run: RunId, end: End) -> Self {
        RunHandle { run, end: futures::future::ok(end).boxed().shared(), commands: None }
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Waits for the run's end.
    ///
    /// # Errors
    ///
    /// [`RuntimeErrorKind::Stopped`] if the runtime was stopped first, or the journal's error
    /// that made the run stand still. The run continues in the next process.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn end(&self) -> Result<End, Arc<RuntimeError>> {
        self.end.clone().await
    }

    /// Sends the run's task a command; false if there is no task any more.
    pub(super) fn send(&self, command: Command) -> bool {
        self.commands.as_ref().is_some_and(|commands| commands.unbounded_send(command).is_ok())
    }

    /// Sends the run's task a request and waits until it is durable, or the run has ended.
    pub(super) async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<()>) -> Command,
    ) -> Result<(), RuntimeError> {
        let (done, recorded) = oneshot::channel();
        if self.send(request(done)) && recorded.await.is_ok() {
            return Ok(());
        }
        // The task has gone. If the run has ended there is nothing left to ask for; if the task
        // was stopped or its journal failed, the request is not durable.
        match self.end().await {
            Ok(_) => Ok(()),
            Err(error) => Err(RuntimeError::new(error.kind(), self.run.as_str()).caused_by(error)),
        }
    }
}

impl fmt::Debug for RunHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunHandle({})", self.run)
    }
}
