//! Every run that this process has taken up: at work, waiting, or in line for work.
//!
//! A run that waits is an entry here and rows in the journal; nothing else of it is kept in memory.
//! All of it is behind one short lock, which is never held while anything is waited for.

use std::collections::{BTreeMap, BTreeSet};

use futures::channel::{mpsc, oneshot};

use super::{command::Command, cue::Cue, due::Later, handle::Ended};
use crate::{RunId, Timestamp};

/// Where a run is in this process.
pub(super) enum Slot {
    /// A task drives it, and hears commands here.
    Working(mpsc::UnboundedSender<Command>),
    /// It waits: for a time, a signal, a child or an operator.
    Parked { timer: Option<(Timestamp, u64)>, lane: LaneId, cue: Option<Box<Cue>> },
    /// Its step runs once another one of its lane has made room; `ticket` is its place in line.
    Queued { ticket: u64, lane: LaneId, cue: Option<Box<Cue>> },
}

/// The index of a lane.
pub(super) type LaneId = u32;

/// The runs of one origin, of which so many may have a step at work at a time: a plugin whose
/// steps hang keeps its own runs waiting, and nobody else's.
#[derive(Default)]
pub(super) struct Lane {
    origin: String,
    working: usize,
    /// Those in line, by their tickets.
    queue: BTreeMap<u64, RunId>,
    /// Somebody is handing out places, and goes on until there is none left.
    dispatching: bool,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) runs: BTreeMap<RunId, Slot>,
    /// When parked runs are to be woken; `true` for those that a clock set back wakes too.
    pub(super) timers: BTreeMap<(Timestamp, u64), (RunId, bool)>,
    next_timer: u64,
    next_ticket: u64,
    lanes: Vec<Lane>,
    /// Who waits for a run's end.
    pub(super) waiters: BTreeMap<RunId, Vec<oneshot::Sender<Ended>>>,
    /// The runs that cannot be continued here, and why.
    pub(super) quarantined: BTreeMap<RunId, String>,
    /// The runs whose writer was dropped: a task by its executor, or whoever revoked the run.
    pub(super) dropped: BTreeSet<RunId>,
    /// How many runs have left: as long as it stands still, what was read of a run that is not
    /// here is what its journal says.
    pub(super) gone: u64,
    /// No task begins any more.
    pub(super) stopping: bool,
}

/// A run whose slot has just become [`Slot::Working`].
pub(super) struct Wakened {
    pub(super) run: RunId,
    pub(super) cue: Cue,
    /// Its lane, if it was here before.
    pub(super) lane: Option<LaneId>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) inbox: mpsc::UnboundedReceiver<Command>,
}

impl Table {
    /// The lane of `origin`.
    pub(super) fn lane(&mut self, origin: &str) -> LaneId {
        let known = self.lanes.iter().position(|lane| lane.origin == origin);
        let index = known.unwrap_or_else(|| {
            self.lanes.push(Lane { origin: origin.to_owned(), ..Lane::default() });
            self.lanes.len() - 1
        });
        index as LaneId
    }

    /// Gives `run` a task: a run that is not here yet, or one that waits.
    pub(super) fn work(&mut self, run: &RunId, otherwise: Cue) -> Wakened {
        let (commands, inbox) = mpsc::unbounded();
        let before = self.runs.insert(run.clone(), Slot::Working(commands.clone()));
        let (cue, lane) = match before {
            Some(Slot::Parked { timer, lane, cue }) => {
                timer.and_then(|timer| self.timers.remove(&timer));
                (cue.map_or_else(Cue::default, |cue| *cue), Some(lane))
            }
            Some(Slot::Queued { ticket, lane, cue }) => {
                self.lanes[lane as usize].queue.remove(&ticket);
                // Should it only serve a command, it comes back to its place.
                let cue = cue.map_or_else(Cue::default, |cue| *cue);
                (Cue { ticket: Some(ticket), ..cue }, Some(lane))
            }
            Some(Slot::Working(_)) | None => (otherwise, None),
        };
        Wakened { run: run.clone(), cue, lane, commands, inbox }
    }

    /// `run` waits. Answers whether its time comes before all others'.
    pub(super) fn park(&mut self, run: &RunId, lane: LaneId, later: Later, mut cue: Cue) -> bool {
        cue.ticket = None;
        let run = self.known(run);
        let timer = later.at.map(|at| {
            self.next_timer += 1;
            self.timers.insert((at, self.next_timer), (run.clone(), later.retries));
            (at, self.next_timer)
        });
        self.forget_deaf(&run);
        self.runs.insert(run, Slot::Parked { timer, lane, cue: boxed(cue) });
        timer.is_some() && self.timers.first_key_value().map(|(first, _)| *first) == timer
    }

    /// `run` as the table has it, so that one name is kept once.
    fn known(&self, run: &RunId) -> RunId {
        self.runs.get_key_value(run).map_or(run, |(known, _)| known).clone()
    }

    /// `run` gets in line, or back to its place there.
    pub(super) fn queue(&mut self, run: &RunId, lane: LaneId, mut cue: Cue) {
        let run = self.known(run);
        self.forget_deaf(&run);
        let ticket = cue.ticket.take().unwrap_or_else(|| self.ticket());
        self.lanes[lane as usize].queue.insert(ticket, run.clone());
        self.runs.insert(run, Slot::Queued { ticket, lane, cue: boxed(cue) });
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Moves each run whose time has come into its lane, and answers with the lanes. `set_back`
    /// says that the clock was.
    pub(super) fn wake_due(&mut self, now: Timestamp, set_back: bool) -> Vec<LaneId> {
        let later = self.timers.split_off(&(now, u64::MAX));
        let mut due = std::mem::replace(&mut self.timers, later);
        if set_back {
            let retries = self.timers.extract_if(.., |_, (_, retries)| *retries);
            due.extend(retries);
        }
        let mut lanes = Vec::new();
        for (run, _) in due.into_values() {
            let ticket = self.ticket();
            let Some(slot) = self.runs.get_mut(&run) else { continue };
            let Slot::Parked { lane, cue, .. } = slot else { continue };
            let (lane, cue) = (*lane, cue.take());
            *slot = Slot::Queued { ticket, lane, cue };
            self.lanes[lane as usize].queue.insert(ticket, run);
            if !lanes.contains(&lane) {
                lanes.push(lane);
            }
        }
        lanes
    }

    /// Takes a place among those at work in `lane`, if there is one.
    pub(super) fn enter(&mut self, lane: LaneId, limit: usize) -> bool {
        let lane = &mut self.lanes[lane as usize];
        // Who is in line comes first.
        let free = lane.working < limit && lane.queue.is_empty();
        lane.working += usize::from(free);
        free
    }

    /// Gives a place in `lane` back.
    pub(super) fn leave(&mut self, lane: LaneId) {
        self.lanes[lane as usize].working -= 1;
    }

    /// Whether the caller is the one who hands out places in `lane`, until
    /// [`next_in`](Table::next_in) says that none is left.
    pub(super) fn begin_to_dispatch(&mut self, lane: LaneId) -> bool {
        !std::mem::replace(&mut self.lanes[lane as usize].dispatching, true)
    }

    /// The next run in line, if there is a place for it, which it then has.
    pub(super) fn next_in(&mut self, lane: LaneId, limit: usize) -> Option<Wakened> {
        let stopping = self.stopping;
        let places = &mut self.lanes[lane as usize];
        let free = places.working < limit && !stopping;
        let Some((_, run)) = free.then(|| places.queue.pop_first()).flatten() else {
            places.dispatching = false;
            return None;
        };
        places.working += 1;
        let mut wakened = self.work(&run, Cue::default());
        wakened.cue.ticket = None;
        Some(wakened)
    }

    /// Takes `run` out, and answers with those who wait for its end.
    pub(super) fn remove(&mut self, run: &RunId) -> Vec<oneshot::Sender<Ended>> {
        self.gone += 1;
        self.runs.remove(run);
        self.waiters.remove(run).unwrap_or_default()
    }

    /// Nobody is woken any more: lets go of every run that has no task. Answers with those who
    /// waited for their ends.
    pub(super) fn clear(&mut self) -> Vec<oneshot::Sender<Ended>> {
        self.timers.clear();
        for lane in &mut self.lanes {
            lane.queue.clear();
        }
        self.runs.retain(|_, slot| matches!(slot, Slot::Working(_)));
        let runs = &self.runs;
        let deserted = self.waiters.extract_if(.., |run, _| !runs.contains_key(run));
        deserted.flat_map(|(_, waiters)| waiters).collect()
    }

    /// Forgets those who waited for the end of `run` and do no longer.
    pub(super) fn forget_deaf(&mut self, run: &RunId) {
        if let Some(waiters) = self.waiters.get_mut(run) {
            waiters.retain(|waiter| !waiter.is_canceled());
            if waiters.is_empty() {
                self.waiters.remove(run);
            }
        }
    }
}

fn boxed(cue: Cue) -> Option<Box<Cue>> {
    (!cue.is_default()).then(|| Box::new(cue))
}
