//! Taking up the runs of an earlier process.

use std::sync::Arc;

use futures::channel::oneshot;

use super::{
    RuntimeError, RuntimeErrorKind,
    command::Command,
    cue::Cue,
    due::{Due, due},
    family::parent_ended,
    inner::Inner,
    open::{Opened, adopt},
    table::Slot,
};
use crate::{Loaded, RunId, RunSnapshot};

/// How many runs are read at a time.
const PAGE: usize = 512;

/// What a restart has found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Recovered {
    /// How many runs go on, or wait for what they waited for.
    pub runs: usize,
    /// The runs that cannot be continued here, and why. They stay in the journal.
    pub quarantined: Vec<(RunId, String)>,
}

/// Runs that are related, to be looked at once every run has been read.
#[derive(Default)]
struct Relatives {
    /// Parents that wait, and their children that have not ended as far as the parents know.
    parents: Vec<(RunId, Vec<RunId>)>,
    /// Children, and their parents.
    children: Vec<(RunId, RunId)>,
}

impl Inner {
    pub(super) async fn recover(self: &Arc<Self>) -> Result<Recovered, RuntimeError> {
        let (mut recovered, mut relatives) = (Recovered::default(), Relatives::default());
        let mut after: Option<RunId> = None;
        loop {
            let gone = self.table().gone;
            self.is_running()?;
            let page = self.journal.unfinished(after.as_ref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|loaded| loaded.run.clone());
            for Loaded { run, snapshot } in page {
                match self.place(&run, snapshot, gone, &mut relatives).await {
                    Ok(()) => recovered.runs += 1,
                    Err(why) => {
                        self.quarantine(&run, why.clone());
                        recovered.quarantined.push((run, why));
                    }
                }
            }
            if is_last {
                break;
            }
        }
        self.reunite(relatives).await?;
        self.is_running()?;
        Ok(recovered)
    }

    fn is_running(&self) -> Result<(), RuntimeError> {
        match self.table().stopping {
            true => Err(RuntimeError::new(RuntimeErrorKind::Stopped, "recovery")),
            false => Ok(()),
        }
    }

    /// Puts a run of an earlier process where it waits, or in line for work.
    async fn place(
        self: &Arc<Self>,
        run: &RunId,
        snapshot: Result<RunSnapshot, String>,
        gone: u64,
        relatives: &mut Relatives,
    ) -> Result<(), String> {
        // Also of a run that is here: whoever put it there may not have come to its relatives.
        if let Ok(snapshot) = &snapshot {
            relatives.add(snapshot);
        }
        let stalled = match self.table().runs.get(run) {
            Some(Slot::Parked { cue, .. }) => cue.as_ref().is_some_and(|cue| cue.stalled),
            _ => false,
        };
        if stalled {
            let (done, _) = oneshot::channel();
            self.tell_if_here(run, Command::Attach { done });
        }
        if self.is_here(run) {
            return Ok(());
        }
        let Opened::Here(registered, snapshot) = adopt(self, snapshot?).await? else {
            return Ok(());
        };
        let cue = Cue::interrupted();
        let state = registered.machine.graph().state(&snapshot.state);
        let now = self.environment.now();
        let due = state.map(|state| due(&snapshot, state, &cue, now));
        let timed = matches!(&due, Some(Due::Later(later)) if later.at.is_some());
        let first = {
            let mut table = self.table();
            table.quarantined.remove(run);
            if table.stopping || table.runs.contains_key(run) {
                return Ok(());
            }
            match due {
                // A run that has left since the journal was read stands elsewhere now: its task
                // reads again.
                Some(Due::Later(later)) if table.gone == gone => {
                    let cue = if later.untouched { Cue::default() } else { cue };
                    table.park(run, registered.lane, later, cue)
                }
                _ => {
                    table.queue(run, registered.lane, cue);
                    false
                }
            }
        };
        if timed {
            self.put_aside(now, first);
        }
        self.dispatch(registered.lane);
        Ok(())
    }

    /// Parents hear of children that have ended unseen; children whose parents have ended are
    /// asked to stop.
    async fn reunite(self: &Arc<Self>, relatives: Relatives) -> Result<(), RuntimeError> {
        for (parent, children) in relatives.parents {
            if children.iter().any(|child| self.is_away(child)) {
                self.tell_if_here(&parent, Command::ChildEnded);
            }
        }
        for (child, parent) in relatives.children {
            if self.is_here(&parent) {
                continue;
            }
            if self.has_ended(&parent).await? {
                let (done, _) = oneshot::channel();
                self.tell_if_here(&child, parent_ended(&parent, done));
            }
        }
        Ok(())
    }
}

impl Relatives {
    fn add(&mut self, snapshot: &RunSnapshot) {
        let open = snapshot.carried.children.iter().filter(|child| child.end.is_none());
        let open: Vec<_> = open.map(|child| child.run.clone()).collect();
        if !open.is_empty() {
            self.parents.push((snapshot.run.clone(), open));
        }
        if let Some(parent) = &snapshot.carried.parent {
            self.children.push((snapshot.run.clone(), parent.clone()));
        }
    }
}
