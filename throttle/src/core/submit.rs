//! How a request comes in: checked, then granted, refused, joined to an equal one, or put in
//! line.

use std::sync::Arc;

use super::members::{Member, Members};
use super::request_state::{Absence, Place, Waiter};
use super::{Core, Patience, Submitted};
use crate::acquire_error::{AcquireError, AcquireErrorKind};
use crate::clock::Instant;
use crate::priority::Priority;
use crate::request::Request;
use crate::request_id::RequestId;

impl Core {
    /// Somebody asks for a permit.
    pub(crate) fn submit(
        &mut self,
        request: &Request,
        patience: Patience,
        now: Instant,
    ) -> Result<Submitted, AcquireError> {
        self.advance(now);
        let refused = |kind| AcquireError::new(request.owner(), kind);
        if self.is_closed {
            return Err(refused(AcquireErrorKind::Closed));
        }
        let draft = self.draft(request)?;
        self.check_units(&draft)?;
        let holds = self.holding_owners.contains_key(request.owner()) && request.root.is_none();
        if let Some(equal) = self.equal(&draft, request) {
            return self.follow(equal, request, patience, holds);
        }
        let (party, priority) = (draft.party.clone(), draft.priority);
        let needs = self.place_needs(draft);
        self.count(&needs, |counts| counts.submitted += 1);
        if let Err(error) = self.check_rejections(&needs, &party) {
            self.count(&needs, |counts| counts.rejected += 1);
            self.forget(&needs);
            return Err(error);
        }
        let place = self.new_place(request, priority);
        let waiter = Waiter {
            party,
            needs,
            place,
            since: self.now,
            members: self_alone(place.id, request),
            coalesce_key: request.coalesce_key.clone().filter(|_| request.root.is_none()),
            witness: 0,
            overtakes: 0,
            is_reserving: false,
        };
        let witness = self.first_failing(&waiter.needs, place, &waiter.party);
        if self.is_open && witness.is_none() {
            return Ok(self.start(waiter));
        }
        let waiter = Waiter { witness: witness.unwrap_or(0), ..waiter };
        let blocked_by = witness.and_then(|_| self.first_blocker(&waiter));
        let refusal = match (patience, request.deadline) {
            (Patience::Refuse, _) => Some(AcquireErrorKind::WouldWait { blocked_by }),
            (Patience::Wait, Some(deadline)) if deadline <= self.now => {
                Some(AcquireErrorKind::Expired { waited: request.waited, blocked_by })
            }
            (Patience::Wait, _) if holds => Some(AcquireErrorKind::WouldNest { blocked_by }),
            (Patience::Wait, _) => None,
        };
        if let Some(kind) = refusal {
            self.count(&waiter.needs, |counts| match kind {
                AcquireErrorKind::Expired { .. } => counts.expired += 1,
                _ => counts.refused += 1,
            });
            self.forget(&waiter.needs);
            return Err(refused(kind));
        }
        match self.is_open {
            true => self.enter(waiter),
            false => self.put_aside(waiter, Absence::NotOpen),
        }
        Ok(Submitted::Queued(place.id))
    }

    /// A request that is one with a waiting one.
    fn follow(
        &mut self,
        equal: RequestId,
        request: &Request,
        patience: Patience,
        holds: bool,
    ) -> Result<Submitted, AcquireError> {
        let waiter = match self.absentees.get(&equal) {
            Some(absentee) => &absentee.waiter,
            None => &self.waiters[&equal],
        };
        let into = waiter.party.owner.to_string();
        let needs = waiter.needs.clone();
        self.count(&needs, |counts| {
            counts.submitted += 1;
            counts.coalesced += 1;
        });
        let kind = match (patience, request.deadline) {
            (Patience::Refuse, _) => AcquireErrorKind::Coalesced { into },
            (Patience::Wait, Some(deadline)) if deadline <= self.now => {
                AcquireErrorKind::Expired { waited: request.waited, blocked_by: Some(into) }
            }
            (Patience::Wait, _) if holds => AcquireErrorKind::WouldNest { blocked_by: Some(into) },
            (Patience::Wait, _) => return Ok(Submitted::Queued(self.join(equal, request))),
        };
        Err(AcquireError::new(request.owner(), kind))
    }

    /// A new place: that of the arrival, less the head start.
    pub(super) fn new_place(&mut self, request: &Request, priority: Priority) -> Place {
        let waited = i128::try_from(request.waited.as_nanos()).unwrap_or(i128::MAX / 4);
        let due = nanoseconds(self.now) - waited - self.rules.head_start(priority);
        let id = self.take_id();
        Place { due, rank: id, id }
    }
}

/// The one member of a request that nobody has joined yet.
pub(super) fn self_alone(id: RequestId, request: &Request) -> Members {
    let owner = Arc::from(request.owner());
    let member = Member { owner, deadline: request.deadline, is_claimed: false };
    Members::from([(id, member)])
}

fn nanoseconds(moment: Instant) -> i128 {
    // 2^64 seconds of nanoseconds need 94 bits.
    i128::try_from(moment.since_origin().as_nanos()).expect("a duration fits into 127 bits")
}
