//! Requests that are one: they wait in one place and share one permit.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::draft::Draft;
use super::request_state::{Absence, Need, Waiter};
use super::{Action, Core};
use crate::acquire_error::{AcquireError, AcquireErrorKind};
use crate::clock::Instant;
use crate::request::Request;
use crate::request_id::RequestId;

/// One of those who wait together, or share a permit.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) owner: Arc<str>,
    pub(super) deadline: Option<Instant>,
    pub(super) is_claimed: bool,
}

/// The members of a request by their own identities. The first is the request itself, as
/// long as whoever made it is still there.
pub(super) type Members = BTreeMap<RequestId, Member>;

/// What somebody gets who comes for a permit.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) id: RequestId,
    /// Who came first and does the work, if it was somebody else.
    pub(crate) coalesced_into: Option<Arc<str>>,
    /// The operation that the permit is part of, if it was joined.
    pub(crate) root: Option<Arc<str>>,
}

impl Claimed {
    /// A permit that was granted without a wait.
    pub(crate) fn at_once(id: RequestId) -> Self {
        Self { id, coalesced_into: None, root: None }
    }
}

impl Core {
    /// The request that the member is part of.
    pub(super) fn group(&self, member: RequestId) -> RequestId {
        self.followers.get(&member).copied().unwrap_or(member)
    }

    /// A request that waits and is one with the draft.
    pub(super) fn equal(&self, draft: &Draft, request: &Request) -> Option<RequestId> {
        let key = request.coalesce_key.as_deref()?;
        if request.root.is_some() {
            return None;
        }
        let is_equal = |waiter: &&Waiter| {
            waiter.coalesce_key.as_deref() == Some(key) && self.is_same(draft, &waiter.needs)
        };
        let absent = self.absentees.values().map(|absentee| &absentee.waiter);
        let mut absent = absent.filter(|waiter| {
            waiter.needs.iter().any(|&need| match need {
                Need::Exclusion { site, class } => {
                    self.rules.is_coalescing(self.exclusions.get(site).scope, class)
                }
                Need::Capacity { .. } => false,
            })
        });
        for (resource, class) in draft.exclusions() {
            let Some(slot) = self.exclusions.find(resource) else { continue };
            let site = self.exclusions.get(slot);
            if self.rules.is_coalescing(site.scope, *class) {
                let line = site.line.get(class).into_iter().flatten();
                let mut line = line.map(|place| &self.waiters[&place.id]);
                if let Some(waiter) = line.find(is_equal) {
                    return Some(waiter.place.id);
                }
            }
        }
        absent.find(is_equal).map(|waiter| waiter.place.id)
    }

    /// Adds a member to a request that is not granted.
    pub(super) fn join(&mut self, id: RequestId, request: &Request) -> RequestId {
        let member = self.take_id();
        let (owner, deadline) = (Arc::from(request.owner()), request.deadline);
        let joined = Member { owner, deadline, is_claimed: false };
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, member));
        }
        self.followers.insert(member, id);
        let is_absent = match self.absentees.get_mut(&id) {
            Some(absentee) => {
                absentee.waiter.members.insert(member, joined);
                absentee.reason == Absence::Unclaimed
            }
            None => {
                let waiter = self.waiters.get_mut(&id).expect("only a waiter can be joined");
                waiter.members.insert(member, joined);
                false
            }
        };
        if is_absent {
            self.rejoin(id);
        }
        member
    }

    /// One member does not wait any more. Returns the waiter if nobody is left.
    pub(super) fn part_from_waiter(&mut self, member: RequestId) -> Option<Waiter> {
        let id = self.group(member);
        let waiter = match self.absentees.get_mut(&id) {
            Some(absentee) => &mut absentee.waiter,
            None => self.waiters.get_mut(&id)?,
        };
        let parted = waiter.members.remove(&member)?;
        self.followers.remove(&member);
        if let Some(deadline) = parted.deadline {
            self.deadlines.remove(&(deadline, member));
        }
        if let Some(next) = waiter.members.values().next() {
            waiter.party.owner = Arc::clone(&next.owner);
            return None;
        }
        match self.absentees.remove(&id) {
            Some(absentee) => Some(absentee.waiter),
            None => Some(self.leave(id)),
        }
    }

    /// One member gives its share of a permit back. True if the whole permit is to return:
    /// nobody has it any more, or those who did not come for it yet come too late.
    pub(super) fn part_from_holder(&mut self, member: RequestId) -> bool {
        let id = self.group(member);
        let Some(holder) = self.holders.get_mut(&id) else { return false };
        let Some(parted) = holder.members.remove(&member) else { return false };
        self.followers.remove(&member);
        if holder.members.is_empty() {
            return true;
        }
        if !parted.is_claimed || holder.members.values().any(|member| member.is_claimed) {
            return false;
        }
        let into = holder.party.owner.to_string();
        for (&late, member) in &holder.members {
            let kind = AcquireErrorKind::Coalesced { into: into.clone() };
            self.actions.push(Action::Fail(late, AcquireError::new(&member.owner, kind)));
        }
        true
    }

    /// Somebody came for a permit. `None` if there is none any more.
    pub(crate) fn claim(&mut self, member: RequestId) -> Option<Claimed> {
        let id = self.group(member);
        let holder = self.holders.get_mut(&id)?;
        let claiming = holder.members.get_mut(&member)?;
        claiming.is_claimed = true;
        let root = Some(Arc::clone(&holder.party.root));
        let owner = Arc::clone(&claiming.owner);
        let Some(unclaimed) = holder.unclaimed.take() else {
            let lead = Arc::clone(&holder.party.owner);
            return Some(Claimed { id, coalesced_into: Some(lead), root });
        };
        self.unclaimed.remove(&(unclaimed.revoke_at, id));
        // Whoever comes first does the work, and is named as the owner from now on.
        let before = std::mem::replace(&mut holder.party.owner, Arc::clone(&owner));
        self.stop_owning(&before);
        self.start_owning(&owner);
        Some(Claimed { id, coalesced_into: None, root })
    }

    pub(super) fn start_owning(&mut self, owner: &Arc<str>) {
        *self.holding_owners.entry(Arc::clone(owner)).or_default() += 1;
    }

    pub(super) fn stop_owning(&mut self, owner: &Arc<str>) {
        if let Some(count) = self.holding_owners.get_mut(owner) {
            *count -= 1;
            if *count == 0 {
                self.holding_owners.remove(owner);
            }
        }
    }

    /// Whether the draft asks for exactly these needs.
    fn is_same(&self, draft: &Draft, needs: &[Need]) -> bool {
        let exclusions = draft.exclusions().len();
        exclusions + draft.capacities().len() == needs.len()
            && needs.iter().all(|&need| match need {
                Need::Exclusion { site, class } => {
                    draft.exclusions().contains(&(self.exclusions.name(site).clone(), class))
                }
                Need::Capacity { site, units } => draft
                    .capacities()
                    .get(self.limits.name(site))
                    .is_some_and(|&(asked, _)| asked == u64::from(units)),
            })
    }
}
