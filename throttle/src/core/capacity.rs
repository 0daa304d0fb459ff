//! Capacity that changes hands while its permit lives: given back, taken again, lent.

use super::request_state::{Absence, Need, Needs, Party, Place, Record, Site};
use super::requests::Entry;
use super::rulebook::LimitKey;
use super::table::Slot;
use super::{Core, Submitted};
use crate::acquire_error::{AcquireError, AcquireErrorKind};
use crate::clock::Instant;
use crate::request::Claim;
use crate::request_id::RequestId;

impl Core {
    /// The capacity of a permit is given back; its exclusions stay.
    pub(crate) fn release_capacity(&mut self, id: RequestId) {
        let Some(holder) = self.requests.holder(id) else { return };
        let returned: Vec<_> =
            holder.needs.iter().copied().filter(|need| need.capacity().is_some()).collect();
        self.give_up(id, &returned);
    }

    /// Some of the claims of a permit are given back. What it does not hold is ignored.
    pub(crate) fn downgrade(&mut self, id: RequestId, claims: &[Claim]) {
        let mut returned = Vec::new();
        for claim in claims {
            match claim {
                Claim::Exclusion { workload, resource, class } => {
                    let site = self.exclusions.find(resource);
                    let class = self.rules.class(workload, class);
                    if let (Some(site), Ok(class)) = (site, class) {
                        returned.push(Need::Exclusion { site, class });
                    }
                }
                Claim::Capacity { resource, limit, units } => {
                    if let Some(site) = self.limits.find(&LimitKey(resource, limit)) {
                        returned.push(Need::Capacity { site, units: *units });
                    }
                }
            }
        }
        self.give_up(id, &returned);
    }

    fn give_up(&mut self, id: RequestId, returned: &[Need]) {
        let Some(mut holder) = self.requests.take_holder(id) else { return };
        let had_exclusions = holder.has_exclusions();
        // What it holds from now on is not what was prepared.
        holder.prepared = None;
        let mut forgotten = Vec::new();
        for &need in returned {
            match need {
                Need::Exclusion { site, class } => {
                    let held = holder.needs.iter().position(|held| {
                        matches!(*held, Need::Exclusion { site: at, class: of }
                            if (at, of) == (site, class))
                    });
                    let Some(held) = held else { continue };
                    forgotten.push(holder.needs.remove(held));
                    self.exclusions.get_mut(site).release(class, id);
                    self.gain(need.site());
                }
                Need::Capacity { site, units } => {
                    let Some(index) = capacity_at(&holder.needs, site) else { continue };
                    let Need::Capacity { units: held, .. } = &mut holder.needs[index] else {
                        continue;
                    };
                    let units = units.min(*held);
                    *held -= units;
                    let is_all = *held == 0;
                    if is_all {
                        holder.needs.remove(index);
                    }
                    // One reference for what is held, one for what was given up.
                    let need = Need::Capacity { site, units };
                    let is_known = add(&mut holder.given_up, need);
                    match (is_all, is_known) {
                        (true, true) => forgotten.push(need),
                        (false, false) => self.limits.refer_again(site),
                        (true, false) | (false, true) => {}
                    }
                    self.return_units(id, &mut holder, site, units);
                }
            }
        }
        if had_exclusions && !holder.has_exclusions() {
            self.stop_holding(holder.party.root);
        }
        self.requests.insert(id, Entry::Holder(holder));
        self.settle();
        self.forget(&forgotten);
    }

    /// The capacity that a permit gave up is wanted again. `None` if there is none.
    pub(crate) fn reacquire(
        &mut self,
        id: RequestId,
        owner: &str,
        now: Instant,
    ) -> Result<Option<Submitted>, AcquireError> {
        self.advance(now);
        let refused = |kind| AcquireError::new(owner, kind);
        if self.is_closed {
            return Err(refused(AcquireErrorKind::Closed));
        }
        let Some(holder) = self.requests.holder(id) else {
            return Err(refused(AcquireErrorKind::Released));
        };
        if holder.given_up.is_empty() {
            return Ok(None);
        }
        let (party, needs) = (holder.party, holder.given_up.clone());
        let (due, rank) = (holder.place.due, holder.place.rank);
        self.refer_again(&needs);
        self.refer_again_to_party(party);
        let mut record = self.blank_record();
        (record.party, record.needs) = (party, needs);
        record.place = Place { due, rank, id: self.requests.next_id() };
        record.since = self.now;
        self.add_first_member(&mut record);
        if !self.is_open {
            let id = record.place.id;
            self.put_aside(record, Absence::NotOpen);
            return Ok(Some(Submitted::Queued(id)));
        }
        Ok(Some(self.start_or_enter(record)))
    }

    /// A granted request for what a permit gave up becomes part of that permit, up to what the
    /// permit still lacks. False if the permit is gone.
    pub(crate) fn merge(&mut self, part: RequestId, whole: RequestId) -> bool {
        let Some(mut holder) = self.requests.take_holder(whole) else {
            self.release(part);
            return false;
        };
        let Some(mut part_holder) = self.take_out(part) else {
            self.requests.insert(whole, Entry::Holder(holder));
            return false;
        };
        let mut forgotten = Needs::new();
        for (site, units) in part_holder.needs.clone().iter().filter_map(|need| need.capacity()) {
            // Others may have taken it again meanwhile, and more may have been given up.
            let wanted = capacity_at(&holder.given_up, site).map_or(0, |index| {
                let Need::Capacity { units: lacking, .. } = &mut holder.given_up[index] else {
                    return 0;
                };
                let wanted = units.min(*lacking);
                *lacking -= wanted;
                if *lacking == 0 {
                    forgotten.push(holder.given_up.remove(index));
                }
                wanted
            });
            if wanted < units {
                self.return_units(part, &mut part_holder, site, units - wanted);
            }
            if wanted > 0 && !add(&mut holder.needs, Need::Capacity { site, units: wanted }) {
                self.limits.refer_again(site);
            }
            self.limits.get_mut(site).hand_over(part, whole);
        }
        holder.loans.append(&mut part_holder.loans);
        self.requests.insert(whole, Entry::Holder(holder));
        self.settle();
        self.retire(part_holder);
        self.forget(&forgotten);
        true
    }

    /// Takes the units that the lender can spare for what is needed.
    pub(super) fn borrow(&mut self, holder: &mut Record) {
        let Record { party, needs, loans, .. } = holder;
        let Some(lender) = party.lender else { return };
        for (site, units) in needs.iter().filter_map(|need| need.capacity()) {
            let lent = self.limits.get_mut(site).take_from(lender, units);
            if lent > 0 {
                loans.push((site, lent));
            }
        }
    }

    /// Returns units of a holder: first what was lent to it, to the lender if that still
    /// has a use for them, then the rest to the limit.
    fn return_units(&mut self, id: RequestId, holder: &mut Record, site: Slot, units: u32) {
        let returned = self.limits.get_mut(site).take_back(id, units);
        self.gain(Site::Limit(site));
        self.repay(holder.party, &mut holder.loans, site, returned);
    }

    /// Gives the lender its part of the units that were `returned`.
    pub(super) fn repay(
        &mut self,
        party: Party,
        loans: &mut Vec<(Slot, u32)>,
        site: Slot,
        mut returned: u32,
    ) {
        for loan in loans.iter_mut().filter(|(at, _)| *at == site) {
            let repaid = loan.1.min(returned);
            loan.1 -= repaid;
            returned -= repaid;
            let lender = party.lender.and_then(|id| Some((id, self.requests.holder(id)?)));
            if let Some((lender, lending)) = lender {
                let nominal = lending.needs.iter().filter_map(|need| need.capacity());
                let nominal = nominal.filter(|&(at, _)| at == site).map(|(_, units)| units).sum();
                self.limits.get_mut(site).put_back(lender, repaid, nominal);
            }
        }
        loans.retain(|&(_, units)| units > 0);
    }
}

fn capacity_at(needs: &[Need], site: Slot) -> Option<usize> {
    needs.iter().position(|need| need.capacity().is_some_and(|(at, _)| at == site))
}

/// Adds a capacity to `needs`; true if there was one at the same limit already.
fn add(needs: &mut Needs, need: Need) -> bool {
    let Some((site, more)) = need.capacity() else { return false };
    match capacity_at(needs, site) {
        Some(index) => {
            if let Need::Capacity { units, .. } = &mut needs[index] {
                *units += more;
            }
            true
        }
        None => {
            needs.push(need);
            false
        }
    }
}
