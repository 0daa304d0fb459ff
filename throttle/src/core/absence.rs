//! Requests that are in no line for a while: before the opening, and after a grant that
//! nobody came for.

use super::request_state::{Absence, Absentee, Record, Waiter};
use super::requests::Entry;
use super::{Action, Core, Submitted};
use crate::acquire_error::{AcquireError, AcquireErrorKind};
use crate::clock::Instant;
use crate::request_id::RequestId;

impl Core {
    /// The host has adopted what there was; those who came meanwhile take their places.
    pub(crate) fn open(&mut self) {
        self.is_open = true;
        let absent = self.requests.absentees().into_iter();
        let early = absent.filter(|absentee| absentee.reason == Absence::NotOpen);
        let mut early: Vec<_> = early.map(|absentee| absentee.waiter.place).collect();
        early.sort_unstable();
        for place in early {
            let Some(Absentee { waiter, .. }) = self.requests.take_absentee(place.id) else {
                continue;
            };
            if let Err(error) = self.check_rejections(&waiter.needs, waiter.party) {
                self.count(&waiter.needs, |counts| counts.rejected += 1);
                self.fail(&waiter, error.kind());
                self.retire(waiter);
                continue;
            }
            self.return_to_line(waiter);
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Somebody came after the grant was revoked: the request is in line again.
    pub(crate) fn rejoin(&mut self, member: RequestId) {
        let id = self.requests.group(member);
        let absentee = self.requests.absentee(id);
        if absentee.is_some_and(|absentee| absentee.reason == Absence::Unclaimed)
            && let Some(absentee) = self.requests.take_absentee(id)
        {
            self.return_to_line(absentee.waiter);
        }
    }

    /// Puts a request aside that waits for the opening.
    pub(super) fn put_aside(&mut self, waiter: Waiter, reason: Absence) {
        self.add_deadlines(&waiter);
        let id = waiter.place.id;
        self.requests.insert(id, Entry::Absentee(Absentee { waiter, reason }));
    }

    /// Takes back every permit that nobody came for in time.
    ///
    /// Its request gets no second grant before somebody comes for it: at its old place it
    /// would be the first to be granted again, and would keep everybody else waiting.
    pub(super) fn revoke_unclaimed(&mut self) {
        let mut is_any = false;
        while let Some((revoke_at, id)) = self.unclaimed.first()
            && revoke_at <= self.now
        {
            self.unclaimed.remove(&(revoke_at, id));
            let Some(mut holder) = self.take_out(id) else { continue };
            let Some(unclaimed) = holder.unclaimed.take() else { continue };
            self.give_back(id, &mut holder);
            self.count(&holder.needs, |counts| counts.revoked += 1);
            self.actions.extend(holder.members.iter().map(|(id, _)| Action::Revoke(id)));
            holder.since = unclaimed.waiting_since;
            holder.witness = 0;
            self.put_aside(holder, Absence::Unclaimed);
            is_any = true;
        }
        if is_any {
            self.settle();
        }
    }

    /// The next moment at which [`Core::tick`] has something to do.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|&(at, _)| at);
        let revocation = self.unclaimed.first().map(|(at, _)| at);
        deadline.into_iter().chain(revocation).min()
    }

    /// Lets a request start, or gives it its place in line.
    pub(super) fn start_or_enter(&mut self, mut waiter: Waiter) -> Submitted {
        match self.first_failing(&waiter.needs, waiter.place, waiter.party) {
            None => {
                self.count(&waiter.needs, |counts| counts.granted_at_once(1));
                self.start(waiter)
            }
            Some(witness) => {
                waiter.witness = witness;
                let id = waiter.place.id;
                self.enter(waiter);
                Submitted::Queued(id)
            }
        }
    }

    /// Lets a request start that did not wait.
    pub(super) fn start(&mut self, mut waiter: Waiter) -> Submitted {
        let id = waiter.place.id;
        waiter.members.values_mut().for_each(|member| member.is_claimed = true);
        self.grant(waiter);
        self.settle();
        Submitted::Granted(id)
    }

    fn return_to_line(&mut self, mut waiter: Waiter) {
        // From its place in line it is granted like everybody else.
        let witness = self.first_failing(&waiter.needs, waiter.place, waiter.party);
        let id = waiter.place.id;
        waiter.witness = witness.unwrap_or(0);
        self.enter(waiter);
        if witness.is_none() {
            self.examine(id);
            self.settle();
        }
    }

    /// Nobody of those who wait gets the permit.
    pub(super) fn fail(&mut self, waiter: &Record, kind: &AcquireErrorKind) {
        self.remove_deadlines(waiter);
        for (id, member) in waiter.members.iter() {
            self.requests.remove_follower(id);
            let error = AcquireError::new(self.party_name(member.owner), kind.clone());
            self.actions.push(Action::Fail(id, error));
        }
    }

    pub(super) fn add_deadlines(&mut self, waiter: &Record) {
        self.deadlines.extend(deadlines(waiter));
    }

    pub(super) fn remove_deadlines(&mut self, waiter: &Record) {
        for deadline in deadlines(waiter) {
            self.deadlines.remove(&deadline);
        }
    }
}

fn deadlines(waiter: &Record) -> impl Iterator<Item = (Instant, RequestId)> + '_ {
    waiter.members.iter().filter_map(|(id, member)| Some((member.deadline?, id)))
}
