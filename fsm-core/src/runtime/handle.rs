//! A run as its starter sees it.

use std::{fmt, sync::Arc};

use futures::{
    FutureExt,
    channel::oneshot,
    future::{BoxFuture, Shared},
};

use super::{End, RuntimeError, RuntimeErrorKind, inner::Inner, table::Table};
use crate::RunId;

/// How a task answers for its run.
pub(super) type Ended = Result<End, Arc<RuntimeError>>;

/// A run that this process has taken up. It goes on whether or not anybody holds its handle.
#[derive(Clone)]
pub struct RunHandle {
    run: RunId,
    end: Shared<BoxFuture<'static, Ended>>,
}

impl RunHandle {
    /// A handle of `run`, which hears of its end through `table`.
    pub(super) fn waiting(inner: &Arc<Inner>, run: &RunId, table: &mut Table) -> Self {
        let (ended, end) = oneshot::channel::<Ended>();
        table.forget_deaf(run);
        table.waiters.entry(run.clone()).or_default().push(ended);
        let (subject, runtime) = (run.clone(), Arc::clone(inner));
        let end = end.map(move |end| {
            // Timers run as long as somebody waits for what they lead to.
            drop(runtime);
            end.unwrap_or_else(|_| {
                Err(Arc::new(RuntimeError::new(RuntimeErrorKind::Stopped, subject.as_str())))
            })
        });
        RunHandle { run: run.clone(), end: end.boxed().shared() }
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Waits for the run's end.
    ///
    /// # Errors
    ///
    /// [`RuntimeErrorKind::Stopped`] if the runtime was stopped first; the reason if the run was
    /// quarantined or its journal failed. The run continues in the next process, or, if its journal
    /// was full or busy, in this one: [`attach`](crate::Runtime::attach) to it again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn end(&self) -> Result<End, Arc<RuntimeError>> {
        self.end.clone().await
    }
}

impl fmt::Debug for RunHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunHandle({})", self.run)
    }
}
