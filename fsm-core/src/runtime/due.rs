//! What a run that stands in a state is to do next: a pure decision.

use super::{cue::Cue, deadline::Deadline};
use crate::{Cancel, RunSnapshot, StateInfo, Status, Timestamp};

/// What is to be done with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Its deadline has passed, and that is to be recorded.
    Deadline,
    /// A request to cancel is to be delivered.
    Cancel,
    /// Its children are to be asked to stop, and their ends waited for, before a request to cancel
    /// is delivered.
    CancelChildren,
    /// Its state is to be called.
    Call,
    /// Nothing, before this.
    Later(Later),
}

/// What a run waits for, beside whatever somebody may ask of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Later {
    /// When to look again; `None` for never.
    pub(super) at: Option<Timestamp>,
    /// Whether a clock that is set back may end the wait.
    pub(super) retries: bool,
    /// Whether no step can have been begun in the state that has not answered, by the journal.
    pub(super) untouched: bool,
}

/// Decides what is next for a run that has not ended, in a state that is not terminal.
pub(super) fn due(snapshot: &RunSnapshot, state: &StateInfo, cue: &Cue, now: Timestamp) -> Due {
    let carried = &snapshot.carried;
    if carried.deadline.is_some_and(|deadline| now >= deadline) {
        return Due::Deadline;
    }
    let later = |at: Option<Timestamp>, retries, untouched| {
        // Whatever it waits for, its deadline comes first.
        let at = carried.deadline.into_iter().chain(at).min();
        Due::Later(Later { at, retries, untouched })
    };
    let exhausted = cue.is_exhausted();
    if matches!(snapshot.status, Status::Paused(_)) && !exhausted {
        return later(None, false, snapshot.between_steps);
    }
    let cancelled = is_cancelled(snapshot, state);
    if cancelled && waits_for_children(snapshot, state) {
        return if cue.cascaded { later(None, false, false) } else { Due::CancelChildren };
    }
    if !cancelled && !exhausted {
        if let Some(wait) = journaled(snapshot).filter(|wait| !wait.is_over(now)) {
            return later(Some(wait.at()), snapshot.attempts > 0, true);
        }
        if let Some(until) = signal_or_child(snapshot, state, now) {
            return later(until, false, true);
        }
    }
    if let Some(pause) = cue.pause.filter(|pause| !pause.is_over(now)) {
        return later(Some(pause.at()), true, false);
    }
    if cancelled { Due::Cancel } else { Due::Call }
}

/// Whether a request to cancel is to be delivered in `state`.
pub(super) fn is_cancelled(snapshot: &RunSnapshot, state: &StateInfo) -> bool {
    snapshot.carried.cancel.is_some() && state.cancel == Cancel::Deliver
}

fn waits_for_children(snapshot: &RunSnapshot, state: &StateInfo) -> bool {
    state.wait.as_ref().is_some_and(|wait| wait.children) && !childless(snapshot)
}

fn childless(snapshot: &RunSnapshot) -> bool {
    snapshot.carried.children.iter().all(|child| child.end.is_some())
}

/// The time that the state's step waits for, by the journal.
fn journaled(snapshot: &RunSnapshot) -> Option<Deadline> {
    let at = snapshot.wake_at?;
    // After a failed attempt it is so long a wait; after an entry, a time that the author chose.
    Some(snapshot.failed_at.map_or(Deadline::wall(at), |failed| Deadline::since(failed, at)))
}

/// Whether the time for all attempts at the state is over before the next one begins. The first
/// one always begins.
pub(super) fn is_out_of_time(snapshot: &RunSnapshot, state: &StateInfo, now: Timestamp) -> bool {
    let limit = state.retry.total_limit();
    snapshot.attempts > 0 && limit.is_some_and(|limit| now >= snapshot.counted_from + limit)
}

/// Until when the state still waits for a signal or its children; `None` if it does not.
fn signal_or_child(
    snapshot: &RunSnapshot,
    state: &StateInfo,
    now: Timestamp,
) -> Option<Option<Timestamp>> {
    let wait = state.wait.as_ref()?;
    let mut signals = snapshot.carried.signals.iter();
    if signals.any(|signal| wait.signals.contains(&signal.name))
        || (wait.children && childless(snapshot))
    {
        return None;
    }
    let limit = wait.at_most().map(|longest| snapshot.due + longest);
    if limit.is_some_and(|limit| now >= limit) { None } else { Some(limit) }
}
