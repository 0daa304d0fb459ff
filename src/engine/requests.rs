//! What is asked of an engine, and the handle to what was asked.

use std::time::Duration;

use fsm_core::Timestamp;
use plugin_sdk::{ItemId, OperationId, Overwrite, PointId, PointKind, Until};
use throttle::Priority;

use super::{execute, handle::Engine};
use crate::{
    Error, ErrorKind,
    catalog::Terms,
    operation::{OperationStatus, Outcome, Phase, Task},
};

/// A backup to ask for; nothing happens before [`submit`](BackupRequest::submit).
#[derive(Debug)]
#[must_use = "nothing happens before `submit`"]
pub struct BackupRequest {
    engine: Engine,
    id: Option<OperationId>,
    item: ItemId,
    kind: PointKind,
    even_if_unchanged: bool,
    terms: Terms,
}

/// A restore to ask for; nothing happens before [`submit`](RestoreTo::submit).
#[derive(Debug)]
#[must_use = "nothing happens before `submit`"]
pub struct RestoreTo {
    engine: Engine,
    id: Option<OperationId>,
    item: ItemId,
    point: PointId,
    target: Option<String>,
    overwrite: Overwrite,
    until: Option<Until>,
    terms: Terms,
}

/// A handle to an operation. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Operation {
    engine: Engine,
    id: OperationId,
}

impl BackupRequest {
    pub(super) fn new(engine: Engine, item: ItemId, kind: PointKind) -> Self {
        let terms = Terms::default();
        BackupRequest { engine, id: None, item, kind, even_if_unchanged: false, terms }
    }

    /// Names the operation: asking again under the same name finds it instead of doing it twice.
    /// 1 to 180 bytes of ASCII letters, digits and `-_.:@`. Drawn by the engine by default.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(OperationId::new(id));
        self
    }

    /// The kind of point. A full one by default.
    pub fn kind(mut self, kind: PointKind) -> Self {
        self.kind = kind;
        self
    }

    /// Backs the item up even if nothing has changed.
    pub fn even_if_unchanged(mut self) -> Self {
        self.even_if_unchanged = true;
        self
    }

    /// How urgent it is. The class of its work decides by default.
    ///
    /// A level is a head start of five minutes: it is examined as if it had been asked for that
    /// much earlier.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.terms.priority = Some(priority);
        self
    }

    /// When it gives up. An operation that still waits then ends as failed, with a retryable error
    /// (`throttle.expired`) that names whom it waited for; one that has begun to work goes on. It
    /// is kept with the operation, and holds over restarts. None by default.
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.terms.deadline = Some(deadline);
        self
    }

    /// As [`deadline`](Self::deadline), so much later than now.
    pub fn begin_within(self, patience: Duration) -> Self {
        let now = self.engine.inner.services.environment.now();
        self.deadline(now + patience)
    }

    /// Asks for it. The operation is durable when this returns.
    ///
    /// Asked for again under the same id, the terms of the first time hold.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`] if the id is malformed, names another operation, or no plugin knows
    /// the workload; [`ErrorKind::Stopped`] during a shutdown; the store's error.
    ///
    /// # Cancel safety
    ///
    /// The operation may be accepted, and is carried out then, although the future was dropped;
    /// asking again under the same name finds it.
    pub async fn submit(self) -> Result<Operation, Error> {
        let BackupRequest { engine, id, item, kind, even_if_unchanged, terms } = self;
        let task = Task::Backup { item, kind, even_if_unchanged };
        execute::submit(&engine, id, task, terms).await
    }
}

impl RestoreTo {
    pub(super) fn new(engine: Engine, item: ItemId, point: PointId) -> Self {
        let (target, overwrite, until) = (None, Overwrite::Refuse, None);
        let terms = Terms::default();
        RestoreTo { engine, id: None, item, point, target, overwrite, until, terms }
    }

    /// Names the operation; see [`BackupRequest::id`].
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(OperationId::new(id));
        self
    }

    /// Restores to another place, in the workload's own terms (a path, a database's name). Where
    /// it came from by default.
    pub fn to(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }

    /// Replaces what is there, once the restored data is whole. Refused by default.
    pub fn overwrite(mut self) -> Self {
        self.overwrite = Overwrite::Replace;
        self
    }

    /// Stops at a moment that the point covers, instead of at its end;
    /// [`Engine::point_covering`] finds the point. Only workloads with logs can.
    pub fn until(mut self, until: Until) -> Self {
        self.until = Some(until);
        self
    }

    /// How urgent it is; see [`BackupRequest::priority`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.terms.priority = Some(priority);
        self
    }

    /// When it gives up waiting; see [`BackupRequest::deadline`].
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.terms.deadline = Some(deadline);
        self
    }

    /// As [`deadline`](Self::deadline), so much later than now.
    pub fn begin_within(self, patience: Duration) -> Self {
        let now = self.engine.inner.services.environment.now();
        self.deadline(now + patience)
    }

    /// Asks for it. The operation is durable when this returns.
    ///
    /// # Errors
    ///
    /// As [`BackupRequest::submit`].
    ///
    /// # Cancel safety
    ///
    /// As [`BackupRequest::submit`].
    pub async fn submit(self) -> Result<Operation, Error> {
        let RestoreTo { engine, id, item, point, target, overwrite, until, terms } = self;
        let task = Task::Restore { item, point, target, overwrite, until };
        execute::submit(&engine, id, task, terms).await
    }
}

impl Operation {
    pub(super) fn new(engine: Engine, id: OperationId) -> Self {
        Operation { engine, id }
    }

    /// The operation's name.
    pub fn id(&self) -> &OperationId {
        &self.id
    }

    /// Everything that is known of it.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub async fn status(&self) -> Result<OperationStatus, Error> {
        self.engine.status(&self.id).await
    }

    /// Lets it go on if it waits for an operator; see [`Engine::resume`].
    ///
    /// # Errors
    ///
    /// As [`Engine::resume`].
    pub async fn resume(&self) -> Result<(), Error> {
        self.engine.resume(&self.id).await
    }

    /// Asks it to stop; see [`Engine::cancel`].
    ///
    /// # Errors
    ///
    /// As [`Engine::cancel`].
    pub async fn cancel(&self) -> Result<(), Error> {
        self.engine.cancel(&self.id).await
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Operation`] with the class, code and advice of what failed;
    /// [`ErrorKind::Cancelled`]; [`ErrorKind::Stopped`] if the engine was shut down first or the
    /// run stands still, in which case it goes on at the next start.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn outcome(&self) -> Result<Outcome, Error> {
        let live = self.engine.inner.live().get(&self.id).cloned();
        if let Some(live) = live {
            // Ended or not: the status tells.
            live.gone().await;
        }
        let status = self.status().await?;
        match (status.phase, status.outcome, status.fault) {
            (Phase::Succeeded | Phase::Skipped, Some(outcome), _) => Ok(outcome),
            (Phase::Failed | Phase::Cancelled, _, Some(fault)) => Err(fault.into()),
            _ => {
                let message = format!("operation {} has not ended", self.id);
                Err(Error::new(
                    ErrorKind::Stopped,
                    fsm_core::Fault::retryable("operation.unfinished", message)
                        .advise("it continues when the engine is started again"),
                ))
            }
        }
    }
}
