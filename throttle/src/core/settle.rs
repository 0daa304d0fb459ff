//! Who may start, who has to wait, and where.

use smallvec::SmallVec;

use super::exclusion_site::Standing;
use super::request_state::{Holder, Need, Party, Place, Record, Site, Unclaimed, Waiter};
use super::requests::Entry;
use super::table::Slot;
use super::{Action, Core};
use crate::request_id::RequestId;

impl Core {
    /// Lets everybody start who can, in the order of their places.
    #[inline]
    pub(super) fn settle(&mut self) {
        if !self.gained.is_empty() {
            self.ask_all();
        }
    }

    #[inline(never)]
    fn ask_all(&mut self) {
        while !self.gained.is_empty() {
            let mut best: Option<Place> = None;
            let mut index = 0;
            while let Some(&site) = self.gained.get(index) {
                match self.first_passing(site) {
                    None => self.ungain(site),
                    Some(place) => {
                        best = Some(best.map_or(place, |best| best.min(place)));
                        index += 1;
                    }
                }
            }
            match best {
                Some(place) => self.examine(place.id),
                None => break,
            }
        }
    }

    /// Notes that somebody parked at `site` may be able to pass now. Where nobody is parked
    /// there is nothing to note: whoever parks there later was held against what there is then.
    pub(super) fn gain(&mut self, site: Site) {
        let is_new = match site {
            Site::Exclusion(slot) => self.exclusions.get_mut(slot).gain(),
            Site::Limit(slot) => self.limits.get_mut(slot).gain(),
        };
        if is_new {
            self.gained.push(site);
        }
    }

    fn ungain(&mut self, site: Site) {
        if let Some(index) = self.gained.iter().position(|&gained| gained == site) {
            self.gained.swap_remove(index);
            match site {
                Site::Exclusion(slot) => self.exclusions.get_mut(slot).has_gained = false,
                Site::Limit(slot) => self.limits.get_mut(slot).has_gained = false,
            }
        }
    }

    /// Asks nobody.
    pub(super) fn ungain_all(&mut self) {
        while let Some(&site) = self.gained.first() {
            self.ungain(site);
        }
    }

    /// The first waiter parked at `site` whose need there can be met.
    fn first_passing(&self, site: Site) -> Option<Place> {
        match site {
            Site::Limit(slot) => {
                let in_line = self.limits.get(slot).first_passing(|| self.count_evaluation());
                if self.capacity_borrowers.is_empty() {
                    return in_line;
                }
                let borrowing = self
                    .capacity_borrowers
                    .iter()
                    .map(|&id| self.waiter(id))
                    .filter(|waiter| {
                        self.count_evaluation();
                        let need = waiter.witness();
                        need.site() == site && self.passes(need, waiter.place, waiter.party)
                    })
                    .map(|waiter| waiter.place)
                    .min();
                in_line.into_iter().chain(borrowing).min()
            }
            // If the first of its class cannot pass, no later one can, borrowers apart.
            Site::Exclusion(slot) => {
                let passes = |id| {
                    self.count_evaluation();
                    let waiter = self.waiter(id);
                    let need = waiter.witness();
                    need.site() == site && self.passes(need, waiter.place, waiter.party)
                };
                let parked = &self.exclusions.get(slot).parked;
                let in_line = parked.first_that(|_, place| passes(place.id));
                if self.borrowers.is_empty() {
                    return in_line;
                }
                let borrowing = self.borrowers.iter().filter(|&&id| passes(id));
                let borrowing = borrowing.map(|&id| self.waiter(id).place).min();
                in_line.into_iter().chain(borrowing).min()
            }
        }
    }

    #[inline]
    fn passes(&self, need: Need, place: Place, party: Party) -> bool {
        match need {
            Need::Capacity { site, units } => {
                self.limits.get(site).passes(units, place, party.lender)
            }
            Need::Exclusion { site, class } => {
                let standing = match self.is_holding(party.root) {
                    true => Standing::Borrower,
                    false => Standing::InLine,
                };
                self.exclusions.get(site).passes(&self.rules, class, place, party.root, standing)
            }
        }
    }

    /// The first need that cannot be met.
    #[inline]
    pub(super) fn first_failing(
        &self,
        needs: &[Need],
        place: Place,
        party: Party,
    ) -> Option<usize> {
        self.count_evaluation();
        needs.iter().position(|&need| !self.passes(need, place, party))
    }

    /// Grants a parked waiter, or parks it where it has to wait now.
    pub(super) fn examine(&mut self, id: RequestId) {
        let waiter = self.waiter(id);
        match self.first_failing(&waiter.needs, waiter.place, waiter.party) {
            Some(witness) => {
                self.unpark(id);
                if cfg!(mutant = "moving_forgets_overtakes") {
                    self.waiter_mut(id).overtakes = 0;
                }
                self.park(id, witness);
            }
            None => {
                let mut waiter = self.leave(id);
                let waited = self.now.since(waiter.since);
                self.count_grant(&waiter.needs, waited, waiter.overtakes);
                let revoke_at = self.now + self.rules.claim_within();
                waiter.unclaimed = Some(Unclaimed { revoke_at, waiting_since: waiter.since });
                self.unclaimed.insert((revoke_at, id), ());
                self.actions.extend(waiter.members.iter().map(|(id, _)| Action::Grant(id)));
                self.grant(waiter);
            }
        }
    }

    /// Takes everything that is needed; [`Core::grant_again`] does it the short way.
    pub(super) fn grant(&mut self, mut holder: Holder) {
        let (party, place) = (holder.party, holder.place);
        holder.since = self.now;
        if party.lender.is_some() {
            self.borrow(&mut holder);
        }
        let mut is_passing = false;
        for &need in &holder.needs {
            match need {
                Need::Exclusion { site, class } => {
                    self.exclusions.get_mut(site).hold(class, place.id, party.root);
                }
                Need::Capacity { site, units } => {
                    if cfg!(mutant = "the_last_claim_is_not_taken") && holder.needs.len() > 2 {
                        break;
                    }
                    let limit = self.limits.get_mut(site);
                    limit.hold(place.id, units);
                    is_passing |= limit.line.is_any_before(place);
                }
            }
        }
        if holder.has_exclusions() {
            self.start_holding(party.root);
            self.unpin(&holder.needs);
        }
        self.start_owning(party.owner);
        if is_passing {
            for overtaken in self.overtaken(&holder.needs, place) {
                self.overtake(overtaken);
            }
        }
        self.requests.insert(place.id, Entry::Holder(holder));
    }

    /// Takes a holder out of the books. What it holds has still to be given back.
    pub(super) fn take_out(&mut self, id: RequestId) -> Option<Holder> {
        let holder = self.requests.take_holder(id)?;
        self.strike_out(&holder);
        Some(holder)
    }

    /// Somebody is no holder any more.
    #[inline]
    pub(super) fn strike_out(&mut self, holder: &Record) {
        if holder.has_exclusions() {
            self.stop_holding(holder.party.root);
        }
        self.stop_owning(holder.party.owner);
        if let Some(unclaimed) = &holder.unclaimed {
            self.unclaimed.remove(&(unclaimed.revoke_at, holder.place.id));
        }
    }

    /// The first of those in line for each limit who lack units there, if it was passed just
    /// now by the grant at `place`.
    ///
    /// It need not be parked at that limit. If two limits took turns in keeping it waiting,
    /// those who pass at the other one would otherwise go uncounted, for ever. Nor need it be
    /// the first in line: who stands before it may wait for something else.
    fn overtaken(&self, granted: &[Need], place: Place) -> SmallVec<[RequestId; 4]> {
        let mut overtaken = SmallVec::new();
        for (site, _) in granted.iter().filter_map(|need| need.capacity()) {
            let limit = self.limits.get(site);
            let free = u64::from(limit.capacity).saturating_sub(limit.used);
            let short = limit.line.iter().filter(|&(units, _)| u64::from(units) > free);
            // Of equal needs the first is short, unless it is lent what is missing.
            let firsts = short.filter_map(|(units, places)| {
                places.keys().take_while(|&waiting| waiting < place).find(|&waiting| {
                    let lender = self.waiter(waiting.id).party.lender;
                    !limit.passes(units, waiting, lender)
                })
            });
            overtaken.extend(firsts.min().map(|first| first.id));
        }
        // Whoever was passed at two limits was passed once.
        overtaken.sort_unstable();
        overtaken.dedup();
        overtaken
    }

    /// Counts that a waiter was passed by a later request.
    fn overtake(&mut self, id: RequestId) {
        let overtakes_max = self.rules.overtakes_max();
        let Some(waiter) = self.requests.waiter_mut(id) else { return };
        waiter.overtakes = waiter.overtakes.saturating_add(1);
        if waiter.overtakes == overtakes_max {
            // An exclusion may have been taken since it was parked. Nothing is set aside
            // for somebody who waits for an exclusion, so it is examined again.
            self.park_again(id);
        }
    }

    /// Parks a waiter at whatever it waits for now.
    fn park_again(&mut self, id: RequestId) {
        let waiter = self.waiter(id);
        let witness =
            self.first_failing(&waiter.needs, waiter.place, waiter.party).unwrap_or(waiter.witness);
        self.unpark(id);
        self.park(id, witness);
    }

    /// Exclusions were taken: those who have units set aside and need a conflicting one wait
    /// for that now, and nothing is set aside for them meanwhile.
    pub(super) fn unpin(&mut self, taken: &[Need]) {
        for &need in taken {
            let Need::Exclusion { site, class } = need else { continue };
            let site = self.exclusions.get(site);
            let waiting = site.pinned.iter();
            let waiting =
                waiting.filter(|&(queued, _)| !self.rules.may_join(site.scope, class, queued));
            let waiting: SmallVec<[_; 4]> =
                waiting.flat_map(|(_, places)| places.keys()).map(|place| place.id).collect();
            for id in waiting {
                self.park_again(id);
            }
        }
    }

    /// Puts a new waiter into every line that it belongs to.
    pub(super) fn enter(&mut self, waiter: Waiter) {
        let (id, place, witness) = (waiter.place.id, waiter.place, waiter.witness);
        for &need in &waiter.needs {
            if let Need::Exclusion { site, class } = need {
                self.exclusions.get_mut(site).line.insert(class, place);
            }
        }
        if waiter.party.lender.is_some() {
            self.capacity_borrowers.insert(id);
        }
        let root = waiter.party.root;
        if self.is_holding(root) {
            self.borrowers.insert(id);
        }
        self.start_waiting(root, id);
        self.add_deadlines(&waiter);
        self.requests.insert(id, Entry::Waiter(waiter));
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
        let waiter = self.requests.take_waiter(id).expect("only a waiter can leave the line");
        for &need in &waiter.needs {
            if let Need::Exclusion { site, class } = need {
                self.exclusions.get_mut(site).line.remove(class, waiter.place);
                if cfg!(mutant = "who_stood_behind_is_not_asked") {
                    continue;
                }
                self.gain(need.site());
            }
        }
        if !self.borrowers.is_empty() {
            self.borrowers.remove(&id);
        }
        if waiter.party.lender.is_some() {
            self.capacity_borrowers.remove(&id);
        }
        self.stop_waiting(waiter.party.root, id);
        self.remove_deadlines(&waiter);
        waiter
    }

    /// Parks a waiter at its witness, and sets its units aside if it was passed too often.
    pub(super) fn park(&mut self, id: RequestId, witness: usize) {
        let overtakes_max = self.rules.overtakes_max();
        let waiter = self.requests.waiter_mut(id).expect("only a waiter can be parked");
        waiter.witness = witness;
        match waiter.needs[witness] {
            Need::Exclusion { site, class } => {
                self.exclusions.get_mut(site).parked.insert(class, waiter.place);
            }
            Need::Capacity { site, units } => {
                self.limits.get_mut(site).parked.insert(units, waiter.place);
                let limits = waiter.needs.iter().filter_map(|need| need.capacity());
                // While a lane is paused its waiters take nothing from the other limits.
                let is_paused = limits.clone().any(|(site, _)| self.limits.get(site).capacity == 0);
                waiter.is_reserving = waiter.overtakes >= overtakes_max && !is_paused;
                for (site, units) in limits {
                    let limit = self.limits.get_mut(site);
                    if !is_paused || limit.capacity == 0 {
                        limit.line.insert(units, waiter.place);
                    }
                    if waiter.is_reserving {
                        limit.reserved.insert(waiter.place, units);
                    }
                }
                if waiter.is_reserving {
                    for &need in &waiter.needs {
                        if let Need::Exclusion { site, class } = need {
                            self.exclusions.get_mut(site).pinned.insert(class, waiter.place);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn unpark(&mut self, id: RequestId) {
        let waiter = self.requests.waiter_mut(id).expect("only a waiter is parked");
        let place = waiter.place;
        match waiter.witness() {
            Need::Exclusion { site, class } => {
                self.exclusions.get_mut(site).parked.remove(class, place);
            }
            Need::Capacity { site, units } => {
                self.limits.get_mut(site).parked.remove(units, place);
                let was_reserving = std::mem::take(&mut waiter.is_reserving);
                let limits = waiter.needs.iter().filter_map(|need| need.capacity());
                for (site, units) in limits.clone() {
                    self.limits.get_mut(site).line.remove(units, place);
                }
                if was_reserving {
                    for need in waiter.needs.clone() {
                        match need {
                            Need::Exclusion { site, class } => {
                                self.exclusions.get_mut(site).pinned.remove(class, place);
                            }
                            Need::Capacity { site, .. } => {
                                self.limits.get_mut(site).reserved.remove(&place);
                                self.gain(Site::Limit(site));
                            }
                        }
                    }
                }
            }
        }
    }

    /// Takes back what a holder has and notes who gains from it.
    pub(super) fn give_back(&mut self, id: RequestId, holder: &mut Record) {
        let Record { needs, loans, party, .. } = holder;
        for &need in &*needs {
            let has_gained = match need {
                Need::Exclusion { site, class } => {
                    let site = self.exclusions.get_mut(site);
                    site.release(class, id);
                    site.gain()
                }
                Need::Capacity { site: slot, units } => {
                    let site = self.limits.get_mut(slot);
                    let (returned, has_gained) = (site.take_back(id, units), site.gain());
                    if !loans.is_empty() {
                        self.repay(*party, loans, slot, returned);
                    }
                    has_gained
                }
            };
            if has_gained {
                self.gained.push(need.site());
            }
            if cfg!(mutant = "release_looks_at_the_first_only") && need.site() != needs[0].site() {
                self.ungain(need.site());
            }
        }
        loans.clear();
    }

    /// Reads the capacity of a limit again.
    pub(super) fn refresh_capacity(&mut self, slot: Slot) {
        let bounds = self.rules.bounds(self.limits.name(slot));
        let limit = self.limits.get_mut(slot);
        limit.ceiling = bounds.map(|bounds| bounds.ceiling);
        let Some(bounds) = bounds else { return };
        let was_paused = limit.capacity == 0;
        limit.capacity = match cfg!(mutant = "shrinking_changes_nothing") {
            true => bounds.capacity.max(limit.capacity),
            false => bounds.capacity,
        };
        self.gain(Site::Limit(slot));
        if was_paused != (bounds.capacity == 0) {
            // What is set aside depends on whether the limit is paused.
            let line: Vec<_> = self.limits.get(slot).line.places().map(|place| place.id).collect();
            for id in line {
                self.park_again(id);
            }
        }
    }
}
