//! How a request comes in: checked, then granted, refused, joined to an equal one, or put in
//! line.

use super::members::Member;
use super::prepared::PreparedIndex;
use super::request_state::{Absence, Place, Record, nanoseconds};
use super::{Core, Patience, Submitted};
use crate::acquire_error::{AcquireError, AcquireErrorKind};
use crate::clock::Instant;
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
        if let Some(id) = prepared.and_then(|index| self.grant_again(index)) {
            return Ok(Submitted::Granted(id));
        }
        let (mut record, head_start) = self.drafted(request, prepared)?;
        if let Some(equal) = self.equal(&record.needs, request) {
            let holds = self.is_nesting(request, &record);
            self.retire(record);
            return self.follow(equal, request, patience, holds);
        }
        self.give_place(&mut record, request, head_start);
        let witness = self.first_failing(&record.needs, record.place, record.party);
        // Who can start is in nobody's way, whatever the rules say.
        if witness.is_some()
            && let Err(error) = self.check_rejections(&record.needs, record.party)
        {
            self.count(&record.needs, |counts| {
                counts.submitted += 1;
                counts.rejected += 1;
            });
            self.retire(record);
            return Err(error);
        }
        if self.is_open && witness.is_none() {
            self.count(&record.needs, |counts| counts.handed_in_and_granted(1));
            return Ok(self.start(record));
        }
        self.count(&record.needs, |counts| counts.submitted += 1);
        record.witness = witness.unwrap_or(0);
        let is_expired = request.deadline.is_some_and(|deadline| deadline <= self.now);
        if patience == Patience::Refuse || is_expired || self.is_nesting(request, &record) {
            let blocked_by = witness.and_then(|_| self.first_blocker(&record));
            let kind = match patience {
                Patience::Refuse => AcquireErrorKind::WouldWait { blocked_by },
                Patience::Wait if is_expired => {
                    AcquireErrorKind::Expired { waited: request.waited, blocked_by }
                }
                Patience::Wait => AcquireErrorKind::WouldNest { blocked_by },
            };
            self.count(&record.needs, |counts| match kind {
                AcquireErrorKind::Expired { .. } => counts.expired += 1,
                _ => counts.refused += 1,
            });
            self.retire(record);
            return Err(refused(kind));
        }
        record.coalesce_key = request.coalesce_key.clone().filter(|_| request.root.is_none());
        let id = record.place.id;
        match self.is_open {
            true => self.enter(record),
            false => self.put_aside(record, Absence::NotOpen),
        }
        Ok(Submitted::Queued(id))
    }

    /// Whether a request that waits would wait while its owner holds a permit.
    fn is_nesting(&self, request: &Request, record: &Record) -> bool {
        request.root.is_none() && self.owns_permit(record.party.owner)
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

    /// Gives a request its identity and its place: that of the arrival, less the head start.
    pub(super) fn give_place(&mut self, record: &mut Record, request: &Request, head_start: i64) {
        let due = nanoseconds(self.now.since_origin()).saturating_sub(head_start);
        let due = due.saturating_sub(nanoseconds(request.waited));
        let id = self.requests.next_id();
        record.place = Place { due, rank: id.number, id };
        record.since = self.now;
        record.members.rename(id, request.deadline);
    }

    /// Makes the owner of a request its first member.
    pub(super) fn add_first_member(&mut self, record: &mut Record) {
        let owner = record.party.owner;
        self.parties.refer_again(owner);
        record.members.push(record.place.id, Member { owner, deadline: None, is_claimed: false });
    }
}
