//! What there is to see: holders, waiters, and what they truly wait for.

use std::collections::BTreeMap;

use super::Core;
use super::members::Members;
use super::request_state::{Absence, Need, Record, Site};
use super::rulebook::ClassRef;
use super::table::Slot;
use crate::acquire_error::Conflict;
use crate::clock::Instant;
use crate::request::Claim;
use crate::request_id::RequestId;
use crate::resource::Resource;
use crate::snapshot::{Blocker, Holding, LimitUse, Relation, Snapshot, Standing, Waiting};

impl Core {
    pub(crate) fn snapshot(&mut self, now: Instant) -> Snapshot {
        self.advance(now);
        let in_line = self.requests.waiters().into_iter().map(|waiter| (waiter, None));
        let absent = self.requests.absentees().into_iter();
        let absent = absent.map(|absent| (&*absent.waiter, Some(absent.reason)));
        let mut waiters: Vec<_> = in_line.chain(absent).collect();
        waiters.sort_by_key(|(waiter, _)| waiter.place);
        // How many wait at each site before the next one.
        let mut ahead: BTreeMap<Site, usize> = BTreeMap::new();
        Snapshot {
            holders: self
                .requests
                .holders()
                .into_iter()
                .map(|holder| Holding {
                    id: holder.place.id,
                    owner: self.party_name(holder.party.owner).to_string(),
                    root: self.party_name(holder.party.root).to_string(),
                    claims: holder.needs.iter().map(|&need| self.claim_of(need)).collect(),
                    age: self.now.since(holder.since),
                    is_claimed: holder.unclaimed.is_none(),
                    shared_with: self.others(&holder.members, holder.party.owner),
                })
                .collect(),
            waiters: waiters
                .into_iter()
                .map(|(waiter, absence)| Waiting {
                    id: waiter.place.id,
                    owner: self.party_name(waiter.party.owner).to_string(),
                    root: self.party_name(waiter.party.root).to_string(),
                    age: self.now.since(waiter.since),
                    coalesced: self.others(&waiter.members, waiter.party.owner),
                    overtakes: waiter.overtakes,
                    is_pinned: waiter.is_reserving,
                    waits_for: self.claim_of(waiter.witness()),
                    position: {
                        let ahead = ahead.entry(waiter.witness().site()).or_default();
                        let position = *ahead + 1;
                        // Who is in no line is ahead of nobody.
                        *ahead += usize::from(absence.is_none());
                        position
                    },
                    blockers: match absence {
                        None => self.blockers(waiter),
                        Some(_) => Vec::new(),
                    },
                    standing: match absence {
                        None => Standing::InLine,
                        Some(Absence::NotOpen) => Standing::NotOpen,
                        Some(Absence::Unclaimed) => Standing::Unclaimed,
                    },
                })
                .collect(),
            limits: self
                .limits
                // What nobody uses is not shown, permanent or not.
                .iter_referred(|site| 1 + usize::from(site.is_permanent))
                .map(|((resource, limit), site)| LimitUse {
                    resource: resource.clone(),
                    limit: limit.clone(),
                    capacity: site.capacity,
                    used: site.used,
                })
                .collect(),
            is_open: self.is_open,
            is_closed: self.is_closed,
        }
    }

    pub(super) fn first_blocker(&self, waiter: &Record) -> Option<String> {
        self.blockers(waiter).into_iter().next().map(|blocker| blocker.owner)
    }

    pub(super) fn conflict(
        &self,
        resource: &Resource,
        class: ClassRef,
        held: ClassRef,
        holder: RequestId,
    ) -> Conflict {
        Conflict {
            resource: resource.clone(),
            class: self.rules.class_name(class).1.to_owned(),
            holder: self.party_name(self.holder(holder).party.owner).to_string(),
            since: self.holder(holder).since,
            holder_class: self.rules.class_name(held).1.to_owned(),
        }
    }

    fn claim_of(&self, need: Need) -> Claim {
        match need {
            Need::Exclusion { site, class } => {
                let (workload, class) = self.rules.class_name(class);
                Claim::exclusion(workload, self.exclusions.name(site).clone(), class)
            }
            Need::Capacity { site, units } => {
                let (resource, limit) = self.limits.name(site).clone();
                Claim::capacity(resource, limit, units)
            }
        }
    }

    /// Whoever stands in the way of the waiter's witness: every holder, then the first of
    /// each kind that is ahead in line. A list of all who are ahead would make the picture
    /// of a long line grow with its square.
    fn blockers(&self, waiter: &Record) -> Vec<Blocker> {
        let mut holding = Vec::new();
        let mut ahead = Vec::new();
        match waiter.witness() {
            Need::Exclusion { site, class } => {
                let site = self.exclusions.get(site);
                let conflicting = site
                    .strangers(waiter.party.root)
                    .filter(|&(held, _)| !self.rules.may_join(site.scope, held, class));
                holding.extend(conflicting.map(|(_, id)| id));
                if !self.is_holding(waiter.party.root) {
                    let firsts = site.line.heads().filter(|&(queued, first)| {
                        first < waiter.place && !self.rules.may_mix(site.scope, queued, class)
                    });
                    ahead.extend(firsts.map(|(_, first)| first.id));
                }
            }
            Need::Capacity { site, .. } => {
                let site = self.limits.get(site);
                if site.capacity > 0 {
                    // Who has lent all that it has keeps nobody waiting.
                    let using = site.holders.iter().filter(|(_, units)| **units > 0);
                    holding.extend(using.map(|(id, _)| id));
                    let reserved = site.reserved.first().filter(|place| *place < waiter.place);
                    ahead.extend(reserved.map(|place| place.id));
                }
            }
        }
        holding.sort_unstable();
        holding.dedup();
        let holding = holding.into_iter().map(|id| Blocker {
            owner: self.party_name(self.holder(id).party.owner).to_string(),
            relation: Relation::Holds,
            age: self.now.since(self.holder(id).since),
        });
        let ahead = ahead.into_iter().map(|id| Blocker {
            owner: self.party_name(self.waiter(id).party.owner).to_string(),
            relation: Relation::IsAhead,
            age: self.now.since(self.waiter(id).since),
        });
        holding.chain(ahead).collect()
    }

    /// The owners apart from the one that the request is named after.
    fn others(&self, members: &Members, named: Slot) -> Vec<String> {
        let mut owners: Vec<_> = members.iter().map(|(_, member)| member.owner).collect();
        if let Some(index) = owners.iter().position(|&owner| owner == named) {
            owners.remove(index);
        }
        owners.into_iter().map(|owner| self.party_name(owner).to_string()).collect()
    }
}
