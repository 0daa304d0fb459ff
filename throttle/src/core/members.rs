//! Requests that are one: they wait in one place and share one permit.

use std::sync::Arc;

use smallvec::SmallVec;

use super::request_state::{Absence, Need, Needs, Party, Record, Waiter};
use super::requests::Entry;
use super::table::Slot;
use super::{Action, Core};
use crate::acquire_error::{AcquireError, AcquireErrorKind};
use crate::clock::Instant;
use crate::request::Request;
use crate::request_id::RequestId;

/// One of those who wait together, or share a permit. It refers to its owner.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) owner: Slot,
    pub(super) deadline: Option<Instant>,
    pub(super) is_claimed: bool,
}

/// The members of a request by their own identities, in the order in which they came. The
/// first is the request itself, as long as whoever made it is still there.
#[derive(Debug, Default)]
pub(super) struct Members(SmallVec<[(RequestId, Member); 1]>);

impl Members {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether `id` is the only member.
    #[inline]
    pub(super) fn is_just(&self, id: RequestId) -> bool {
        matches!(&*self.0, [(only, _)] if *only == id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn first(&self) -> Option<&Member> {
        self.0.first().map(|(_, member)| member)
    }

    /// Whether `owner`, with its request `id`, is the only member, which did not come for a
    /// permit then.
    #[inline]
    pub(super) fn rewind(&mut self, id: RequestId, owner: Slot) -> bool {
        match &mut *self.0 {
            [(only, member)] if *only == id && member.owner == owner => {
                member.is_claimed = false;
                true
            }
            _ => false,
        }
    }

    /// Gives the only member another identity.
    #[inline]
    pub(super) fn rename(&mut self, id: RequestId, deadline: Option<Instant>) {
        if let [(only, member)] = &mut *self.0 {
            *only = id;
            member.deadline = deadline;
        }
    }

    /// Gives the only member another identity, with which it came for a permit.
    #[inline]
    pub(super) fn claim_only(&mut self, id: RequestId) {
        if let [(only, member)] = &mut *self.0 {
            *only = id;
            (member.deadline, member.is_claimed) = (None, true);
        }
    }

    pub(super) fn get(&self, id: RequestId) -> Option<&Member> {
        self.iter().find(|&(known, _)| known == id).map(|(_, member)| member)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (RequestId, &Member)> {
        self.0.iter().map(|(id, member)| (*id, member))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.0.iter_mut().map(|(_, member)| member)
    }

    fn get_mut(&mut self, id: RequestId) -> Option<&mut Member> {
        self.0.iter_mut().find(|(known, _)| *known == id).map(|(_, member)| member)
    }

    /// Adds a member that came after all others.
    #[inline]
    pub(super) fn push(&mut self, id: RequestId, member: Member) {
        self.0.push((id, member));
    }

    fn remove(&mut self, id: RequestId) -> Option<Member> {
        let index = self.0.iter().position(|&(known, _)| known == id)?;
        Some(self.0.remove(index).1)
    }
}

/// What somebody gets who comes for a permit.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// What is to be known of the permit if it is not the request's own.
    pub(crate) joined: Option<Box<Joined>>,
}

/// What is to be known of a permit that was got by joining somebody else's request.
#[derive(Debug)]
pub(crate) struct Joined {
    /// Whose permit it is.
    pub(crate) id: RequestId,
    /// Who came first and does the work, if it was somebody else.
    pub(crate) coalesced_into: Option<Arc<str>>,
    /// The operation that the permit is part of.
    pub(crate) root: Arc<str>,
}

impl Core {
    /// A request that waits and is one with a request for these needs.
    pub(super) fn equal(&self, needs: &Needs, request: &Request) -> Option<RequestId> {
        let key = request.coalesce_key.as_deref()?;
        if request.root.is_some() {
            return None;
        }
        let is_equal = |waiter: &&Record| {
            waiter.coalesce_key.as_deref() == Some(key) && *needs == waiter.needs
        };
        for need in needs {
            let Need::Exclusion { site, class } = *need else { continue };
            let site = self.exclusions.get(site);
            if self.rules.is_coalescing(site.scope, class) {
                let line = site.line.get(class).into_iter().flat_map(|places| places.keys());
                let mut line = line.map(|place| self.waiter(place.id));
                if let Some(waiter) = line.find(is_equal) {
                    return Some(waiter.place.id);
                }
            }
        }
        let absent = self.requests.absentees().into_iter().map(|absentee| &*absentee.waiter);
        let mut absent = absent.filter(|waiter| {
            waiter.needs.iter().any(|&need| match need {
                Need::Exclusion { site, class } => {
                    self.rules.is_coalescing(self.exclusions.get(site).scope, class)
                }
                Need::Capacity { .. } => false,
            })
        });
        absent.find(is_equal).map(|waiter| waiter.place.id)
    }

    /// Adds a member to a request that is not granted.
    pub(super) fn join(&mut self, id: RequestId, request: &Request) -> RequestId {
        let member = self.requests.next_id();
        let (owner, deadline) = (self.refer_to_name(request.owner()), request.deadline);
        let joined = Member { owner, deadline, is_claimed: false };
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, member));
        }
        self.requests.insert(member, Entry::Follower(id));
        let is_absent = match self.requests.absentee_mut(id) {
            Some(absentee) => {
                absentee.waiter.members.push(member, joined);
                absentee.reason == Absence::Unclaimed
            }
            None => {
                self.waiter_mut(id).members.push(member, joined);
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
        let id = self.requests.group(member);
        let is_absent = self.requests.absentee(id).is_some();
        let waiter = match is_absent {
            true => &mut self.requests.absentee_mut(id)?.waiter,
            false => self.requests.waiter_mut(id)?,
        };
        let parted = waiter.members.remove(member)?;
        let (before, place) = (waiter.party, waiter.place);
        let next = waiter.members.first().map(|next| next.owner);
        if let Some(next) = next.filter(|&next| next != before.owner) {
            // Whoever left has no part in it any more, and what it does from now on conflicts
            // with it like anybody's.
            waiter.party = Party { owner: next, root: next, lender: None };
            waiter.prepared = None;
            self.refer_again_to_party(Party { owner: next, root: next, lender: None });
            if !is_absent {
                self.move_to_root(place.id, before.root, next);
            }
            self.forget_party(before);
        }
        self.parties.forget(parted.owner);
        self.requests.remove_follower(member);
        if let Some(deadline) = parted.deadline {
            self.deadlines.remove(&(deadline, member));
        }
        match (next, is_absent) {
            (Some(_), _) => None,
            (None, true) => self.requests.take_absentee(id).map(|absentee| absentee.waiter),
            (None, false) => Some(self.leave(id)),
        }
    }

    /// A waiter is part of another operation from now on.
    fn move_to_root(&mut self, id: RequestId, before: Slot, root: Slot) {
        self.stop_waiting(before, id);
        self.start_waiting(root, id);
        match self.is_holding(root) {
            true => self.borrowers.insert(id),
            false => self.borrowers.remove(&id),
        };
        self.gain(self.waiter(id).witness().site());
    }

    /// Who came first for a shared permit, and does the work.
    fn lead_of(&self, id: RequestId) -> &Arc<str> {
        let holder = self.holder(id);
        holder.lead.as_ref().unwrap_or_else(|| self.party_name(holder.party.owner))
    }

    /// A permit is named after another owner from now on.
    fn rename(&mut self, id: RequestId, owner: Slot) {
        let Some(holder) = self.requests.holder_mut(id) else { return };
        // It is not what was prepared any more.
        holder.prepared = None;
        let before = std::mem::replace(&mut holder.party.owner, owner);
        self.parties.refer_again(owner);
        self.start_owning(owner);
        self.stop_owning(before);
        self.parties.forget(before);
    }

    /// A permit that nobody has come for yet is part of another operation from now on, as
    /// nobody can have made a request part of it.
    fn reroot(&mut self, id: RequestId, root: Slot) {
        let Some(holder) = self.requests.holder_mut(id) else { return };
        let before = std::mem::replace(&mut holder.party.root, root);
        let has_exclusions = holder.has_exclusions();
        let needs = holder.needs.clone();
        self.parties.refer_again(root);
        for &need in &needs {
            if let Need::Exclusion { site, class } = need {
                self.exclusions.get_mut(site).hold(class, id, root);
                self.gain(need.site());
            }
        }
        if has_exclusions {
            self.start_holding(root);
            self.stop_holding(before);
            self.unpin(&needs);
        }
        self.parties.forget(before);
    }

    /// One member gives its share of a permit back. True if the whole permit is to return:
    /// nobody has it any more, or those who did not come for it yet come too late.
    pub(super) fn part_from_holder(&mut self, member: RequestId) -> bool {
        let id = self.requests.group(member);
        let Some(holder) = self.requests.holder_mut(id) else { return false };
        let Some(parted) = holder.members.remove(member) else { return false };
        if holder.members.is_empty() {
            self.parties.forget(parted.owner);
            self.requests.remove_follower(member);
            return true;
        }
        let is_late =
            parted.is_claimed && !holder.members.iter().any(|(_, member)| member.is_claimed);
        let is_unclaimed = holder.unclaimed.is_some();
        // Of those who came for it the first one, or whoever may come first.
        let others = holder.members.iter().map(|(_, member)| member);
        let may_be_next = |member: &&Member| is_unclaimed || member.is_claimed;
        let next = others.filter(may_be_next).map(|member| member.owner).next();
        let is_named = parted.owner == holder.party.owner;
        if is_late {
            let into = self.lead_of(id).to_string();
            let holder = self.holder(id);
            let kind = AcquireErrorKind::Coalesced { into };
            let late = holder.members.iter().map(|(late, member)| {
                Action::Fail(late, AcquireError::new(self.party_name(member.owner), kind.clone()))
            });
            let late: SmallVec<[_; 4]> = late.collect();
            self.actions.extend(late);
        } else if is_named && let Some(next) = next {
            if is_unclaimed {
                self.rename(id, next);
                self.reroot(id, next);
            } else {
                let lead = Arc::clone(self.lead_of(id));
                self.rename(id, next);
                if let Some(holder) = self.requests.holder_mut(id) {
                    holder.lead = Some(lead);
                }
            }
        }
        self.parties.forget(parted.owner);
        self.requests.remove_follower(member);
        is_late
    }

    /// Somebody came for a permit. `None` if there is none any more.
    pub(crate) fn claim(&mut self, member: RequestId) -> Option<Claimed> {
        let id = self.requests.group(member);
        let holder = self.requests.holder_mut(id)?;
        let claiming = holder.members.get_mut(member)?;
        claiming.is_claimed = true;
        let (owner, named) = (claiming.owner, holder.party.owner);
        let first = holder.unclaimed.take();
        if let Some(unclaimed) = &first {
            self.unclaimed.remove(&(unclaimed.revoke_at, id));
            // Whoever comes first does the work, and is named as the owner from now on.
            if owner != named {
                self.rename(id, owner);
                self.reroot(id, owner);
                self.settle();
            }
        }
        let is_own = first.is_some() && member == id;
        let joined = (!is_own).then(|| {
            let coalesced_into = first.is_none().then(|| Arc::clone(self.lead_of(id)));
            let root = Arc::clone(self.party_name(self.holder(id).party.root));
            Box::new(Joined { id, coalesced_into, root })
        });
        Some(Claimed { joined })
    }
}
