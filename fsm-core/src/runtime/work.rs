//! The task of a run: from what the journal says of it to its end, or to where it waits.

use std::{future::Future, sync::Arc};

use futures::channel::{mpsc, oneshot};

use super::{
    RuntimeError, RuntimeErrorKind,
    command::Command,
    cue::Cue,
    deadline::Deadline,
    drive::{Drive, Halt},
    due::Later,
    family::Family,
    handle::Ended,
    inner::Inner,
    open::{Opened, Opening, abandoned, open, with_sources},
    permit::Permit,
    table::{LaneId, Wakened},
};
use crate::{Body, Data, End, Ending, Record, RunEvent, RunId, StepKind};

type Inbox = mpsc::UnboundedReceiver<Command>;
type Waiters = Vec<oneshot::Sender<Ended>>;

/// A run's place in the table while a task drives it: given back when the task ends, also when
/// the executor drops it before its end, or before its beginning.
struct Place {
    inner: Arc<Inner>,
    run: RunId,
    held: bool,
}

impl Place {
    /// Gives the place back, unless somebody has asked something of the run meanwhile.
    fn leave(&mut self, inbox: &mut Inbox) -> Result<Waiters, Command> {
        let mut table = self.inner.table();
        if let Ok(command) = inbox.try_recv() {
            return Err(command);
        }
        self.held = false;
        Ok(table.remove(&self.run))
    }

    /// The journal could not take a record now: the run waits, and tries again from what the
    /// journal says.
    fn stall(&mut self, mut drive: Drive, error: RuntimeError) -> Left {
        let mut cue = std::mem::take(&mut drive.cue);
        cue.was_interrupted(StepKind::Run, self.inner.environment.now());
        self.stall_in(drive.registered.lane, cue, error)
    }

    /// The run waits in `lane` for its journal. Whoever waits for it, or has asked something of it,
    /// hears why.
    fn stall_in(&mut self, lane: LaneId, mut cue: Cue, error: RuntimeError) -> Left {
        let inner = Arc::clone(&self.inner);
        let end = Err(inner.halted(&self.run, Halt::Journal(error)));
        let now = inner.environment.now();
        cue.stalled = true;
        let later = Later { at: cue.pause.map(Deadline::at), retries: true, untouched: false };
        let mut table = inner.table();
        if table.stopping {
            drop(table);
            return Left { end, family: None, waiters: self.desert() };
        }
        self.held = false;
        let waiters = table.waiters.remove(&self.run).unwrap_or_default();
        let first = table.park(&self.run, lane, later, cue);
        drop(table);
        inner.put_aside(now, first);
        Left { end, family: None, waiters }
    }

    /// Gives the place back; what was asked is void.
    fn desert(&mut self) -> Waiters {
        self.held = false;
        self.inner.table().remove(&self.run)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.held {
            let mut table = self.inner.table();
            table.dropped.insert(self.run.clone());
            let waiters = table.remove(&self.run);
            drop(table);
            // Whoever waits hears that the runtime has stopped.
            drop(waiters);
        }
    }
}

/// How a run leaves the table.
struct Left {
    end: Result<End, RuntimeError>,
    /// Who is to hear that it has left, if it has ended.
    family: Option<Family>,
    waiters: Waiters,
}

/// Drives `wakened` until it ends or waits, and tells everybody.
pub(super) fn work(
    inner: Arc<Inner>,
    wakened: Wakened,
    opening: Opening,
    permit: Option<Permit>,
) -> impl Future<Output = ()> + Send {
    let place = Place { inner, run: wakened.run.clone(), held: true };
    async move {
        let (inner, run) = (Arc::clone(&place.inner), place.run.clone());
        let Some(Left { end, family, waiters }) = attend(place, wakened, opening, permit).await
        else {
            return;
        };
        let end = end.map_err(Arc::new);
        for waiter in waiters {
            // Nobody may be waiting.
            let _ = waiter.send(end.clone());
        }
        if let Some(family) = family {
            inner.tell_family(&run, family);
        }
    }
}

/// `None` if the run waits.
async fn attend(
    mut place: Place,
    wakened: Wakened,
    opening: Opening,
    permit: Option<Permit>,
) -> Option<Left> {
    let Wakened { mut cue, lane, commands, mut inbox, .. } = wakened;
    let inner = Arc::clone(&place.inner);
    match open(&inner, &place.run, &mut cue, opening).await {
        Ok(Opened::Here(registered, snapshot)) => {
            let channel = (commands, inbox);
            let drive = Drive::new(inner, registered, *snapshot, cue, channel, permit);
            drive_to_end(&mut place, drive).await
        }
        Ok(Opened::Ended(end, family)) => {
            drop(permit);
            let waiters = loop {
                match place.leave(&mut inbox) {
                    Ok(waiters) => break waiters,
                    Err(command) => refuse_redrive(&place.run, command, end.ending),
                }
            };
            Some(Left { end: Ok(end), family: Some(family), waiters })
        }
        Err(Halt::Journal(error)) if error.is_retryable() && lane.is_some() => {
            cue.wait_longer(inner.environment.now());
            lane.map(|lane| place.stall_in(lane, cue, error))
        }
        Err(halt) => {
            drop(permit);
            Some(leave_unread(&mut place, inbox, halt).await)
        }
    }
}

async fn drive_to_end(place: &mut Place, mut drive: Drive) -> Option<Left> {
    let (mut told, mut is_news) = (drive.snapshot.seq, false);
    loop {
        let end = match drive.until_end().await {
            Ok(end) => end,
            Err(Halt::Parked) => {
                // Somebody else may have woken it already; the place is not this task's any more.
                place.held = false;
                return None;
            }
            Err(Halt::Journal(error)) if error.is_retryable() => {
                return Some(place.stall(drive, error));
            }
            Err(halt) => {
                let error = place.inner.halted(&place.run, halt);
                return Some(Left { end: Err(error), family: None, waiters: place.desert() });
            }
        };
        if drive.snapshot.seq != told {
            (told, is_news) = (drive.snapshot.seq, true);
            place.inner.tell(&place.run, RunEvent::Ended(end.clone()));
        }
        match place.leave(&mut drive.inbox) {
            Ok(waiters) => {
                let snapshot = &drive.snapshot;
                let family =
                    if is_news { Family::of(snapshot) } else { Family::parent_of(snapshot) };
                return Some(Left { end: Ok(end), family: Some(family), waiters });
            }
            // It has ended, and there is nothing left to stop.
            Err(Command::Stop) => {}
            Err(command) => {
                if let Err(halt) = drive.serve(Some(command)).await {
                    let error = place.inner.halted(&place.run, halt);
                    return Some(Left { end: Err(error), family: None, waiters: place.desert() });
                }
            }
        }
    }
}

/// What a run that has ended, and whose machine is not here, says to an operator who wants it to
/// go on. Others hear that it has ended.
fn refuse_redrive(run: &RunId, command: Command, ending: Ending) {
    if let Command::Redrive { done } = command {
        let kind = match ending {
            Ending::Failed => RuntimeErrorKind::Quarantined,
            _ => RuntimeErrorKind::NotFailed,
        };
        let _ = done.send(Err(RuntimeError::new(kind, run.as_str())));
    }
}

/// A run that cannot be continued here leaves, unless an operator wants to be rid of it; then it
/// ends.
async fn leave_unread(place: &mut Place, mut inbox: Inbox, halt: Halt) -> Left {
    let mut given_up = None;
    while let Ok(command) = inbox.try_recv()
        && given_up.is_none()
    {
        given_up = give_up(place, command).await;
    }
    let error = given_up.is_none().then(|| place.inner.halted(&place.run, halt));
    let waiters = loop {
        match place.leave(&mut inbox) {
            Ok(waiters) => break waiters,
            Err(command) if given_up.is_none() => given_up = give_up(place, command).await,
            Err(_) => {}
        }
    };
    match (given_up, error) {
        (None, Some(error)) => Left { end: Err(error), family: None, waiters },
        (given_up, _) => {
            let (end, family) = given_up.unwrap_or_else(|| unreachable!("it was given up"));
            Left { end: Ok(end), family: Some(family), waiters }
        }
    }
}

async fn give_up(place: &Place, command: Command) -> Option<(End, Family)> {
    let Command::Abandon { reason, done } = command else { return None };
    let (inner, run) = (&place.inner, &place.run);
    match end_unread(inner, run, &reason).await {
        Ok((end, family)) => {
            inner.table().quarantined.remove(run);
            let _ = done.send(Ok(()));
            inner.tell(run, RunEvent::Ended(end.clone()));
            Some((end, family))
        }
        Err(error) => {
            let _ = done.send(Err(error));
            None
        }
    }
}

async fn end_unread(
    inner: &Arc<Inner>,
    run: &RunId,
    reason: &str,
) -> Result<(End, Family), RuntimeError> {
    let unknown = || RuntimeError::new(RuntimeErrorKind::UnknownRun, run.as_str());
    let seq = inner.journal.head(run).await?.ok_or_else(unknown)? + 1;
    let (ending, fault) = (Ending::Abandoned, abandoned(reason));
    let body = Body::End { ending, fault: Some(fault.clone()) };
    let at = inner.environment.now();
    inner.journal.append(vec![Record { run: run.clone(), seq, at, body }]).await?;
    // Its machine may be all that is missing; then its family hears of it.
    let read = inner.journal.load(run).await.ok().flatten();
    let read = read.and_then(|snapshot| Some((snapshot.end()?, Family::of(&snapshot))));
    Ok(read.unwrap_or_else(|| {
        let (state, data) = (String::new(), Data::default());
        (End { ending, state, data, fault: Some(fault) }, Family::default())
    }))
}

impl Inner {
    /// Tells that the task of `run` ends before the run does.
    fn halted(&self, run: &RunId, halt: Halt) -> RuntimeError {
        match halt {
            Halt::Parked | Halt::Stopped => {
                RuntimeError::new(RuntimeErrorKind::Stopped, run.as_str())
            }
            Halt::Unknown => RuntimeError::new(RuntimeErrorKind::UnknownRun, run.as_str()),
            Halt::Journal(error) => {
                let why = with_sources(&error);
                tracing::error!(%run, why, "the run stands still");
                self.tell(run, RunEvent::Stalled(why));
                error
            }
            Halt::Quarantined(why) => self.quarantine(run, why),
        }
    }
}
