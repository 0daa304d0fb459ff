//! Who may start, who has to wait, and where.

use std::sync::Arc;

use super::exclusion_site::Standing;
use super::request_state::{Holder, Need, Place, RequestId, Site, Waiter};
use super::table::Slot;
use super::{Action, Core, groups};

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
            Site::Limit(slot) => self.limits.get(slot).first_passing(|| self.count_look()),
            Site::Exclusion(slot) => {
                let heads = self.exclusions.get(slot).parked_heads().map(|(_, place)| place.id);
                let borrowers = self.borrowers.iter().copied();
                heads
                    .chain(borrowers)
                    .map(|id| &self.waiters[&id])
                    .filter(|waiter| {
                        self.count_look();
                        let need = waiter.witness();
                        need.site() == site && self.passes(need, waiter.place, &waiter.party.root)
                    })
                    .map(|waiter| waiter.place)
                    .min()
            }
        }
    }

    fn passes(&self, need: Need, place: Place, root: &str) -> bool {
        match need {
            Need::Capacity { site, units } => self.limits.get(site).passes(units, place),
            Need::Exclusion { site, class } => {
                let standing = match self.holding_roots.contains_key(root) {
                    true => Standing::Borrower,
                    false => Standing::InLine,
                };
                self.exclusions.get(site).passes(&self.rules, class, place, root, standing)
            }
        }
    }

    /// The first need that cannot be met.
    pub(super) fn first_failing(&self, needs: &[Need], place: Place, root: &str) -> Option<usize> {
        self.count_look();
        needs.iter().position(|&need| !self.passes(need, place, root))
    }

    /// Grants a parked waiter, or parks it where it has to wait now.
    fn examine(&mut self, id: RequestId) {
        let waiter = &self.waiters[&id];
        match self.first_failing(&waiter.needs, waiter.place, &waiter.party.root) {
            Some(witness) => {
                self.unpark(id);
                if cfg!(mutant = "moving_forgets_overtakes") {
                    self.waiters.entry(id).and_modify(|waiter| waiter.overtakes = 0);
                }
                self.park(id, witness);
            }
            None => {
                let waiter = self.leave(id);
                let holder = Holder { party: waiter.party, needs: waiter.needs, since: self.now };
                self.grant(waiter.place, holder);
                self.actions.push(Action::Grant(id));
            }
        }
    }

    /// Takes everything that the holder needs.
    pub(super) fn grant(&mut self, place: Place, holder: Holder) {
        for &need in &holder.needs {
            match need {
                Need::Exclusion { site, class } => {
                    self.exclusions.get_mut(site).hold(class, place.id, &holder.party.root);
                }
                Need::Capacity { site, units } => {
                    if cfg!(mutant = "the_last_claim_is_not_taken") && holder.needs.len() > 2 {
                        break;
                    }
                    self.limits.get_mut(site).hold(place.id, units);
                    if let Some(head) = self.limits.get(site).head()
                        && head < place
                    {
                        self.overtake(head.id);
                    }
                }
            }
        }
        if holder.has_exclusions() {
            self.start_holding(&holder.party.root);
        }
        self.holders.insert(place.id, holder);
    }

    /// Counts that the head of a line was passed by a later request.
    fn overtake(&mut self, id: RequestId) {
        let overtakes_max = self.rules.overtakes_max();
        let Some(waiter) = self.waiters.get_mut(&id) else { return };
        waiter.overtakes = waiter.overtakes.saturating_add(1);
        if waiter.overtakes == overtakes_max {
            // An exclusion may have been taken since it was parked. Nothing is set aside
            // for somebody who waits for an exclusion, so it is examined again.
            let waiter = &self.waiters[&id];
            let witness = self
                .first_failing(&waiter.needs, waiter.place, &waiter.party.root)
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
        let root = Arc::clone(&waiter.party.root);
        if self.holding_roots.contains_key(&root) {
            self.borrowers.insert(id);
        }
        self.waiting_roots.entry(root).or_default().insert(id);
        if let Some(deadline) = waiter.deadline {
            self.deadlines.insert((deadline, id));
        }
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
        if let Some(waiting) = self.waiting_roots.get_mut(&waiter.party.root) {
            waiting.remove(&id);
            if waiting.is_empty() {
                self.waiting_roots.remove(&waiter.party.root);
            }
        }
        if let Some(deadline) = waiter.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        waiter
    }

    /// Parks a waiter at its witness, and sets its units aside if it was passed too often.
    fn park(&mut self, id: RequestId, witness: usize) {
        let overtakes_max = self.rules.overtakes_max();
        let waiter = self.waiters.get_mut(&id).expect("only a waiter can be parked");
        waiter.witness = witness;
        match waiter.needs[witness] {
            Need::Exclusion { site, class } => {
                groups::insert(&mut self.exclusions.get_mut(site).parked, class, waiter.place);
            }
            Need::Capacity { site, units } => {
                let limit = self.limits.get_mut(site);
                groups::insert(&mut limit.parked, units, waiter.place);
                // While a lane is paused its waiters take nothing from the other limits.
                if waiter.overtakes >= overtakes_max && limit.capacity > 0 {
                    waiter.is_reserving = true;
                    for &need in &waiter.needs {
                        if let Need::Capacity { site, units } = need {
                            self.limits.get_mut(site).reserved.insert(waiter.place, units);
                        }
                    }
                }
            }
        }
    }

    fn unpark(&mut self, id: RequestId) {
        let waiter = self.waiters.get_mut(&id).expect("only a waiter is parked");
        match waiter.witness() {
            Need::Exclusion { site, class } => {
                groups::remove(&mut self.exclusions.get_mut(site).parked, &class, waiter.place);
            }
            Need::Capacity { site, units } => {
                groups::remove(&mut self.limits.get_mut(site).parked, &units, waiter.place);
            }
        }
        if std::mem::take(&mut waiter.is_reserving) {
            for &need in &waiter.needs {
                if let Need::Capacity { site, .. } = need {
                    self.limits.get_mut(site).reserved.remove(&waiter.place);
                    self.gained.insert(need.site());
                }
            }
        }
    }

    /// Takes the needs of a holder back and notes who gains from it.
    pub(super) fn give_back(&mut self, id: RequestId, needs: &[Need]) {
        for &need in needs {
            match need {
                Need::Exclusion { site, class } => {
                    self.exclusions.get_mut(site).release(class, id);
                }
                Need::Capacity { site, .. } => self.limits.get_mut(site).release(id),
            }
            if cfg!(mutant = "release_looks_at_the_first_only") && need.site() != needs[0].site() {
                continue;
            }
            self.gained.insert(need.site());
        }
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
            let parked: Vec<_> =
                self.limits.get(slot).parked.values().flatten().map(|place| place.id).collect();
            for id in parked {
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
