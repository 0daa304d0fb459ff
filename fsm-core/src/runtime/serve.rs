//! What a run's task does when somebody asks something of it.

use super::{
    RuntimeError, RuntimeErrorKind,
    command::{Command, Done},
    cue::{Cue, Next},
    drive::{Drive, Halt},
    open::{abandoned, translate},
    outcome::TOO_LONG,
};
use crate::{Body, Carried, Ending, Fault, Pending, RunEvent, Status};

impl Drive {
    /// Serves what has arrived while nobody listened.
    pub(super) async fn serve_queued(&mut self) -> Result<(), Halt> {
        while let Ok(command) = self.inbox.try_recv() {
            self.serve(Some(command)).await?;
        }
        Ok(())
    }

    /// Serves `command`; `None` says that nobody is left who could send one.
    ///
    /// An answer is given once what it says is durable; who asks may be gone by then.
    pub(super) async fn serve(&mut self, command: Option<Command>) -> Result<(), Halt> {
        match command {
            Some(Command::Stop) | None => return Err(Halt::Stopped),
            // The step that asks is not current: its sender is dropped here.
            Some(Command::Intent { .. }) => {}
            Some(Command::Attach { done }) => {
                if std::mem::take(&mut self.cue.stalled) {
                    self.cue.pause = None;
                }
                answer(done);
            }
            Some(Command::ChildEnded) => self.meet_children().await?,
            Some(Command::Cancel { reason, done }) => {
                if self.snapshot.carried.cancel.is_none() && !self.has_ended() {
                    self.cancel(reason).await?;
                }
                answer(done);
            }
            Some(Command::ParentCancels { reason, done }) => {
                if self.snapshot.carried.asked.is_none() && !self.has_ended() {
                    self.cancel(reason).await?;
                }
                answer(done);
            }
            Some(Command::Pause { reason, done }) => {
                if self.has_ended() {
                    self.refuse(done, RuntimeErrorKind::Ended);
                } else {
                    if self.snapshot.status == Status::Active {
                        // A cue that asks something else than the step tells of a step that has
                        // been begun.
                        let between_steps = !self.at_work && matches!(self.cue.next, Next::Run);
                        let fault = Fault::user("run.paused", reason);
                        self.pause(Vec::new(), fault, between_steps).await?;
                    }
                    answer(done);
                }
            }
            Some(Command::Resume { done }) => {
                if let Status::Paused(_) = self.snapshot.status {
                    self.write(vec![Body::Resume]).await?;
                    self.inner.tell(&self.snapshot.run, RunEvent::Resumed);
                }
                answer(done);
            }
            Some(Command::Redrive { done }) => self.redrive(done).await?,
            Some(Command::Abandon { reason, done }) => {
                if !self.has_ended() {
                    self.finish(Ending::Abandoned, Some(abandoned(&reason))).await?;
                }
                answer(done);
            }
            Some(Command::Signal { signal, done }) => self.hear(signal, done).await?,
        }
        Ok(())
    }

    /// Waits for an operator; what is to be recorded `before` that rides with it.
    pub(super) async fn pause(
        &mut self,
        mut before: Vec<Body>,
        fault: Fault,
        between_steps: bool,
    ) -> Result<(), Halt> {
        before.push(Body::Pause { fault: fault.clone(), between_steps });
        self.write(before).await?;
        self.inner.tell(&self.snapshot.run, RunEvent::Paused(fault));
        Ok(())
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.snapshot.status, Status::Ended(..))
    }

    pub(super) async fn cancel(&mut self, reason: String) -> Result<(), Halt> {
        self.write(vec![Body::Cancel { reason: reason.clone() }]).await?;
        // Its edge is another call than the one that was interrupted.
        self.cue.pause = None;
        self.inner.tell(&self.snapshot.run, RunEvent::CancelRequested(reason));
        Ok(())
    }

    /// Its deadline has passed: it is asked to stop.
    pub(super) async fn expire(&mut self) -> Result<(), Halt> {
        let first = self.snapshot.carried.cancel.is_none();
        self.write(vec![Body::Deadline]).await?;
        self.cue.pause = None;
        if let Some(reason) = self.snapshot.carried.cancel.clone().filter(|_| first) {
            self.inner.tell(&self.snapshot.run, RunEvent::CancelRequested(reason));
        }
        Ok(())
    }

    async fn hear(&mut self, signal: Pending, done: Done) -> Result<(), Halt> {
        let carried = &self.snapshot.carried;
        let waits = carried.signals.iter().any(|pending| pending.id == signal.id);
        if waits || carried.heard.contains(&signal.id) {
            answer(done);
        } else if self.has_ended() {
            self.refuse(done, RuntimeErrorKind::Ended);
        } else if carried.signals.len() >= Carried::SIGNALS_MAX {
            self.refuse(done, RuntimeErrorKind::TooManySignals);
        } else {
            let (id, name) = (signal.id.clone(), signal.name.clone());
            match self.write(vec![Body::Signal(signal)]).await {
                Ok(()) => {
                    answer(done);
                    self.inner.tell(&self.snapshot.run, RunEvent::Signalled { id, name });
                }
                // Its sender's matter alone.
                Err(Halt::Journal(error)) if error.kind() == TOO_LONG => {
                    let _ = done.send(Err(error));
                }
                Err(halt) => return Err(halt),
            }
        }
        Ok(())
    }

    /// A run that failed because its state gave up goes on there. One that failed by entering a
    /// state that says so has nowhere to go on, and the end of a child is its parent's by then.
    async fn redrive(&mut self, done: Done) -> Result<(), Halt> {
        let failed = matches!(self.snapshot.status, Status::Ended(Ending::Failed, _));
        if !failed || self.snapshot.carried.parent.is_some() {
            self.refuse(done, RuntimeErrorKind::NotFailed);
            return Ok(());
        }
        // Another version of its machine may have ended it.
        let mut translated = self.snapshot.clone();
        if let Err(why) = translate(&self.registered, &mut translated).await {
            tracing::warn!(run = %translated.run, why, "a run that failed cannot go on here");
            self.refuse(done, RuntimeErrorKind::Quarantined);
            return Ok(());
        }
        let state = self.registered.machine.graph().state(&translated.state);
        if state.is_some_and(|state| state.ending.is_none()) {
            self.snapshot = translated;
            self.write(vec![Body::Redrive]).await?;
            self.cue = Cue::default();
            answer(done);
            self.inner.tell(&self.snapshot.run, RunEvent::Resumed);
            // Nobody has told it of those that ended meanwhile.
            self.meet_children().await?;
        } else {
            self.refuse(done, RuntimeErrorKind::NotFailed);
        }
        Ok(())
    }

    fn refuse(&self, done: Done, kind: RuntimeErrorKind) {
        let _ = done.send(Err(RuntimeError::new(kind, self.snapshot.run.as_str())));
    }
}

fn answer(done: Done) {
    let _ = done.send(Ok(()));
}
