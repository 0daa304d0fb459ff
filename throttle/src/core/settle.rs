//! Who may start, who has to wait, and where.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::exclusion_site::Standing;
use super::members::Members;
use super::request_state::{Holder, Need, Party, Place, Site, Unclaimed, Waiter};
use super::table::Slot;
use super::{Action, Core, groups};
use crate::request_id::RequestId;

impl Core {
    /// Lets everybody start who can, in the order of their places.
    pub(super) fn settle(&mut self) {
        loop {
            let mut best = None;
            for site in self.gained.clone() {
                match self.first_passing(site) {
                    None => {
                        self.gained.remove(&site);
                    }
                    Some(place) if best.is_none_or(|best| place < best) => best = Some(place),
                    Some(_) => {}
                }
            }
            match best {
                Some(place) => self.examine(place.id),
                None => break,
            }
        }
    }

    /// The first waiter parked at `site` whose need there can be met.
    fn first_passing(&self, site: Site) -> Option<Place> {
        match site {
            Site::Limit(slot) => {
                let in_line = self.limits.get(slot).first_passing(|| self.count_evaluation());
                let borrowing = self
                    .capacity_borrowers
                    .iter()
                    .map(|id| &self.waiters[id])
                    .filter(|waiter| {
                        self.count_evaluation();
                        let need = waiter.witness();
                        need.site() == site && self.passes(need, waiter.place, &waiter.party)
                    })
                    .map(|waiter| waiter.place)
                    .min();
                in_line.into_iter().chain(borrowing).min()
            }
            Site::Exclusion(slot) => {
                let heads = self.exclusions.get(slot).parked_heads().map(|(_, place)| place.id);
                let borrowers = self.borrowers.iter().copied();
                heads
                    .chain(borrowers)
                    .map(|id| &self.waiters[&id])
                    .filter(|waiter| {
                        self.count_evaluation();
                        let need = waiter.witness();
                        need.site() == site && self.passes(need, waiter.place, &waiter.party)
                    })
                    .map(|waiter| waiter.place)
                    .min()
            }
        }
    }

    fn passes(&self, need: Need, place: Place, party: &Party) -> bool {
        match need {
            Need::Capacity { site, units } => {
                self.limits.get(site).passes(units, place, party.lender)
            }
            Need::Exclusion { site, class } => {
                let standing = match self.holding_roots.contains_key(&party.root) {
                    true => Standing::Borrower,
                    false => Standing::InLine,
                };
                self.exclusions.get(site).passes(&self.rules, class, place, &party.root, standing)
            }
        }
    }

    /// The first need that cannot be met.
    pub(super) fn first_failing(
        &self,
        needs: &[Need],
        place: Place,
        party: &Party,
    ) -> Option<usize> {
        self.count_evaluation();
        needs.iter().position(|&need| !self.passes(need, place, party))
    }

    /// Grants a parked waiter, or parks it where it has to wait now.
    pub(super) fn examine(&mut self, id: RequestId) {
        let waiter = &self.waiters[&id];
        match self.first_failing(&waiter.needs, waiter.place, &waiter.party) {
            Some(witness) => {
                self.unpark(id);
                if cfg!(mutant = "moving_forgets_overtakes") {
                    self.waiters.entry(id).and_modify(|waiter| waiter.overtakes = 0);
                }
                self.park(id, witness);
            }
            None => {
                let waiter = self.leave(id);
                let waited = self.now.since(waiter.since);
                self.count_grant(&waiter.needs, waited, waiter.overtakes);
                let revoke_at = self.now + self.rules.claim_within();
                let unclaimed = Unclaimed {
                    revoke_at,
                    since: waiter.since,
                    coalesce_key: waiter.coalesce_key,
                    overtakes: waiter.overtakes,
                };
                self.actions.extend(waiter.members.keys().copied().map(Action::Grant));
                self.grant(waiter.party, waiter.needs, waiter.place, waiter.members);
                if let Some(holder) = self.holders.get_mut(&id) {
                    holder.unclaimed = Some(unclaimed);
                    self.unclaimed.insert((revoke_at, id));
                }
            }
        }
    }

    /// Takes everything that is needed.
    pub(super) fn grant(&mut self, party: Party, needs: Vec<Need>, place: Place, members: Members) {
        let mut holder = Holder::new(party, needs, place, self.now, members);
        for need in holder.needs.clone() {
            match need {
                Need::Exclusion { site, class } => {
                    self.exclusions.get_mut(site).hold(class, place.id, &holder.party.root);
                }
                Need::Capacity { site, units } => {
                    if cfg!(mutant = "the_last_claim_is_not_taken") && holder.needs.len() > 2 {
                        break;
                    }
                    self.borrow(&mut holder, site, units);
                    self.limits.get_mut(site).hold(place.id, units);
                }
            }
        }
        if holder.has_exclusions() {
            self.start_holding(&holder.party.root);
        }
        self.start_owning(&holder.party.owner);
        for overtaken in self.overtaken(&holder.needs, place) {
            self.overtake(overtaken);
        }
        self.holders.insert(place.id, holder);
    }

    /// Takes a holder out of the books. What it holds has still to be given back.
    pub(super) fn take_out(&mut self, id: RequestId) -> Option<Holder> {
        let holder = self.holders.remove(&id)?;
        if holder.has_exclusions() {
            self.stop_holding(&holder.party.root);
        }
        self.stop_owning(&holder.party.owner);
        if let Some(unclaimed) = &holder.unclaimed {
            self.unclaimed.remove(&(unclaimed.revoke_at, id));
        }
        Some(holder)
    }

    /// The first of those in line for each limit who lack units there, if it was passed just
    /// now by the grant at `place`.
    ///
    /// It need not be parked at that limit. If two limits took turns in keeping it waiting,
    /// those who pass at the other one would otherwise go uncounted, for ever. Nor need it be
    /// the first in line: who stands before it may wait for something else.
    fn overtaken(&self, granted: &[Need], place: Place) -> BTreeSet<RequestId> {
        let limits = granted.iter().filter_map(|need| match *need {
            Need::Capacity { site, .. } => Some(site),
            Need::Exclusion { .. } => None,
        });
        limits
            .filter_map(|site| {
                let limit = self.limits.get(site);
                let free = u64::from(limit.capacity).saturating_sub(limit.used);
                let short = limit.line.iter().filter(|&(&units, _)| u64::from(units) > free);
                // Of equal needs the first is short, unless it is lent what is missing.
                let firsts = short.filter_map(|(&units, places)| {
                    places.iter().take_while(|&&waiting| waiting < place).find(|&&waiting| {
                        let lender = self.waiters[&waiting.id].party.lender;
                        !limit.passes(units, waiting, lender)
                    })
                });
                firsts.min().map(|first| first.id)
            })
            .collect()
    }

    /// Counts that a waiter was passed by a later request.
    fn overtake(&mut self, id: RequestId) {
        let overtakes_max = self.rules.overtakes_max();
        let Some(waiter) = self.waiters.get_mut(&id) else { return };
        waiter.overtakes = waiter.overtakes.saturating_add(1);
        if waiter.overtakes == overtakes_max {
            // An exclusion may have been taken since it was parked. Nothing is set aside
            // for somebody who waits for an exclusion, so it is examined again.
            let waiter = &self.waiters[&id];
            let witness = self
                .first_failing(&waiter.needs, waiter.place, &waiter.party)
                .unwrap_or(waiter.witness);
            self.unpark(id);
            self.park(id, witness);
        }
    }

    /// Puts a new waiter into every line that it belongs to.
    pub(super) fn enter(&mut self, waiter: Waiter) {
        let (id, place, witness) = (waiter.place.id, waiter.place, waiter.witness);
        for &need in &waiter.needs {
            if let Need::Exclusion { site, class } = need {
                groups::insert(&mut self.exclusions.get_mut(site).line, class, place);
            }
        }
        if waiter.party.lender.is_some() {
            self.capacity_borrowers.insert(id);
        }
        let root = Arc::clone(&waiter.party.root);
        if self.holding_roots.contains_key(&root) {
            self.borrowers.insert(id);
        }
        self.waiting_roots.entry(root).or_default().insert(id);
        self.add_deadlines(&waiter);
        self.waiters.insert(id, waiter);
        self.park(id, witness);
    }

    /// Takes a waiter out of every line. Whoever stood behind it is asked again, also when
    /// it was granted: some only had to let it go first.
    ///
    /// # Panics
    ///
    /// If the request does not wait.
    pub(super) fn leave(&mut self, id: RequestId) -> Waiter {
        self.unpark(id);
        let waiter = self.waiters.remove(&id).expect("only a waiter can leave the line");
        for &need in &waiter.needs {
            if let Need::Exclusion { site, class } = need {
                groups::remove(&mut self.exclusions.get_mut(site).line, &class, waiter.place);
                if cfg!(mutant = "who_stood_behind_is_not_asked") {
                    continue;
                }
                self.gained.insert(need.site());
            }
        }
        self.borrowers.remove(&id);
        self.capacity_borrowers.remove(&id);
        if let Some(waiting) = self.waiting_roots.get_mut(&waiter.party.root) {
            waiting.remove(&id);
            if waiting.is_empty() {
                self.waiting_roots.remove(&waiter.party.root);
            }
        }
        self.remove_deadlines(&waiter);
        waiter
    }

    /// Parks a waiter at its witness, and sets its units aside if it was passed too often.
    pub(super) fn park(&mut self, id: RequestId, witness: usize) {
        let overtakes_max = self.rules.overtakes_max();
        let waiter = self.waiters.get_mut(&id).expect("only a waiter can be parked");
        waiter.witness = witness;
        match waiter.needs[witness] {
            Need::Exclusion { site, class } => {
                groups::insert(&mut self.exclusions.get_mut(site).parked, class, waiter.place);
            }
            Need::Capacity { site, units } => {
                groups::insert(&mut self.limits.get_mut(site).parked, units, waiter.place);
                let limits = waiter.needs.iter().filter_map(|need| match *need {
                    Need::Capacity { site, units } => Some((site, units)),
                    Need::Exclusion { .. } => None,
                });
                // While a lane is paused its waiters take nothing from the other limits.
                let is_paused = limits.clone().any(|(site, _)| self.limits.get(site).capacity == 0);
                waiter.is_reserving = waiter.overtakes >= overtakes_max && !is_paused;
                for (site, units) in limits {
                    let limit = self.limits.get_mut(site);
                    if !is_paused || limit.capacity == 0 {
                        groups::insert(&mut limit.line, units, waiter.place);
                    }
                    if waiter.is_reserving {
                        limit.reserved.insert(waiter.place, units);
                    }
                }
            }
        }
    }

    pub(super) fn unpark(&mut self, id: RequestId) {
        let waiter = self.waiters.get_mut(&id).expect("only a waiter is parked");
        match waiter.witness() {
            Need::Exclusion { site, class } => {
                groups::remove(&mut self.exclusions.get_mut(site).parked, &class, waiter.place);
            }
            Need::Capacity { site, units } => {
                groups::remove(&mut self.limits.get_mut(site).parked, &units, waiter.place);
                let is_reserving = std::mem::take(&mut waiter.is_reserving);
                for &need in &waiter.needs {
                    if let Need::Capacity { site, units } = need {
                        let limit = self.limits.get_mut(site);
                        groups::remove(&mut limit.line, &units, waiter.place);
                        if is_reserving {
                            limit.reserved.remove(&waiter.place);
                            self.gained.insert(need.site());
                        }
                    }
                }
            }
        }
    }

    /// Takes back what a holder has and notes who gains from it.
    pub(super) fn give_back(&mut self, id: RequestId, holder: &mut Holder) {
        for need in holder.needs.clone() {
            match need {
                Need::Exclusion { site, class } => {
                    self.exclusions.get_mut(site).release(class, id);
                    self.gained.insert(need.site());
                }
                Need::Capacity { site, units } => self.return_units(id, holder, site, units),
            }
            if cfg!(mutant = "release_looks_at_the_first_only")
                && need.site() != holder.needs[0].site()
            {
                self.gained.remove(&need.site());
            }
        }
        holder.loans.clear();
    }

    /// Reads the capacity of a limit again.
    pub(super) fn refresh_capacity(&mut self, slot: Slot) {
        let Some(bounds) = self.rules.bounds(self.limits.name(slot)) else { return };
        let limit = self.limits.get_mut(slot);
        let was_paused = limit.capacity == 0;
        limit.capacity = match cfg!(mutant = "shrinking_changes_nothing") {
            true => bounds.capacity.max(limit.capacity),
            false => bounds.capacity,
        };
        self.gained.insert(Site::Limit(slot));
        if was_paused != (bounds.capacity == 0) {
            // What is set aside depends on whether the limit is paused.
            let line: Vec<_> =
                self.limits.get(slot).line.values().flatten().map(|place| place.id).collect();
            for id in line {
                let witness = self.waiters[&id].witness;
                self.unpark(id);
                self.park(id, witness);
            }
        }
    }

    fn start_holding(&mut self, root: &Arc<str>) {
        let count = self.holding_roots.entry(Arc::clone(root)).or_default();
        *count += 1;
        if *count == 1
            && let Some(waiting) = self.waiting_roots.get(root)
        {
            for id in waiting {
                self.borrowers.insert(*id);
                self.gained.insert(self.waiters[id].witness().site());
            }
        }
    }

    pub(super) fn stop_holding(&mut self, root: &Arc<str>) {
        if let Some(count) = self.holding_roots.get_mut(root) {
            *count -= 1;
            if *count == 0 {
                self.holding_roots.remove(root);
                for id in self.waiting_roots.get(root).into_iter().flatten() {
                    self.borrowers.remove(id);
                }
            }
        }
    }
}
