//! Requests that are one: they wait in one place and share one permit.

use std::sync::Arc;

use smallvec::SmallVec;

use super::request_state::{Absence, Need, Needs, Record, Waiter};
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
    pub(crate) id: RequestId,
    /// What is to be known of the permit if it is not the request's own.
    pub(crate) joined: Option<Joined>,
}

/// What is to be known of a permit that was got by joining somebody else's request.
#[derive(Debug)]
pub(crate) struct Joined {
    /// Who came first and does the work, if it was somebody else.
    pub(crate) coalesced_into: Option<Arc<str>>,
    /// The operation that the permit is part of.
    pub(crate) root: Arc<str>,
}

impl Claimed {
    /// A permit that was granted without a wait.
    pub(crate) fn at_once(id: RequestId) -> Self {
        Self { id, joined: None }
    }
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
        let before = waiter.party.owner;
        let next = waiter.members.first().map(|next| next.owner);
        if let Some(next) = next {
            waiter.party.owner = next;
            self.parties.refer_again(next);
            self.parties.forget(before);
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

    /// One member gives its share of a permit back. True if the whole permit is to return:
    /// nobody has it any more, or those who did not come for it yet come too late.
    pub(super) fn part_from_holder(&mut self, member: RequestId) -> bool {
        let id = self.requests.group(member);
        let Some(holder) = self.requests.holder_mut(id) else { return false };
        let Some(parted) = holder.members.remove(member) else { return false };
        self.parties.forget(parted.owner);
        if holder.members.is_empty() {
            self.requests.remove_follower(member);
            return true;
        }
        let is_late =
            parted.is_claimed && !holder.members.iter().any(|(_, member)| member.is_claimed);
        if is_late {
            let into: String = (**self.parties.name(holder.party.owner)).to_owned();
            for (late, member) in holder.members.iter() {
                let kind = AcquireErrorKind::Coalesced { into: into.clone() };
                let error = AcquireError::new(self.parties.name(member.owner), kind);
                self.actions.push(Action::Fail(late, error));
            }
        }
        self.requests.remove_follower(member);
        is_late
    }

    /// Somebody came for a permit. `None` if there is none any more.
    pub(crate) fn claim(&mut self, member: RequestId) -> Option<Claimed> {
        let id = self.requests.group(member);
        let holder = self.requests.holder_mut(id)?;
        let claiming = holder.members.get_mut(member)?;
        claiming.is_claimed = true;
        let (owner, root, lead) = (claiming.owner, holder.party.root, holder.party.owner);
        let first = holder.unclaimed.take();
        if let Some(unclaimed) = &first {
            self.unclaimed.remove(&(unclaimed.revoke_at, id));
            // Whoever comes first does the work, and is named as the owner from now on.
            if owner != lead {
                holder.party.owner = owner;
                self.parties.refer_again(owner);
                self.stop_owning(lead);
                self.start_owning(owner);
                self.parties.forget(lead);
            }
        }
        let is_own = first.is_some() && member == id;
        let joined = (!is_own).then(|| Joined {
            coalesced_into: first.is_none().then(|| Arc::clone(self.party_name(lead))),
            root: Arc::clone(self.party_name(root)),
        });
        Some(Claimed { id, joined })
    }
}
