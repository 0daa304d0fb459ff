//! How a request comes in: checked, then granted, refused, joined to an equal one, or put in
//! line.

use super::members::{Member, Members};
use super::prepared::PreparedIndex;
use super::request_state::{Absence, Place, Waiter};
use super::table::Slot;
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
        prepared: Option<PreparedIndex>,
        patience: Patience,
        now: Instant,
    ) -> Result<Submitted, AcquireError> {
        self.advance(now);
        let refused = |kind| AcquireError::new(request.owner(), kind);
        if self.is_closed {
            return Err(refused(AcquireErrorKind::Closed));
        }
        let draft = self.draft_of(request, prepared)?;
        if let Err(error) = self.check_units(&draft) {
            self.forget_draft(&draft);
            return Err(error);
        }
        let holds = request.root.is_none() && self.owns_permit(draft.party.owner);
        if let Some(equal) = self.equal(&draft, request) {
            self.forget_draft(&draft);
            return self.follow(equal, request, patience, holds);
        }
        self.count(&draft.needs, |counts| counts.submitted += 1);
        if let Err(error) = self.check_rejections(&draft.needs, draft.party) {
            self.count(&draft.needs, |counts| counts.rejected += 1);
            self.forget_draft(&draft);
            return Err(error);
        }
        let place = self.new_place(request, draft.priority);
        let witness = self.first_failing(&draft.needs, place, draft.party);
        let waiter = Waiter {
            party: draft.party,
            needs: draft.needs,
            place,
            since: self.now,
            members: self.alone(place.id, draft.party.owner, request.deadline),
            coalesce_key: request.coalesce_key.clone().filter(|_| request.root.is_none()),
            witness: witness.unwrap_or(0),
            overtakes: 0,
            is_reserving: false,
        };
        if self.is_open && witness.is_none() {
            return Ok(self.start(waiter));
        }
        let is_expired = request.deadline.is_some_and(|deadline| deadline <= self.now);
        if patience == Patience::Refuse || is_expired || holds {
            let blocked_by = witness.and_then(|_| self.first_blocker(&waiter));
            let kind = match patience {
                Patience::Refuse => AcquireErrorKind::WouldWait { blocked_by },
                Patience::Wait if is_expired => {
                    AcquireErrorKind::Expired { waited: request.waited, blocked_by }
                }
                Patience::Wait => AcquireErrorKind::WouldNest { blocked_by },
            };
            self.count(&waiter.needs, |counts| match kind {
                AcquireErrorKind::Expired { .. } => counts.expired += 1,
                _ => counts.refused += 1,
            });
            self.forget_waiter(&waiter);
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
        let waiter = match self.requests.absentee(equal) {
            Some(absentee) => &absentee.waiter,
            None => self.waiter(equal),
        };
        let into = self.party_name(waiter.party.owner).to_string();
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
        let id = self.requests.next_id();
        Place { due, rank: id.number, id }
    }

    /// The one member of a request that nobody has joined yet.
    pub(super) fn alone(&mut self, id: RequestId, owner: Slot, deadline: Option<Instant>) -> Members {
        self.parties.refer_again(owner);
        Members::alone(id, Member { owner, deadline, is_claimed: false })
    }
}

fn nanoseconds(moment: Instant) -> i128 {
    // 2^64 seconds of nanoseconds need 94 bits.
    i128::try_from(moment.since_origin().as_nanos()).expect("a duration fits into 127 bits")
}
