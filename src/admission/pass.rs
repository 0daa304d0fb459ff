//! What an operation was admitted with: a permit whose capacity comes and goes.
//!
//! **How.** A permit has two halves. What it excludes stays until nothing of the operation can be
//! at work any more, and returns when the last who may be drops the [`Pass`]. Its capacity is
//! given back while nothing is at work for long, and taken again before the next step begins. One
//! lock decides between the two, so that no step begins on capacity that is just being given back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plugin_sdk::OperationId;
use throttle::{AcquireErrorKind, Permit};
use tokio::sync::{Mutex as AsyncMutex, watch};

use super::door::Door;

/// What an operation has, from its admission until nothing of it can be at work.
#[derive(Debug)]
pub(crate) struct Pass {
    operation: OperationId,
    door: Door,
    permit: Permit,
    state: Mutex<State>,
    /// One at a time takes capacity again, for all who need it.
    taking: AsyncMutex<()>,
    activity: watch::Sender<Activity>,
}

#[derive(Debug, Default)]
struct State {
    /// The capacity is given back.
    is_away: bool,
    /// The operation is being cancelled: what it undoes does not wait for capacity.
    is_excused: bool,
}

/// What is at work for an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    /// Steps that the runtime waits for.
    steps: u32,
    /// Steps that are in the plugin; also those that nobody waits for any more.
    jobs: u32,
    /// Counts every change.
    turn: u64,
}

/// Whether something is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A step is.
    Working,
    /// A step was given up and has not let go yet.
    LettingGo,
    /// Nothing is.
    Idle,
}

/// Whether capacity was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It was.
    Before,
    /// It had been given back, and is there again.
    Again,
}

impl Activity {
    pub(crate) fn standing(self) -> Standing {
        match (self.steps, self.jobs) {
            (0, 0) => Standing::Idle,
            (0, _) => Standing::LettingGo,
            _ => Standing::Working,
        }
    }
}

impl Pass {
    /// A pass with all that `permit` has.
    pub(crate) fn new(operation: OperationId, door: Door, permit: Permit) -> Arc<Self> {
        Self::with(operation, door, permit, State::default())
    }

    /// A pass whose permit may have given its capacity back.
    pub(crate) fn away(operation: OperationId, door: Door, permit: Permit) -> Arc<Self> {
        Self::with(operation, door, permit, State { is_away: true, is_excused: false })
    }

    fn with(operation: OperationId, door: Door, permit: Permit, state: State) -> Arc<Self> {
        let (state, taking) = (Mutex::new(state), AsyncMutex::default());
        let activity = watch::Sender::new(Activity::default());
        Arc::new(Pass { operation, door, permit, state, taking, activity })
    }

    pub(crate) fn operation(&self) -> &OperationId {
        &self.operation
    }

    /// What is at work, from now on.
    pub(crate) fn activity(&self) -> watch::Receiver<Activity> {
        self.activity.subscribe()
    }

    /// Waits until the capacity is there, unless the operation is being cancelled: what was half
    /// done is then undone without delay.
    pub(crate) async fn take_unless_excused(&self) -> Taken {
        if self.state().is_excused {
            return Taken::Before;
        }
        self.take().await
    }

    /// Waits until the capacity is there.
    pub(crate) async fn take(&self) -> Taken {
        let _turn = self.taking.lock().await;
        {
            let state = self.state();
            if !state.is_away {
                self.changed(|_| {});
                return Taken::Before;
            }
        }
        let taken = match self.door.reacquire(&self.permit).await {
            Ok(()) => Taken::Again,
            // An operator has taken the permit away, and knows why.
            Err(error) if *error.kind() == AcquireErrorKind::Released => Taken::Before,
            // The engine stops, and with it whoever waits here.
            Err(_) => std::future::pending().await,
        };
        let mut state = self.state();
        state.is_away = false;
        self.changed(|_| {});
        taken
    }

    /// Gives the capacity back if nothing has changed since `seen`. False if there was nothing to
    /// give.
    pub(crate) fn give_back_since(&self, seen: Activity) -> bool {
        self.give_back_if(|now| now.turn == seen.turn)
    }

    /// Gives the capacity back, unless a step works with it.
    pub(crate) fn give_back(&self) -> bool {
        self.give_back_if(|now| now.steps == 0)
    }

    fn give_back_if(&self, may: impl FnOnce(Activity) -> bool) -> bool {
        let mut state = self.state();
        if state.is_away || !may(*self.activity.borrow()) {
            return false;
        }
        state.is_away = true;
        self.permit.release_capacity();
        true
    }

    /// From now on steps begin without capacity: the operation is being cancelled.
    pub(crate) fn excuse(&self) {
        self.state().is_excused = true;
    }

    /// A step begins, and works until what is returned is dropped.
    pub(crate) fn step(self: &Arc<Self>) -> AtWork {
        self.changed(|activity| activity.steps += 1);
        AtWork { pass: Arc::clone(self), what: What::Step }
    }

    /// A step is in the plugin until what is returned is dropped.
    pub(crate) fn job(self: &Arc<Self>) -> AtWork {
        self.changed(|activity| activity.jobs += 1);
        AtWork { pass: Arc::clone(self), what: What::Job }
    }

    fn changed(&self, change: impl FnOnce(&mut Activity)) {
        self.activity.send_modify(|activity| {
            change(activity);
            activity.turn += 1;
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that is at work for an operation.
#[derive(Debug)]
pub(crate) struct AtWork {
    pass: Arc<Pass>,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Step,
    Job,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let what = self.what;
        self.pass.changed(|activity| match what {
            What::Step => activity.steps -= 1,
            What::Job => activity.jobs -= 1,
        });
    }
}
