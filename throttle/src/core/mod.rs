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

mod describe;
mod draft;
mod exclusion_site;
mod groups;
mod limit_site;
mod request_state;
mod rulebook;
mod settle;
mod table;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::exclusion_site::ExclusionSite;
use self::limit_site::LimitSite;
pub(crate) use self::request_state::RequestId;
use self::request_state::{Holder, Need, Place, Site, Waiter};
use self::rulebook::{LimitName, Rulebook};
use self::table::Table;
use crate::acquire_error::{AcquireError, AcquireErrorKind};
use crate::clock::Instant;
use crate::limits::Limits;
use crate::policy::{CompiledPolicy, PolicyError};
use crate::request::Request;
use crate::resource::Resource;

/// What has to happen outside after an event.
#[derive(Debug)]
pub(crate) enum Action {
    /// A waiting request was granted; it is a permit now.
    Grant(RequestId),
    /// A waiting request was given up.
    Fail(RequestId, AcquireError),
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

#[derive(Debug)]
pub(crate) struct Core {
    rules: Rulebook,
    exclusions: Table<Resource, ExclusionSite>,
    limits: Table<LimitName, LimitSite>,
    waiters: BTreeMap<RequestId, Waiter>,
    holders: BTreeMap<RequestId, Holder>,
    /// How many permits with exclusions each root operation holds.
    holding_roots: BTreeMap<Arc<str>, usize>,
    /// The waiters of each root operation.
    waiting_roots: BTreeMap<Arc<str>, BTreeSet<RequestId>>,
    /// The waiters whose root operation holds exclusions. There are few of them, and they
    /// follow rules of their own at exclusions, so they are looked at one by one.
    borrowers: BTreeSet<RequestId>,
    deadlines: BTreeSet<(Instant, RequestId)>,
    now: Instant,
    next_id: u64,
    is_closed: bool,
    /// The sites that gained something and were not asked yet.
    gained: BTreeSet<Site>,
    actions: Vec<Action>,
    /// How often a request was looked at, to see whether it can start.
    looks: Cell<u64>,
}

impl Core {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            rules: Rulebook::new(limits),
            exclusions: Table::new(),
            limits: Table::new(),
            waiters: BTreeMap::new(),
            holders: BTreeMap::new(),
            holding_roots: BTreeMap::new(),
            waiting_roots: BTreeMap::new(),
            borrowers: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            now: Instant::ORIGIN,
            next_id: 0,
            is_closed: false,
            gained: BTreeSet::new(),
            actions: Vec::new(),
            looks: Cell::new(0),
        }
    }

    /// What has to happen outside since the last time this was asked.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Time has come to `now`. Returns the next deadline.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<Instant> {
        self.now = self.now.max(now);
        let mut departed = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= self.now
        {
            let blocked_by = self.first_blocker(&self.waiters[&id]);
            let waiter = self.leave(id);
            let waited = self.now.since(waiter.since);
            let kind = AcquireErrorKind::Expired { waited, blocked_by };
            self.actions.push(Action::Fail(id, AcquireError::new(&waiter.party.owner, kind)));
            departed.push(waiter);
        }
        if !departed.is_empty() {
            self.settle();
        }
        for waiter in departed {
            self.forget(&waiter.needs);
        }
        self.deadlines.first().map(|&(deadline, _)| deadline)
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

    /// Somebody asks for a permit.
    pub(crate) fn submit(
        &mut self,
        request: &Request,
        patience: Patience,
        now: Instant,
    ) -> Result<Submitted, AcquireError> {
        self.tick(now);
        let refused = |kind| AcquireError::new(request.owner(), kind);
        if self.is_closed {
            return Err(refused(AcquireErrorKind::Closed));
        }
        let draft = self.draft(request)?;
        self.check_units(&draft)?;
        self.check_rules(&draft, request.coalesce_key.as_deref())?;
        let (party, priority) = (draft.party.clone(), draft.priority);
        let needs = self.place_needs(draft);
        let id = self.take_id();
        let due = nanoseconds(self.now)
            - i128::try_from(request.waited.as_nanos()).unwrap_or(i128::MAX / 4)
            - self.rules.head_start(priority);
        let place = Place { due, id };
        let Some(witness) = self.first_failing(&needs, place, &party.root) else {
            let holder = Holder { party, needs, since: self.now };
            self.grant(place, holder);
            self.settle();
            return Ok(Submitted::Granted(id));
        };
        let waiter = Waiter {
            party,
            needs,
            place,
            since: self.now,
            deadline: request.deadline,
            coalesce_key: request.coalesce_key.clone(),
            witness,
            overtakes: 0,
            is_reserving: false,
        };
        let refusal = match (patience, request.deadline) {
            (Patience::Refuse, _) => {
                let blocked_by = self.first_blocker(&waiter);
                Some(AcquireErrorKind::WouldWait { blocked_by })
            }
            (Patience::Wait, Some(deadline)) if deadline <= self.now => {
                let blocked_by = self.first_blocker(&waiter);
                Some(AcquireErrorKind::Expired { waited: request.waited, blocked_by })
            }
            (Patience::Wait, _) => None,
        };
        if let Some(kind) = refusal {
            self.forget(&waiter.needs);
            return Err(refused(kind));
        }
        self.enter(waiter);
        Ok(Submitted::Queued(id))
    }

    /// Somebody takes back what it held before a restart, whatever the limits say.
    pub(crate) fn adopt(
        &mut self,
        request: &Request,
        now: Instant,
    ) -> Result<RequestId, AcquireError> {
        self.tick(now);
        let refused = |kind| AcquireError::new(request.owner(), kind);
        if self.is_closed {
            return Err(refused(AcquireErrorKind::Closed));
        }
        let draft = self.draft(request)?;
        let conflicts = self.conflicts(&draft);
        if !conflicts.is_empty() {
            return Err(refused(AcquireErrorKind::Conflicting { conflicts }));
        }
        let party = draft.party.clone();
        let needs = self.place_needs(draft);
        let id = self.take_id();
        let place = Place { due: nanoseconds(self.now), id };
        self.grant(place, Holder { party, needs, since: self.now });
        self.settle();
        Ok(id)
    }

    /// A waiting request is given up by whoever made it.
    pub(crate) fn cancel(&mut self, id: RequestId) {
        if self.waiters.contains_key(&id) {
            let waiter = self.leave(id);
            if !cfg!(mutant = "cancel_examines_nobody") {
                self.settle();
            }
            self.forget(&waiter.needs);
        }
    }

    /// A permit is given back.
    pub(crate) fn release(&mut self, id: RequestId) {
        if let Some(holder) = self.holders.remove(&id) {
            if holder.has_exclusions() {
                self.stop_holding(&holder.party.root);
            }
            self.give_back(id, &holder.needs);
            self.settle();
            self.forget(&holder.needs);
        }
    }

    /// The capacity of a permit is given back; its exclusions stay.
    pub(crate) fn release_capacity(&mut self, id: RequestId) {
        if let Some(holder) = self.holders.get_mut(&id) {
            let (kept, returned): (Vec<_>, Vec<_>) =
                holder.needs.iter().partition(|need| matches!(need, Need::Exclusion { .. }));
            holder.needs = kept;
            self.give_back(id, &returned);
            self.settle();
            self.forget(&returned);
        }
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
        while let Some((&id, _)) = self.waiters.first_key_value() {
            let waiter = self.leave(id);
            let error = AcquireError::new(&waiter.party.owner, AcquireErrorKind::Closed);
            self.actions.push(Action::Fail(id, error));
            self.forget(&waiter.needs);
        }
        self.gained.clear();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// How often a request was looked at, to see whether it can start.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.get()
    }

    fn count_look(&self) {
        self.looks.set(self.looks.get().wrapping_add(1));
    }

    fn take_id(&mut self) -> RequestId {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        id
    }
}

fn nanoseconds(moment: Instant) -> i128 {
    // 2^64 seconds of nanoseconds need 94 bits.
    i128::try_from(moment.since_origin().as_nanos()).expect("a duration fits into 127 bits")
}
