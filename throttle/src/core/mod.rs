//! The decisions: events in, actions out.
//!
//! **Promise.** No clock, no I/O, no waker and no lock: the time is an argument, and what
//! has to happen outside is returned as an [`Action`]. The same events at the same times
//! lead to the same actions.
//!
//! **How.** A waiter is parked at its *witness*, the first of its needs that cannot be met.
//! After each event the sites that gained something are asked for the first parked waiter
//! that can pass there; it is examined in full and either granted or parked at its new
//! witness. Hence after every event no witness can be met, and nobody is overlooked.

mod absence;
mod capacity;
mod counters;
mod describe;
mod draft;
mod exclusion_site;
mod groups;
#[cfg(test)]
mod leftovers;
mod limit_site;
mod line;
mod members;
mod parties;
mod prepared;
mod request_state;
mod requests;
mod rulebook;
mod settle;
mod submit;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::counters::Counters;
use self::exclusion_site::ExclusionSite;
use self::limit_site::LimitSite;
use self::line::Line;
pub(crate) use self::members::{Claimed, Joined};
use self::parties::PartyState;
use self::prepared::PreparedDrafts;
pub(crate) use self::prepared::PreparedIndex;
use self::request_state::{Needs, Record, Site};
use self::requests::Requests;
use self::rulebook::{LimitKey, LimitName, Rulebook};
use self::table::Table;
use crate::acquire_error::{AcquireError, AcquireErrorKind};
use crate::clock::Instant;
use crate::limits::Limits;
use crate::policy::{CompiledPolicy, PolicyError};
use crate::request::Request;
use crate::request_id::RequestId;
use crate::resource::Resource;

/// What has to happen outside after an event.
#[derive(Debug)]
pub(crate) enum Action {
    /// A waiting request was granted; it is a permit now.
    Grant(RequestId),
    /// A waiting request was given up.
    Fail(RequestId, AcquireError),
    /// A grant was taken back because nobody came for it; the request waits again.
    Revoke(RequestId),
}

/// What became of a request that was handed in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Submitted {
    Granted(RequestId),
    Queued(RequestId),
}

/// What to do with a request that cannot be granted at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    Refuse,
}

/// Which part of what was held before a restart is taken back at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adopted {
    Everything,
    /// Capacity is left to be acquired again.
    Exclusions,
}

/// Since when requests are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// From the beginning.
    AtOnce,
    /// Once what there was before a restart has been adopted.
    AfterAdoption,
}

/// How many records are kept for the next requests.
const SPARE_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Core {
    rules: Rulebook,
    exclusions: Table<Resource, ExclusionSite>,
    limits: Table<LimitName, LimitSite>,
    /// Owners and root operations.
    parties: Table<Arc<str>, PartyState>,
    requests: Requests,
    /// Records of requests that are over, so that the next ones need no allocation.
    #[expect(clippy::vec_box, reason = "they are kept for the sake of their boxes")]
    spare: Vec<Box<Record>>,
    prepared: PreparedDrafts,
    /// The waiters whose root operation holds exclusions. There are few of them, and they
    /// follow rules of their own at exclusions, so they are looked at one by one.
    borrowers: BTreeSet<RequestId>,
    /// The waiters that may use what a permit holds already. They are few, too.
    capacity_borrowers: BTreeSet<RequestId>,
    deadlines: BTreeSet<(Instant, RequestId)>,
    /// The grants that nobody came for yet, by when they are taken back.
    unclaimed: Line<(Instant, RequestId)>,
    now: Instant,
    is_open: bool,
    is_closed: bool,
    counters: Counters,
    /// The sites that gained something and were not asked yet.
    gained: Vec<Site>,
    actions: Vec<Action>,
}

impl Core {
    pub(crate) fn new(limits: Limits, opening: Opening) -> Self {
        let mut core = Self {
            rules: Rulebook::new(limits),
            exclusions: Table::new(),
            limits: Table::new(),
            parties: Table::new(),
            requests: Requests::new(),
            spare: Vec::new(),
            prepared: PreparedDrafts::default(),
            borrowers: BTreeSet::new(),
            capacity_borrowers: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            unclaimed: Line::new(),
            now: Instant::ORIGIN,
            is_open: opening == Opening::AtOnce,
            is_closed: false,
            counters: Counters::default(),
            gained: Vec::new(),
            actions: Vec::new(),
        };
        for (resource, limit) in core.rules.host_limits() {
            if let Ok(site) = core.refer_to_limit(&resource, &limit) {
                core.limits.get_mut(site).is_permanent = true;
            }
        }
        core
    }

    /// Whether anything has to happen outside.
    #[inline]
    pub(crate) fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// What has to happen outside since the last time this was asked.
    pub(crate) fn take_actions(&mut self) -> impl Iterator<Item = Action> + '_ {
        self.actions.drain(..)
    }

    /// Time has come to `now`: grants that nobody came for are taken back, and requests
    /// expire. Returns the next moment at which there is something to do.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<Instant> {
        self.now = self.now.max(now);
        self.revoke_unclaimed();
        self.advance(now);
        self.next_tick()
    }

    /// Time has come to `now`: requests expire.
    #[inline(always)]
    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.deadlines.first().is_some_and(|&(deadline, _)| deadline <= self.now) {
            self.expire();
        }
    }

    #[cold]
    fn expire(&mut self) {
        let mut departed = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= self.now
        {
            self.deadlines.remove(&(deadline, id));
            let group = self.requests.group(id);
            let found = (self.requests.absentee(group), self.requests.waiter(group));
            let (blocked_by, waiter) = match found {
                (Some(absentee), _) => (None, &*absentee.waiter),
                (None, Some(waiter)) => (self.first_blocker(waiter), waiter),
                (None, None) => continue,
            };
            let waited = self.now.since(waiter.since);
            let kind = AcquireErrorKind::Expired { waited, blocked_by };
            let Some(member) = waiter.members.get(id) else { continue };
            let error = AcquireError::new(self.party_name(member.owner), kind);
            let needs = waiter.needs.clone();
            self.actions.push(Action::Fail(id, error));
            self.count(&needs, |counts| counts.expired += 1);
            departed.extend(self.part_from_waiter(id));
        }
        self.settle();
        for waiter in departed {
            self.retire(waiter);
        }
    }

    /// A workload declares its policy.
    pub(crate) fn register(
        &mut self,
        workload: &str,
        policy: CompiledPolicy,
    ) -> Result<(), PolicyError> {
        self.rules.register(workload, policy)?;
        // Capacities may have become smaller, which lets nobody pass.
        for slot in self.limits.slots() {
            self.refresh_capacity(slot);
        }
        self.settle();
        Ok(())
    }

    /// A workload declares another policy. Holders keep what they hold.
    pub(crate) fn replace(
        &mut self,
        workload: &str,
        policy: CompiledPolicy,
    ) -> Result<(), PolicyError> {
        self.rules.replace(workload, policy)?;
        for slot in self.limits.slots() {
            self.refresh_capacity(slot);
        }
        // What a waiter waits for may have become another of its needs.
        let waiting: Vec<_> =
            self.requests.waiters().iter().map(|waiter| waiter.place.id).collect();
        for id in waiting {
            let waiter = self.waiter(id);
            let witness = self.first_failing(&waiter.needs, waiter.place, waiter.party);
            let witness = witness.unwrap_or(waiter.witness);
            self.unpark(id);
            self.park(id, witness);
        }
        for slot in self.exclusions.slots() {
            self.gain(Site::Exclusion(slot));
        }
        self.settle();
        Ok(())
    }

    /// Somebody takes back what it held before a restart, whatever the limits say.
    pub(crate) fn adopt(
        &mut self,
        request: &Request,
        part: Adopted,
        now: Instant,
    ) -> Result<RequestId, AcquireError> {
        self.advance(now);
        let refused = |kind| AcquireError::new(request.owner(), kind);
        if self.is_closed {
            return Err(refused(AcquireErrorKind::Closed));
        }
        let draft = self.draft(request)?;
        let conflicts = self.conflicts(&draft);
        if !conflicts.is_empty() {
            self.forget_draft(&draft);
            return Err(refused(AcquireErrorKind::Conflicting { conflicts }));
        }
        let mut record = self.blank_record();
        record.party = draft.party;
        (record.needs, record.given_up) = match part {
            Adopted::Everything => (draft.needs, Needs::new()),
            Adopted::Exclusions => {
                draft.needs.into_iter().partition(|need| need.capacity().is_none())
            }
        };
        self.add_first_member(&mut record);
        self.give_place(&mut record, request, draft.head_start);
        record.members.values_mut().for_each(|member| member.is_claimed = true);
        let id = record.place.id;
        self.grant(record);
        self.settle();
        Ok(id)
    }

    /// A waiting request is given up by whoever made it.
    pub(crate) fn cancel(&mut self, id: RequestId) {
        let waiter = self.part_from_waiter(id);
        if let Some(waiter) = &waiter {
            self.count(&waiter.needs, |counts| counts.cancelled += 1);
        }
        if !cfg!(mutant = "cancel_examines_nobody") {
            self.settle();
        }
        if let Some(waiter) = waiter {
            self.retire(waiter);
        }
    }

    /// A permit, or a share of it, is given back.
    pub(crate) fn release(&mut self, id: RequestId) {
        if let Some(holder) = self.requests.take_only_holder(id) {
            self.strike_out(&holder);
            self.end(holder);
            return;
        }
        let group = self.requests.group(id);
        if self.requests.holder(group).is_none() {
            return;
        }
        match self.part_from_holder(id) {
            true => _ = self.force_release(group),
            false => self.settle(),
        }
    }

    /// A permit is given back, whoever has it. False if there is none.
    pub(crate) fn force_release(&mut self, id: RequestId) -> bool {
        let Some(holder) = self.take_out(id) else { return false };
        for (member, _) in holder.members.iter() {
            self.requests.remove_follower(member);
        }
        self.end(holder);
        true
    }

    /// Everything that a permit was for is given back.
    fn end(&mut self, mut holder: Box<Record>) {
        self.give_back(holder.place.id, &mut holder);
        self.settle();
        self.retire(holder);
    }

    /// The host changes its number for a limit.
    pub(crate) fn set_capacity(&mut self, resource: &Resource, limit: &str, capacity: u32) {
        let key = LimitKey(resource, limit);
        self.is_closed &= !cfg!(mutant = "resize_reopens");
        self.rules.set_capacity(key.to_name(), capacity);
        if let Some(slot) = self.limits.find(&key) {
            self.refresh_capacity(slot);
            self.settle();
        }
    }

    /// Nobody is admitted any more.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        let waiting: Vec<_> =
            self.requests.waiters().iter().map(|waiter| waiter.place.id).collect();
        for id in waiting {
            let waiter = self.leave(id);
            self.ungain_all();
            self.fail(&waiter, &AcquireErrorKind::Closed);
            self.retire(waiter);
        }
        let absent = self.requests.absentees();
        let absent: Vec<_> = absent.iter().map(|absentee| absentee.waiter.place.id).collect();
        for id in absent {
            if let Some(absentee) = self.requests.take_absentee(id) {
                self.fail(&absentee.waiter, &AcquireErrorKind::Closed);
                self.retire(absentee.waiter);
            }
        }
    }

    /// Whether nobody holds a permit.
    pub(crate) fn is_drained(&self) -> bool {
        self.requests.is_drained()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// # Panics
    ///
    /// If the request does not wait in line.
    fn waiter(&self, id: RequestId) -> &Record {
        self.requests.waiter(id).expect("whoever is in a line waits")
    }

    fn waiter_mut(&mut self, id: RequestId) -> &mut Record {
        self.requests.waiter_mut(id).expect("whoever is in a line waits")
    }

    fn holder(&self, id: RequestId) -> &Record {
        self.requests.holder(id).expect("whoever is listed as a holder holds something")
    }

    /// A record to write a request into.
    fn blank_record(&mut self) -> Box<Record> {
        self.spare.pop().unwrap_or_else(Record::blank)
    }

    /// Ends the references of a request that is over, and keeps its record for another one.
    fn retire(&mut self, mut record: Box<Record>) {
        if record.prepared.is_some() {
            let Some(spare) = self.prepared.give_back(record) else { return };
            record = spare;
        }
        self.forget(&record.needs);
        self.forget(&record.given_up);
        for (_, member) in record.members.iter() {
            self.parties.forget(member.owner);
        }
        self.forget_party(record.party);
        if self.spare.len() < SPARE_MAX {
            record.wipe();
            self.spare.push(record);
        }
    }
}
