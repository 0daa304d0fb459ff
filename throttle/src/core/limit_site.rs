//! One limit: a number that is compared, never a bag of tokens.

use super::counters::CounterIndex;
use super::groups::Groups;
use super::line::Line;
use super::request_state::Place;
use super::rulebook::Bounds;
use crate::request_id::RequestId;

/// One limit: how much there is, who uses it, and who wants to.
///
/// Changing the capacity is a matter of writing another number: those who hold more than
/// there is keep it, and nobody starts until enough was given back.
#[derive(Debug)]
pub(super) struct LimitSite {
    pub(super) capacity: u32,
    /// The most units that a request may ask for; `None` once nobody sets the limit any more.
    pub(super) ceiling: Option<u32>,
    /// Whether the host has named it from the beginning. Such a limit is there also while
    /// nobody uses it, so that asking for it does not make it anew each time.
    pub(super) is_permanent: bool,
    /// Where is counted what happens here.
    pub(super) counter: CounterIndex,
    pub(super) used: u64,
    pub(super) holders: Line<RequestId, u32>,
    /// The waiters that need units and are parked here or at another limit, by how much
    /// they need. Who waits for an exclusion is not among them, nor who needs a limit that
    /// is paused, unless it is this one: it is not this limit that keeps it waiting.
    pub(super) line: Groups<u32>,
    /// The waiters that are parked here, by how much they need.
    pub(super) parked: Groups<u32>,
    /// Units that are set aside for waiters that were overtaken too often.
    pub(super) reserved: Line<Place, u32>,
    /// Whether the site is among those that gained something.
    pub(super) has_gained: bool,
}

impl LimitSite {
    pub(super) fn new(bounds: Bounds, counter: CounterIndex) -> Self {
        Self {
            capacity: bounds.capacity,
            ceiling: Some(bounds.ceiling),
            is_permanent: false,
            counter,
            used: 0,
            holders: Line::new(),
            line: Groups::new(),
            parked: Groups::new(),
            reserved: Line::new(),
            has_gained: false,
        }
    }

    #[inline]
    pub(super) fn hold(&mut self, id: RequestId, units: u32) {
        self.used += u64::from(units);
        self.holders.insert(id, units);
    }

    /// Takes up to `units` of what `id` holds and returns how many these are.
    #[inline]
    pub(super) fn take_from(&mut self, id: RequestId, units: u32) -> u32 {
        let Some(held) = self.holders.get_mut(&id) else { return 0 };
        let taken = units.min(*held);
        *held -= taken;
        self.used -= u64::from(taken);
        taken
    }

    /// Takes up to `units` back from `id`, which is no holder any more if nothing is left.
    #[inline(always)]
    pub(super) fn take_back(&mut self, id: RequestId, units: u32) -> u32 {
        let Some(held) = self.holders.remove(&id) else { return 0 };
        let taken = units.min(held);
        if taken < held {
            self.holders.insert(id, held - taken);
        }
        self.used -= u64::from(taken);
        taken
    }

    /// Notes that somebody may be able to pass now. False if that is known, or if nobody is parked
    /// here.
    #[inline]
    pub(super) fn gain(&mut self) -> bool {
        !self.parked.is_empty() && !std::mem::replace(&mut self.has_gained, true)
    }

    /// Gives units back to `id`, which holds no more than `nominal` units then.
    pub(super) fn put_back(&mut self, id: RequestId, units: u32, nominal: u32) {
        let held = self.holders.get(&id).copied().unwrap_or(0);
        let units = units.min(nominal.saturating_sub(held));
        if units > 0 {
            self.holders.insert(id, held + units);
            self.used += u64::from(units);
        }
    }

    /// Lets `to` hold what `from` holds.
    pub(super) fn hand_over(&mut self, from: RequestId, to: RequestId) {
        if let Some(units) = self.holders.remove(&from) {
            let held = self.holders.get(&to).copied().unwrap_or(0);
            self.holders.insert(to, held + units);
        }
    }

    /// Whether there are `units` that nobody stands in line for.
    #[inline]
    pub(super) fn is_free_for(&self, units: u32) -> bool {
        let is_free = self.used + u64::from(units) <= u64::from(self.capacity);
        let is_awaited = !self.line.is_empty() || !self.reserved.is_empty();
        is_free && (!is_awaited || cfg!(mutant = "whoever_comes_again_passes_the_line"))
    }

    /// Whether `units` can be taken now at `place`.
    ///
    /// Who needs more than there is, because the limit was shrunk, runs alone. What the
    /// `lender` holds counts as free.
    #[inline]
    pub(super) fn passes(&self, units: u32, place: Place, lender: Option<RequestId>) -> bool {
        // Nearly always nothing is set aside, and everybody asks for at least one unit.
        let is_free = self.used + u64::from(units) <= u64::from(self.capacity);
        (is_free && self.reserved.is_empty()) || self.passes_by(units, place, lender)
    }

    fn passes_by(&self, units: u32, place: Place, lender: Option<RequestId>) -> bool {
        let lendable = lender.and_then(|id| self.holders.get(&id)).copied().unwrap_or(0);
        if units <= lendable {
            return true;
        }
        let (units, capacity) = (u64::from(units), u64::from(self.capacity));
        if capacity == 0 {
            return false;
        }
        let mut taken = self.used - u64::from(lendable);
        for (_, &reserved) in self.reserved.iter().take_while(|&(waiting, _)| waiting < place) {
            if cfg!(mutant = "pinned_units_are_free") {
                break;
            }
            taken += u64::from(reserved);
            // Every reservation has at least one unit, so this ends within `capacity` turns.
            if taken >= capacity {
                return false;
            }
        }
        taken + units <= capacity || (units > capacity && taken == 0)
    }

    /// The first of those parked here that can pass. Of equal needs only the first has to
    /// be looked at: a later one has at least as many reservations before it. Each look is
    /// counted with `count`.
    pub(super) fn first_passing(&self, count: impl Fn()) -> Option<Place> {
        if self.used >= u64::from(self.capacity) {
            return None;
        }
        self.parked.first_that(|units, place| {
            count();
            self.passes(units, place, None)
        })
    }
}
