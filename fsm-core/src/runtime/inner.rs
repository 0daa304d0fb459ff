//! What all handles of a runtime share, and how a run gets its task.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::Instrument;

use super::{
    Observer, RunEvent, RunHandle, RuntimeError, RuntimeErrorKind,
    clock::Clock,
    command::{Command, Done},
    cue::Cue,
    open::Opening,
    permit::Permit,
    table::{LaneId, Slot, Table, Wakened},
    watch::Watchers,
};
use crate::{AnyMachine, Body, Carried, Data, Environment, Journal, Record, RunId, Timestamp};

pub(super) struct Inner {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) environment: Arc<dyn Environment>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) watchers: Watchers,
    pub(super) cancel_grace: Duration,
    /// How many runs of one origin have a step at work at a time.
    pub(super) concurrency: usize,
    pub(super) machines: Mutex<BTreeMap<String, Registered>>,
    pub(super) table: Mutex<Table>,
    pub(super) clock: Clock,
}

#[derive(Clone)]
pub(super) struct Registered {
    pub(super) machine: Arc<dyn AnyMachine>,
    pub(super) origin: String,
    pub(super) fingerprint: String,
    pub(super) lane: LaneId,
}

impl Registered {
    /// The record with which a run begins.
    pub(super) fn first_record(
        &self,
        run: RunId,
        input: Data,
        carried: Carried,
        at: Timestamp,
    ) -> Record {
        let graph = self.machine.graph();
        let body = Body::Enter {
            entry: 1,
            machine: graph.machine.clone(),
            version: graph.version,
            origin: self.origin.clone(),
            graph: self.fingerprint.clone(),
            state: graph.initial.clone(),
            data: input,
            wake_at: None,
            carried: Box::new(carried),
        };
        Record { run, seq: 1, at, body }
    }
}

impl Inner {
    pub(super) fn machines(&self) -> MutexGuard<'_, BTreeMap<String, Registered>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine `name`, if it is registered.
    pub(super) fn registered(&self, name: &str) -> Option<Registered> {
        self.machines().get(name).cloned()
    }

    /// Tells whoever wants to know.
    pub(super) fn tell(&self, run: &RunId, event: RunEvent) {
        self.watchers.tell(run, &event);
        // Its panic would end the task that tells, and the rest of what that task has to do.
        let observed = catch_unwind(AssertUnwindSafe(|| self.observer.observe(run, event)));
        if let Err(payload) = observed {
            // The payload's own drop might panic.
            std::mem::forget(payload);
            tracing::error!(%run, "an observer panicked");
        }
    }

    /// Finds `run` here, or takes it up as `opening` says, and gives its task `command`.
    ///
    /// Without a command a run that waits is left to wait.
    pub(super) fn take_up(
        self: &Arc<Self>,
        run: &RunId,
        opening: Opening,
        command: Option<Command>,
    ) -> Result<RunHandle, RuntimeError> {
        let (handle, wakened) = {
            let mut table = self.table();
            if table.stopping {
                return Err(RuntimeError::new(RuntimeErrorKind::Stopped, run.as_str()));
            }
            let handle = RunHandle::waiting(self, run, &mut table);
            let wakened = match table.runs.get(run) {
                Some(Slot::Working(task)) => {
                    // The receiver goes only with the slot.
                    let _ = command.map(|command| task.unbounded_send(command));
                    None
                }
                Some(Slot::Parked { .. } | Slot::Queued { .. }) if command.is_none() => None,
                known => {
                    let opening = if known.is_some() { Opening::Known } else { opening };
                    let wakened = table.work(run, opening.cue());
                    let _ = command.map(|command| wakened.commands.unbounded_send(command));
                    Some((wakened, opening))
                }
            };
            (handle, wakened)
        };
        if let Some((wakened, opening)) = wakened {
            self.spawn(wakened, opening, None);
        }
        Ok(handle)
    }

    /// Gives `command` to `run` if it is here.
    pub(super) fn tell_if_here(self: &Arc<Self>, run: &RunId, command: Command) {
        if self.table().runs.contains_key(run) {
            // Should it leave in between, its journal is read for nothing. Should the runtime
            // stop, nobody has to be told.
            let _ = self.take_up(run, Opening::Known, Some(command));
        }
    }

    /// Asks the task of `run` and waits until what it did is durable.
    pub(super) async fn ask(
        self: &Arc<Self>,
        run: &RunId,
        opening: Opening,
        request: impl FnOnce(Done) -> Command,
    ) -> Result<RunHandle, RuntimeError> {
        let (done, answer) = futures::channel::oneshot::channel();
        let handle = self.take_up(run, opening, Some(request(done)))?;
        let answer = match answer.await {
            Ok(answer) => answer,
            // The task has gone: the run has ended, or the task was stopped, or the journal
            // failed. Whichever it is, nothing of the request is durable.
            Err(_) => Err(match handle.end().await {
                Ok(_) => RuntimeError::new(RuntimeErrorKind::Ended, run.as_str()),
                Err(error) => RuntimeError::shared(error),
            }),
        };
        answer.map(|()| handle)
    }

    /// Puts a run that is in the journal in line for work, unless it is here.
    pub(super) fn line_up(self: &Arc<Self>, run: &RunId, lane: LaneId, cue: Cue) {
        {
            let mut table = self.table();
            if table.stopping || table.runs.contains_key(run) {
                return;
            }
            table.queue(run, lane, cue);
        }
        self.dispatch(lane);
    }

    /// Lets those in line in `lane` work, as many as there is room for.
    ///
    /// One caller at a time does so, on behalf of all: an executor that drops a task at once
    /// gives its place back in the middle of this.
    pub(super) fn dispatch(self: &Arc<Self>, lane: LaneId) {
        if !self.table().begin_to_dispatch(lane) {
            return;
        }
        loop {
            let wakened = self.table().next_in(lane, self.concurrency);
            let Some(wakened) = wakened else { return };
            self.spawn(wakened, Opening::Known, Some(Permit::new(Arc::clone(self), lane)));
        }
    }

    pub(super) fn spawn(
        self: &Arc<Self>,
        wakened: Wakened,
        opening: Opening,
        permit: Option<Permit>,
    ) {
        let span = tracing::info_span!(parent: None, "run", run = %wakened.run);
        let task = super::work::work(Arc::clone(self), wakened, opening, permit);
        self.environment.spawn(Box::pin(task.instrument(span)));
    }

    /// No run is taken up any more. Answers with those that a task still drives.
    pub(super) fn begin_to_stop(self: &Arc<Self>) -> Vec<RunHandle> {
        let (handles, deserted) = {
            let mut table = self.table();
            table.stopping = true;
            let deserted = table.clear();
            let working: Vec<_> = table.runs.keys().cloned().collect();
            for slot in table.runs.values() {
                if let Slot::Working(task) = slot {
                    let _ = task.unbounded_send(Command::Stop);
                }
            }
            let handles = working.iter().map(|run| RunHandle::waiting(self, run, &mut table));
            (handles.collect(), deserted)
        };
        // They hear that the runtime has stopped.
        drop(deserted);
        // The clock finds nobody to wake.
        self.timers_changed();
        handles
    }

    /// Parks and queues happen under this lock, so that no command is lost on the way.
    pub(super) fn settle(
        self: &Arc<Self>,
        run: &RunId,
        inbox: &mut futures::channel::mpsc::UnboundedReceiver<Command>,
        settle: impl FnOnce(&mut Table, &RunId),
    ) -> Settled {
        let mut table = self.table();
        if table.stopping {
            return Settled::Stopping;
        }
        if let Ok(command) = inbox.try_recv() {
            return Settled::Asked(command);
        }
        settle(&mut table, run);
        Settled::Away
    }
}

/// Whether a run could be put aside.
pub(super) enum Settled {
    /// It is, and its task has to go.
    Away,
    /// Somebody has asked something of it first.
    Asked(Command),
    /// Nobody is put aside any more.
    Stopping,
}
