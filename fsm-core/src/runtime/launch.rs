//! From what the journal says of a run to a task that drives it.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::{FutureExt, channel::mpsc};

use super::{
    Entry, RunHandle, Runtime, RuntimeError, RuntimeErrorKind, attend::panicked, drive::Drive,
    place::Place,
};
use crate::{Body, Data, End, Ending, Fault, Record, RunEvent, RunId, RunSnapshot, Status};

impl Runtime {
    pub(super) fn active(&self, run: &RunId) -> Option<RunHandle> {
        self.inner.tasks().runs.get(run).cloned()
    }

    pub(super) async fn resume_as(
        &self,
        run: &RunId,
        entry: Entry,
    ) -> Result<RunHandle, RuntimeError> {
        let _gate = self.inner.gates.pass(run).await;
        match self.active(run) {
            Some(handle) => Ok(handle),
            None => self.load_and_launch(run, entry).await,
        }
    }

    /// As [`resume_as`](Runtime::resume_as), for whoever has passed the run's gate.
    pub(super) async fn load_and_launch(
        &self,
        run: &RunId,
        entry: Entry,
    ) -> Result<RunHandle, RuntimeError> {
        let snapshot = self.inner.journal.load(run).await?;
        let unknown = || RuntimeError::new(RuntimeErrorKind::UnknownRun, run.as_str());
        self.resume_from(snapshot.ok_or_else(unknown)?, entry).await
    }

    /// As [`revoke`](Runtime::revoke) says.
    pub(super) async fn end_unbegun(
        &self,
        run: &RunId,
        ending: Ending,
        fault: Fault,
    ) -> Result<Option<End>, RuntimeError> {
        let _gate = self.inner.gates.pass(run).await;
        let snapshot = self.inner.journal.load(run).await?;
        let unknown = || RuntimeError::new(RuntimeErrorKind::UnknownRun, run.as_str());
        let RunSnapshot { seq, state, data, status, .. } = snapshot.ok_or_else(unknown)?;
        if let Status::Ended(ending, fault) = status {
            return Ok(Some(End { ending, state, data, fault }));
        }
        // Whatever a step does leaves a record behind its first entry; one at work has a task.
        if seq > 1 || self.active(run).is_some() {
            return Ok(None);
        }
        let body = Body::End { ending, fault: Some(fault.clone()) };
        let at = self.inner.environment.now();
        self.inner
            .journal
            .append(vec![Record { run: run.clone(), seq: seq + 1, at, body }])
            .await?;
        let end = End { ending, state, data, fault: Some(fault) };
        self.inner.observer.observe(run, RunEvent::Ended(end.clone()));
        Ok(Some(end))
    }

    pub(super) async fn resume_unfinished(&self) -> Result<Vec<(RunId, String)>, RuntimeError> {
        let gone = self.inner.tasks().gone;
        let mut quarantined = Vec::new();
        for loaded in self.inner.journal.unfinished(None, usize::MAX).await? {
            let run = loaded.run;
            let resumed = {
                let _gate = self.inner.gates.pass(&run).await;
                let active = self.active(&run);
                // A run whose task has gone since the journal was read stands elsewhere now.
                let current = self.inner.tasks().gone == gone;
                match (active, loaded.snapshot) {
                    (Some(handle), _) => Ok(handle),
                    (None, Ok(snapshot)) if current => {
                        self.resume_from(snapshot, Entry::Interrupted).await
                    }
                    (None, Ok(_)) => self.load_and_launch(&run, Entry::Interrupted).await,
                    (None, Err(why)) => Err(RuntimeError::new(RuntimeErrorKind::Quarantined, why)),
                }
            };
            match resumed {
                Ok(_) => {}
                Err(error) if error.kind() == RuntimeErrorKind::Stopped => return Err(error),
                Err(error) => {
                    let why = error.to_string();
                    self.inner.observer.observe(&run, RunEvent::Quarantined(why.clone()));
                    quarantined.push((run, why));
                }
            }
        }
        Ok(quarantined)
    }

    pub(super) async fn resume_from(
        &self,
        mut snapshot: RunSnapshot,
        entry: Entry,
    ) -> Result<RunHandle, RuntimeError> {
        if let Status::Ended(ending, fault) = snapshot.status {
            let RunSnapshot { run, state, data, .. } = snapshot;
            return Ok(RunHandle::ended(run, End { ending, state, data, fault }));
        }
        let quarantined = |why: String| {
            RuntimeError::new(RuntimeErrorKind::Quarantined, format!("{}: {why}", snapshot.run))
        };
        let registered =
            self.inner.machines().get(&snapshot.machine).cloned().ok_or_else(|| {
                quarantined(format!("machine `{}` is not registered", snapshot.machine))
            })?;
        let graph = registered.machine.graph();
        if graph.version != snapshot.version {
            let (state, data) = (snapshot.state.clone(), snapshot.data.clone());
            let migrate = async { registered.machine.migrate(snapshot.version, state, data).await };
            let migrated: Result<(String, Data), Fault> = AssertUnwindSafe(migrate)
                .catch_unwind()
                .await
                .unwrap_or_else(|payload| Err(panicked(payload)));
            let (state, data) = migrated.map_err(|fault| quarantined(fault.to_string()))?;
            (snapshot.state, snapshot.data, snapshot.version) = (state, data, graph.version);
        }
        if graph.state(&snapshot.state).is_none() {
            return Err(quarantined(format!("it is in the unknown state `{}`", snapshot.state)));
        }
        self.launch(snapshot, entry)
    }

    pub(super) fn launch(
        &self,
        snapshot: RunSnapshot,
        entry: Entry,
    ) -> Result<RunHandle, RuntimeError> {
        let registered =
            self.inner.machines().get(&snapshot.machine).cloned().ok_or_else(|| {
                RuntimeError::new(RuntimeErrorKind::UnknownMachine, &snapshot.machine)
            })?;
        let run = snapshot.run.clone();
        let (commands, inbox) = mpsc::unbounded();
        let (handle, ended) = RunHandle::active(run.clone(), commands.clone());
        {
            let mut tasks = self.inner.tasks();
            if tasks.stopping {
                return Err(RuntimeError::new(RuntimeErrorKind::Stopped, run.as_str()));
            }
            if let Some(running) = tasks.runs.get(&run) {
                return Ok(running.clone());
            }
            tasks.runs.insert(run.clone(), handle.clone());
        }
        let place = Place::new(Arc::clone(&self.inner), run);
        let drive = Drive::new(registered, snapshot, entry, (commands, inbox), place, ended);
        self.inner.environment.spawn(Box::pin(drive.until_end()));
        Ok(handle)
    }
}
