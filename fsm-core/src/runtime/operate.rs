//! What somebody asks of a run: to stop, to wait, to go on, to hear something.

use super::{
    Command, End, Opening, RunEvent, RunHandle, Runtime, RuntimeError, RuntimeErrorKind,
    family::Family,
};
use crate::{Body, Data, Ending, Fault, Pending, Record, RunId, Signal};

impl Runtime {
    /// Asks a run to stop: the request is durable when this returns. What follows is the graph's
    /// matter ([`State::on_cancel`](crate::State::on_cancel)). A run that has ended stays ended.
    ///
    /// # Errors
    ///
    /// As [`attach`](Runtime::attach).
    ///
    /// # Cancel safety
    ///
    /// The request may be made although the future was dropped.
    pub async fn cancel(&self, run: &RunId, reason: &str) -> Result<RunHandle, RuntimeError> {
        let reason = reason.to_owned();
        self.ask_or_ended(run, |done| Command::Cancel { reason, done }).await
    }

    /// Makes a run wait for an operator: durable when this returns. The step that is at work ends
    /// as usual, and no other one begins.
    ///
    /// # Errors
    ///
    /// As [`attach`](Runtime::attach), and [`RuntimeErrorKind::Ended`].
    ///
    /// # Cancel safety
    ///
    /// As [`cancel`](Runtime::cancel).
    pub async fn pause(&self, run: &RunId, reason: &str) -> Result<RunHandle, RuntimeError> {
        let reason = reason.to_owned();
        self.inner.ask(run, Opening::Known, |done| Command::Pause { reason, done }).await
    }

    /// Lets a run that waits for an operator continue, with all its attempts and the time for them:
    /// durable when this returns. A time that the run was to wait for anyway it still waits for. A
    /// run that does not wait for an operator goes on as it does.
    ///
    /// # Errors
    ///
    /// As [`attach`](Runtime::attach).
    ///
    /// # Cancel safety
    ///
    /// As [`cancel`](Runtime::cancel).
    pub async fn resume(&self, run: &RunId) -> Result<RunHandle, RuntimeError> {
        self.ask_or_ended(run, |done| Command::Resume { done }).await
    }

    /// Lets a run that failed continue at the state in which it failed, with its data and with
    /// all its attempts: durable when this returns. The states before do not run again.
    ///
    /// # Errors
    ///
    /// As [`attach`](Runtime::attach), and [`RuntimeErrorKind::NotFailed`] if the run has not
    /// failed, if it failed by entering a state that says so, or if it is a child, whose parent
    /// has gone on.
    ///
    /// # Cancel safety
    ///
    /// As [`cancel`](Runtime::cancel).
    pub async fn redrive(&self, run: &RunId) -> Result<RunHandle, RuntimeError> {
        self.inner.ask(run, Opening::Known, |done| Command::Redrive { done }).await
    }

    /// Ends a run without asking its graph: for one that hangs, or that cannot be continued here.
    /// The step that is at work is dropped, and nothing is compensated. Durable when this returns.
    ///
    /// # Errors
    ///
    /// [`RuntimeErrorKind::UnknownRun`], or the journal's error.
    ///
    /// # Cancel safety
    ///
    /// As [`cancel`](Runtime::cancel).
    pub async fn abandon(&self, run: &RunId, reason: &str) -> Result<RunHandle, RuntimeError> {
        let reason = reason.to_owned();
        self.ask_or_ended(run, |done| Command::Abandon { reason, done }).await
    }

    /// Tells a run something: the signal is durable when this returns, and is kept until a state
    /// takes it. `id` is the sender's: the same id again is the same signal, and is told once (of
    /// the last [`HEARD_MAX`](crate::Carried::HEARD_MAX) signals of the run).
    ///
    /// # Errors
    ///
    /// As [`attach`](Runtime::attach), [`RuntimeErrorKind::Ended`],
    /// [`RuntimeErrorKind::TooManySignals`], and [`TooLong`](crate::JournalErrorKind::TooLong) of the journal if
    /// its data is, which harms the run in no way.
    ///
    /// # Cancel safety
    ///
    /// The run may hear the signal although the future was dropped; send it again.
    pub async fn signal(
        &self,
        run: &RunId,
        id: &str,
        name: &str,
        data: Data,
    ) -> Result<RunHandle, RuntimeError> {
        let signal = Pending { id: id.to_owned(), name: name.to_owned(), data };
        self.inner.ask(run, Opening::Known, |done| Command::Signal { signal, done }).await
    }

    /// As [`signal`](Runtime::signal), by type.
    ///
    /// # Errors
    ///
    /// As [`signal`](Runtime::signal), and [`RuntimeErrorKind::Input`] if serde cannot write it.
    ///
    /// # Cancel safety
    ///
    /// As [`signal`](Runtime::signal).
    pub async fn tell<G: Signal>(
        &self,
        run: &RunId,
        id: &str,
        signal: &G,
    ) -> Result<RunHandle, RuntimeError> {
        let data = Data::encode(signal).map_err(|fault| {
            RuntimeError::new(RuntimeErrorKind::Input, G::NAME).caused_by(fault)
        })?;
        self.signal(run, id, G::NAME, data).await
    }

    /// Ends a run of which no step has begun, without asking its graph: for an embedder that wrote
    /// its first record and then did not let it begin. `None` if a step of it may have begun; then
    /// [`cancel`](Runtime::cancel) it.
    ///
    /// **The caller guarantees** that nobody has launched the run, in this process or before.
    ///
    /// # Errors
    ///
    /// [`RuntimeErrorKind::UnknownRun`], or the journal's error.
    ///
    /// # Cancel safety
    ///
    /// The run may have ended although the future was dropped.
    pub async fn revoke(
        &self,
        run: &RunId,
        ending: Ending,
        fault: Fault,
    ) -> Result<Option<End>, RuntimeError> {
        let Some(mut claimed) = self.inner.claim(run)? else { return Ok(None) };
        let unknown = || RuntimeError::new(RuntimeErrorKind::UnknownRun, run.as_str());
        let snapshot = self.inner.journal.load(run).await?.ok_or_else(unknown)?;
        let family = Family::parent_of(&snapshot);
        if let Some(end) = snapshot.end() {
            claimed.ended(&end);
            self.inner.tell_family(run, family);
            return Ok(Some(end));
        }
        // Whatever a step does leaves a record behind its first entry.
        if snapshot.seq > 1 {
            return Ok(None);
        }
        let body = Body::End { ending, fault: Some(fault.clone()) };
        let (seq, at) = (snapshot.seq + 1, self.inner.environment.now());
        claimed.begin_to_write();
        self.inner.journal.append(vec![Record { run: run.clone(), seq, at, body }]).await?;
        let end = End { ending, state: snapshot.state, data: snapshot.data, fault: Some(fault) };
        claimed.ended(&end);
        self.inner.tell(run, RunEvent::Ended(end.clone()));
        self.inner.tell_family(run, family);
        Ok(Some(end))
    }

    /// As `ask`, for requests that a run which has ended has no need of.
    async fn ask_or_ended(
        &self,
        run: &RunId,
        request: impl FnOnce(super::command::Done) -> Command,
    ) -> Result<RunHandle, RuntimeError> {
        match self.inner.ask(run, Opening::Known, request).await {
            Err(error) if error.kind() == RuntimeErrorKind::Ended => {
                self.find(run, Opening::Known).await
            }
            answer => answer,
        }
    }
}
