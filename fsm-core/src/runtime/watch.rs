//! Live events of runs, for whoever asks while they happen.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use futures::Stream;

use super::RunEvent;
use crate::RunId;

/// How many events wait for a watcher that does not keep up.
const BACKLOG_MAX: usize = 1_024;

/// The events of runs from the moment of [`Runtime::watch`](crate::Runtime::watch) on, as a stream
/// that ends when the runtime has stopped, or is gone.
///
/// A watcher never slows a run down: of one that does not keep up, the oldest events are dropped
/// and counted ([`Watched::Missed`]), and of reports of progress only the newest is kept.
pub struct Watch {
    backlog: Arc<Backlog>,
}

/// What a watcher sees.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Watched {
    /// Something has happened to a run.
    Event(RunId, RunEvent),
    /// This many events have been dropped, as nobody took them.
    Missed(u64),
}

struct Backlog {
    /// The run that is watched; all of them without one.
    run: Option<RunId>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    events: VecDeque<(RunId, RunEvent)>,
    missed: u64,
    closed: bool,
    waker: Option<Waker>,
}

impl Backlog {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, run: &RunId, event: &RunEvent) {
        if self.run.as_ref().is_some_and(|watched| watched != run) {
            return;
        }
        let waker = {
            let mut state = self.state();
            state.add(run, event);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn add(&mut self, run: &RunId, event: &RunEvent) {
        if let RunEvent::Progressed(_) = event {
            let last = self.events.iter_mut().rev().find(|(other, _)| other == run);
            if let Some((_, last @ RunEvent::Progressed(_))) = last {
                *last = event.clone();
                return;
            }
        }
        if self.events.len() == BACKLOG_MAX {
            self.events.pop_front();
            self.missed += 1;
        }
        self.events.push_back((run.clone(), event.clone()));
    }
}

/// All who watch.
#[derive(Default)]
pub(super) struct Watchers {
    watching: Mutex<Watching>,
}

#[derive(Default)]
struct Watching {
    backlogs: Vec<Weak<Backlog>>,
    closed: bool,
}

impl Watchers {
    pub(super) fn add(&self, run: Option<RunId>) -> Watch {
        let backlog = Arc::new(Backlog { run, state: Mutex::default() });
        let mut watching = self.lock();
        watching.backlogs.retain(|other| other.strong_count() > 0);
        watching.backlogs.push(Arc::downgrade(&backlog));
        backlog.state().closed = watching.closed;
        drop(watching);
        Watch { backlog }
    }

    pub(super) fn tell(&self, run: &RunId, event: &RunEvent) {
        for backlog in self.all() {
            backlog.push(run, event);
        }
    }

    /// Nothing happens any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        for backlog in self.all() {
            let waker = {
                let mut state = backlog.state();
                state.closed = true;
                state.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn all(&self) -> Vec<Arc<Backlog>> {
        self.lock().backlogs.iter().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Watching> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.close();
    }
}

impl Stream for Watch {
    type Item = Watched;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Watched>> {
        let mut state = self.backlog.state();
        if state.missed > 0 {
            return Poll::Ready(Some(Watched::Missed(std::mem::take(&mut state.missed))));
        }
        if let Some((run, event)) = state.events.pop_front() {
            return Poll::Ready(Some(Watched::Event(run, event)));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = self.backlog.run.as_ref().map_or("every run", RunId::as_str);
        write!(f, "Watch({run})")
    }
}
