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
mod limit_site;
mod members;
mod request_state;
mod rulebook;
mod settle;
mod submit;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::counters::Counters;
use self::exclusion_site::ExclusionSite;
use self::limit_site::LimitSite;
pub(crate) use self::members::Claimed;
use self::request_state::{Absentee, Holder, Site, Waiter};
use self::rulebook::{LimitName, Rulebook};
use self::submit::self_alone;
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

#[derive(Debug)]
pub(crate) struct Core {
    rules: Rulebook,
    exclusions: Table<Resource, ExclusionSite>,
    limits: Table<LimitName, LimitSite>,
    waiters: BTreeMap<RequestId, Waiter>,
    /// Requests that are in no line for now.
    absentees: BTreeMap<RequestId, Absentee>,
    holders: BTreeMap<RequestId, Holder>,
    /// The requests that are one with an earlier one, and that one.
    followers: BTreeMap<RequestId, RequestId>,
    /// How many permits each owner holds.
    holding_owners: BTreeMap<Arc<str>, usize>,
    /// How many permits with exclusions each root operation holds.
    holding_roots: BTreeMap<Arc<str>, usize>,
    /// The waiters of each root operation.
    waiting_roots: BTreeMap<Arc<str>, BTreeSet<RequestId>>,
    /// The waiters whose root operation holds exclusions. There are few of them, and they
    /// follow rules of their own at exclusions, so they are looked at one by one.
    borrowers: BTreeSet<RequestId>,
    /// The waiters that may use what a permit holds already. They are few, too.
    capacity_borrowers: BTreeSet<RequestId>,
    deadlines: BTreeSet<(Instant, RequestId)>,
    /// The grants that nobody came for yet, by when they are taken back.
    unclaimed: BTreeSet<(Instant, RequestId)>,
    now: Instant,
    next_id: u64,
    is_open: bool,
    is_closed: bool,
    counters: Counters,
    /// The sites that gained something and were not asked yet.
    gained: BTreeSet<Site>,
    actions: Vec<Action>,
}

impl Core {
    pub(crate) fn new(limits: Limits, opening: Opening) -> Self {
        Self {
            rules: Rulebook::new(limits),
            exclusions: Table::new(),
            limits: Table::new(),
            waiters: BTreeMap::new(),
            absentees: BTreeMap::new(),
            holders: BTreeMap::new(),
            followers: BTreeMap::new(),
            holding_owners: BTreeMap::new(),
            holding_roots: BTreeMap::new(),
            waiting_roots: BTreeMap::new(),
            borrowers: BTreeSet::new(),
            capacity_borrowers: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            unclaimed: BTreeSet::new(),
            now: Instant::ORIGIN,
            next_id: 0,
            is_open: opening == Opening::AtOnce,
            is_closed: false,
            counters: Counters::default(),
            gained: BTreeSet::new(),
            actions: Vec::new(),
        }
    }

    /// What has to happen outside since the last time this was asked.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
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
    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let mut departed = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= self.now
        {
            self.deadlines.remove(&(deadline, id));
            let group = self.group(id);
            let (blocked_by, waiter) = match (self.absentees.get(&group), self.waiters.get(&group))
            {
                (Some(absentee), _) => (None, &absentee.waiter),
                (None, Some(waiter)) => (self.first_blocker(waiter), waiter),
                (None, None) => continue,
            };
            let waited = self.now.since(waiter.since);
            let kind = AcquireErrorKind::Expired { waited, blocked_by };
            let error = AcquireError::new(&waiter.members[&id].owner, kind);
            self.actions.push(Action::Fail(id, error));
            let needs = waiter.needs.clone();
            self.count(&needs, |counts| counts.expired += 1);
            departed.extend(self.part_from_waiter(id));
        }
        if !departed.is_empty() {
            self.settle();
        }
        for waiter in departed {
            self.forget(&waiter.needs);
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
        for id in self.waiters.keys().copied().collect::<Vec<_>>() {
            let waiter = &self.waiters[&id];
            let witness = self.first_failing(&waiter.needs, waiter.place, &waiter.party);
            let witness = witness.unwrap_or(waiter.witness);
            self.unpark(id);
            self.park(id, witness);
        }
        self.gained.extend(self.exclusions.slots().into_iter().map(Site::Exclusion));
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
            return Err(refused(AcquireErrorKind::Conflicting { conflicts }));
        }
        let (party, priority) = (draft.party.clone(), draft.priority);
        let needs = self.place_needs(draft);
        let (exclusions, capacities): (Vec<_>, Vec<_>) =
            needs.into_iter().partition(|need| need.capacity().is_none());
        let (needs, given_up) = match part {
            Adopted::Everything => ([exclusions, capacities].concat(), Vec::new()),
            Adopted::Exclusions => (exclusions, capacities),
        };
        let place = self.new_place(request, priority);
        let mut members = self_alone(place.id, request);
        members.values_mut().for_each(|member| member.is_claimed = true);
        self.grant(party, needs, place, members);
        if let Some(holder) = self.holders.get_mut(&place.id) {
            holder.given_up = given_up;
        }
        self.settle();
        Ok(place.id)
    }

    /// A waiting request is given up by whoever made it.
    pub(crate) fn cancel(&mut self, id: RequestId) {
        if let Some(waiter) = self.part_from_waiter(id) {
            self.count(&waiter.needs, |counts| counts.cancelled += 1);
            if !cfg!(mutant = "cancel_examines_nobody") {
                self.settle();
            }
            self.forget(&waiter.needs);
        }
    }

    /// A permit, or a share of it, is given back.
    pub(crate) fn release(&mut self, id: RequestId) {
        let group = self.group(id);
        if self.part_from_holder(id) {
            self.force_release(group);
        }
    }

    /// A permit is given back, whoever has it. False if there is none.
    pub(crate) fn force_release(&mut self, id: RequestId) -> bool {
        let Some(mut holder) = self.take_out(id) else { return false };
        for member in holder.members.keys() {
            self.followers.remove(member);
        }
        self.give_back(id, &mut holder);
        self.settle();
        self.forget(&holder.needs);
        self.forget(&holder.given_up);
        true
    }

    /// The host changes its number for a limit.
    pub(crate) fn set_capacity(&mut self, resource: &Resource, limit: &str, capacity: u32) {
        let name = (resource.clone(), limit.to_owned());
        self.is_closed &= !cfg!(mutant = "resize_reopens");
        self.rules.set_capacity(name.clone(), capacity);
        if let Some(slot) = self.limits.find(&name) {
            self.refresh_capacity(slot);
            self.settle();
        }
    }

    /// Nobody is admitted any more.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        while let Some(&id) = self.waiters.keys().chain(self.absentees.keys()).next() {
            let waiter = match self.absentees.remove(&id) {
                Some(absentee) => absentee.waiter,
                None => self.leave(id),
            };
            self.fail(&waiter, &AcquireErrorKind::Closed);
            self.forget(&waiter.needs);
        }
        self.gained.clear();
    }

    /// Whether nobody holds a permit.
    pub(crate) fn is_drained(&self) -> bool {
        self.holders.is_empty()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn take_id(&mut self) -> RequestId {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        id
    }
}
