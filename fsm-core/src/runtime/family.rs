//! Parents and children: born together, asked to stop together, waited for.

use std::sync::Arc;

use futures::channel::oneshot;

use super::{
    RuntimeError, RuntimeErrorKind,
    command::Command,
    drive::{Drive, Halt},
    inner::Inner,
    open::{Opening, with_sources},
    table::LaneId,
};
use crate::{
    Body, Carried, Child, Fault, JournalError, JournalErrorKind, Record, RunId, RunSnapshot, Spawn,
};

/// Whom a run leaves behind when it ends.
#[derive(Default)]
pub(super) struct Family {
    parent: Option<RunId>,
    children: Vec<RunId>,
}

impl Family {
    pub(super) fn of(snapshot: &RunSnapshot) -> Self {
        Family { parent: snapshot.carried.parent.clone(), children: open(snapshot) }
    }

    /// The parent alone, of a run whose end is no news. It takes a child that is here for one that
    /// has not ended, and so looks again once that child has left, whatever it was here for.
    pub(super) fn parent_of(snapshot: &RunSnapshot) -> Self {
        Family { parent: snapshot.carried.parent.clone(), children: Vec::new() }
    }
}

fn open(snapshot: &RunSnapshot) -> Vec<RunId> {
    let open = snapshot.carried.children.iter().filter(|child| child.end.is_none());
    open.map(|child| child.run.clone()).collect()
}

/// A child that is about to be born.
pub(super) struct Birth {
    pub(super) child: Child,
    pub(super) first: Record,
    pub(super) lane: LaneId,
}

impl Inner {
    /// Whether nothing is known here of where `run` stands: it may have ended, or nobody may have
    /// taken it up. One that cannot be continued here is not tried again and again.
    pub(super) fn is_away(&self, run: &RunId) -> bool {
        !self.is_here(run) && !self.is_quarantined(run)
    }

    /// Whether `run`, which is or was the parent of another one, has ended. One that is forgotten
    /// has: no other is. One that cannot be read is quarantined, and its children go on.
    pub(super) async fn has_ended(&self, run: &RunId) -> Result<bool, JournalError> {
        match self.journal.load(run).await {
            Ok(run) => Ok(run.is_none_or(|run| run.end().is_some())),
            Err(error) if error.kind() == JournalErrorKind::Damaged => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `run` has ended: its children are asked to stop, and its parent looks after it.
    pub(super) fn tell_family(self: &Arc<Self>, run: &RunId, family: Family) {
        for child in family.children {
            // Should the process end before it is durable, the next one asks again.
            let (done, _) = oneshot::channel();
            let _ = self.take_up(&child, Opening::Known, Some(parent_ended(run, done)));
        }
        if let Some(parent) = family.parent {
            self.tell_if_here(&parent, Command::ChildEnded);
        }
    }
}

/// What a child hears of the end of `parent`.
pub(super) fn parent_ended(parent: &RunId, done: super::command::Done) -> Command {
    Command::ParentCancels { reason: reason_of_end(parent), done }
}

fn reason_of_end(parent: &RunId) -> String {
    format!("its parent {parent} has ended")
}

impl Drive {
    /// The children that a step asks for.
    pub(super) fn births(&self, spawned: Vec<Spawn>) -> Result<Vec<Birth>, Fault> {
        let mut births: Vec<Birth> = Vec::with_capacity(spawned.len());
        let at = self.inner.environment.now();
        for Spawn { key, run, machine, input } in spawned {
            let expected = format!("{}/{}/{key}", self.snapshot.run, self.snapshot.entry);
            let usable = !key.is_empty() && !key.contains('/');
            if !usable
                || run.as_str() != expected
                || births.iter().any(|birth| birth.child.run == run)
            {
                let message = format!("a child is named {run} and not {expected}, or is not alone");
                return Err(Fault::bug("child.key", message));
            }
            let Some(registered) = self.inner.registered(&machine) else {
                let message = format!("the child's machine `{machine}` is not registered");
                return Err(Fault::bug("child.machine", message));
            };
            let parent = Some(self.snapshot.run.clone());
            let carried = Carried { parent, ..Carried::default() };
            let first = registered.first_record(run.clone(), input, carried, at);
            let child = Child { key, run, end: None };
            births.push(Birth { child, first, lane: registered.lane });
        }
        Ok(births)
    }

    /// The fault of a step whose child cannot be born as its name is taken, by a run of somebody
    /// else's; `None` if none is.
    pub(super) async fn taken(&self, births: &[Birth]) -> Result<Option<Fault>, RuntimeError> {
        for Birth { child, .. } in births {
            if self.inner.journal.head(&child.run).await?.is_some() {
                let message = format!("a child cannot be named {}, as a run is already", child.run);
                return Ok(Some(Fault::bug("child.taken", message)));
            }
        }
        Ok(None)
    }

    /// Records the ends of children that have ended unseen, and takes up those that nobody has.
    pub(super) async fn meet_children(&mut self) -> Result<(), Halt> {
        if self.snapshot.end().is_some() {
            return Ok(());
        }
        for child in open(&self.snapshot) {
            if !self.inner.is_away(&child) {
                continue;
            }
            match self.inner.journal.load(&child).await {
                Ok(Some(snapshot)) => match snapshot.end() {
                    Some(end) => self.write(vec![Body::ChildEnded { run: child, end }]).await?,
                    None => {
                        self.inner
                            .take_up(&child, Opening::Known, None)
                            .map_err(Halt::from_stopped)?;
                    }
                },
                // The child is quarantined where it is taken up; its parent waits for it.
                Ok(None) => {}
                Err(error) if error.kind() != JournalErrorKind::Damaged => {
                    return Err(Halt::Journal(error.into()));
                }
                Err(error) => {
                    let (parent, child) = (&self.snapshot.run, &child);
                    tracing::warn!(%parent, %child, %error, "a child cannot be read");
                }
            }
        }
        Ok(())
    }

    /// A run that waited for its journal may have heard of the end of its parent when that could
    /// not be recorded.
    pub(super) async fn meet_parent(&mut self) -> Result<(), Halt> {
        let Carried { parent, asked, .. } = &*self.snapshot.carried;
        let unheard = self.cue.stalled && asked.is_none() && !self.has_ended();
        let Some(parent) = parent.clone().filter(|_| unheard) else { return Ok(()) };
        let is_here = self.inner.is_here(&parent);
        if !is_here && self.inner.has_ended(&parent).await.map_err(RuntimeError::from)? {
            self.cancel(reason_of_end(&parent)).await?;
        }
        Ok(())
    }

    /// Asks each child to stop, durably. Nobody asks again once the request to this run is settled,
    /// so it is not settled before.
    pub(super) async fn cancel_children(&mut self) -> Result<(), Halt> {
        if self.cue.cascaded {
            return Ok(());
        }
        for child in open(&self.snapshot) {
            let reason = self.snapshot.carried.cancel.clone().unwrap_or_default();
            let asked = self
                .inner
                .ask(&child, Opening::Known, |done| Command::ParentCancels { reason, done })
                .await;
            match asked {
                Ok(_) => {}
                Err(error) if error.kind() == RuntimeErrorKind::Stopped => {
                    return Err(Halt::Stopped);
                }
                Err(error) if error.is_retryable() => return Err(Halt::Journal(error)),
                // A child that cannot be continued here does nothing that has to stop.
                Err(error) => {
                    let why = with_sources(&error);
                    tracing::warn!(%child, why, "a child could not be asked to stop");
                }
            }
        }
        self.cue.cascaded = true;
        Ok(())
    }
}

impl Halt {
    /// Only a runtime that stops takes no run up.
    fn from_stopped(_: RuntimeError) -> Self {
        Halt::Stopped
    }
}
