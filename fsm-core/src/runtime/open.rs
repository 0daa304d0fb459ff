//! How a task finds its run: where the journal says that it stands, and whether it can go on here.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;

use super::{
    RuntimeError, RuntimeErrorKind,
    attend::panicked,
    cue::Cue,
    drive::Halt,
    family::Family,
    inner::{Inner, Registered},
    table::{Slot, Wakened},
};
use crate::{Data, End, Fault, JournalErrorKind, Record, RunEvent, RunId, RunSnapshot};

/// How a run comes to its task.
pub(super) enum Opening {
    /// It is in the journal; a step of it may have run, in a process that is gone.
    Known,
    /// It is in the journal; no step of it has run.
    Fresh,
    /// It is new, unless it is in the journal already.
    New(Box<Record>),
}

impl Opening {
    pub(super) fn cue(&self) -> Cue {
        match self {
            Opening::Known | Opening::New(_) => Cue::interrupted(),
            Opening::Fresh => Cue::default(),
        }
    }
}

/// A run as its task finds it.
pub(super) enum Opened {
    Here(Registered, Box<RunSnapshot>),
    /// It has ended, and the machine that it was a run of is not here.
    Ended(End, Family),
}

/// Finds out where the run stands, and whether it can be continued here.
pub(super) async fn open(
    inner: &Arc<Inner>,
    run: &RunId,
    cue: &mut Cue,
    opening: Opening,
) -> Result<Opened, Halt> {
    let snapshot = match (load(inner, run).await?, opening) {
        (Some(snapshot), _) => snapshot,
        (None, Opening::New(record)) => {
            let snapshot = RunSnapshot::fold([(*record).clone()]).map_err(Halt::Quarantined)?;
            match inner.journal.append(vec![*record]).await {
                Ok(()) => {
                    *cue = Cue::default();
                    snapshot
                }
                // An earlier start in whose middle its task was dropped: it has landed just now.
                Err(error) if error.kind() == JournalErrorKind::Conflict => {
                    load(inner, run).await?.ok_or(Halt::Unknown)?
                }
                Err(error) => return Err(Halt::Journal(error.into())),
            }
        }
        (None, _) => return Err(Halt::Unknown),
    };
    adopt(inner, snapshot).await.map_err(Halt::Quarantined)
}

async fn load(inner: &Arc<Inner>, run: &RunId) -> Result<Option<RunSnapshot>, Halt> {
    let dropped = inner.table().dropped.remove(run);
    if dropped {
        // Whoever wrote before was dropped, maybe in the middle of a write, which lands before
        // this one does.
        inner.journal.append(Vec::new()).await.map_err(RuntimeError::from)?;
    }
    inner.journal.load(run).await.map_err(|error| match error.kind() {
        JournalErrorKind::Damaged => Halt::Quarantined(with_sources(&error)),
        _ => Halt::Journal(error.into()),
    })
}

/// `error` and its causes, as one text.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// The machine of `snapshot`, and the snapshot as that machine's version understands it; or why
/// the run cannot be continued here.
pub(super) async fn adopt(inner: &Arc<Inner>, mut snapshot: RunSnapshot) -> Result<Opened, String> {
    let registered = inner.registered(&snapshot.machine);
    // Nothing is asked of the state of a run that has ended.
    let registered = match (registered, snapshot.end()) {
        (Some(registered), Some(_)) => {
            return Ok(Opened::Here(registered, Box::new(snapshot)));
        }
        (None, Some(end)) => return Ok(Opened::Ended(end, Family::parent_of(&snapshot))),
        (None, None) => return Err(format!("machine `{}` is not registered", snapshot.machine)),
        (Some(registered), None) => registered,
    };
    translate(&registered, &mut snapshot).await?;
    if registered.machine.graph().state(&snapshot.state).is_none() {
        return Err(format!("it is in the unknown state `{}`", snapshot.state));
    }
    Ok(Opened::Here(registered, Box::new(snapshot)))
}

/// Makes `snapshot` one that the version of the machine that is here understands; or says why that
/// cannot be.
pub(super) async fn translate(
    registered: &Registered,
    snapshot: &mut RunSnapshot,
) -> Result<(), String> {
    let version = registered.machine.graph().version;
    if version == snapshot.version {
        return Ok(());
    }
    let (state, data) = (snapshot.state.clone(), snapshot.data.clone());
    let migrate = async { registered.machine.migrate(snapshot.version, state, data).await };
    let migrated: Result<(String, Data), Fault> = AssertUnwindSafe(migrate)
        .catch_unwind()
        .await
        .unwrap_or_else(|payload| Err(panicked(payload)));
    (snapshot.state, snapshot.data) = migrated.map_err(|fault| fault.to_string())?;
    snapshot.version = version;
    Ok(())
}

pub(super) fn abandoned(reason: &str) -> Fault {
    Fault::user("run.abandoned", reason)
}

impl Inner {
    /// Keeps in mind, and tells, that `run` cannot be continued here.
    pub(super) fn quarantine(&self, run: &RunId, why: String) -> RuntimeError {
        tracing::warn!(%run, why, "the run is quarantined");
        self.table().quarantined.insert(run.clone(), why.clone());
        self.tell(run, RunEvent::Quarantined(why.clone()));
        RuntimeError::new(RuntimeErrorKind::Quarantined, format!("{run}: {why}"))
    }

    /// Whether a task drives `run`, or it waits for one.
    pub(super) fn is_here(&self, run: &RunId) -> bool {
        self.table().runs.contains_key(run)
    }

    /// Whether `run` could not be continued here when that was last tried.
    pub(super) fn is_quarantined(&self, run: &RunId) -> bool {
        self.table().quarantined.contains_key(run)
    }

    /// Takes the place of `run` without a task, unless it is here.
    pub(super) fn claim(self: &Arc<Self>, run: &RunId) -> Result<Option<Claimed>, RuntimeError> {
        let mut table = self.table();
        if table.stopping {
            return Err(RuntimeError::new(RuntimeErrorKind::Stopped, run.as_str()));
        }
        if table.runs.contains_key(run) {
            return Ok(None);
        }
        let wakened = table.work(run, Cue::interrupted());
        drop(table);
        let inner = Arc::clone(self);
        Ok(Some(Claimed { inner, wakened: Some(wakened), writes: false }))
    }
}

/// A run that nobody drives and nobody else takes up.
pub(super) struct Claimed {
    inner: Arc<Inner>,
    wakened: Option<Wakened>,
    writes: bool,
}

impl Claimed {
    /// From here on a write may be on its way, also when this is dropped.
    pub(super) fn begin_to_write(&mut self) {
        self.writes = true;
    }

    /// The run has ended: whoever asked meanwhile hears of it.
    pub(super) fn ended(mut self, end: &End) {
        let Some(wakened) = self.wakened.take() else { return };
        let waiters = {
            let mut table = self.inner.table();
            table.quarantined.remove(&wakened.run);
            table.remove(&wakened.run)
        };
        for waiter in waiters {
            let _ = waiter.send(Ok(end.clone()));
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let Some(mut wakened) = self.wakened.take() else { return };
        let mut table = self.inner.table();
        if self.writes {
            table.dropped.insert(wakened.run.clone());
        }
        if let Ok(command) = wakened.inbox.try_recv() {
            drop(table);
            // Somebody asks for the run, so it is to go on.
            let _ = wakened.commands.unbounded_send(command);
            self.inner.spawn(wakened, Opening::Known, None);
        } else if let Some(Slot::Working(_)) = table.runs.get(&wakened.run) {
            drop(table.remove(&wakened.run));
        }
    }
}
