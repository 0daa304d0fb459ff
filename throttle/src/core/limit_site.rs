//! One limit: a number that is compared, never a bag of tokens.

use std::collections::BTreeMap;

use super::groups::Groups;
use super::request_state::{Place, RequestId};

/// One limit: how much there is, who uses it, and who wants to.
///
/// Changing the capacity is a matter of writing another number: those who hold more than
/// there is keep it, and nobody starts until enough was given back.
#[derive(Debug)]
pub(super) struct LimitSite {
    pub(super) capacity: u32,
    pub(super) used: u64,
    pub(super) holders: BTreeMap<RequestId, u32>,
    /// The waiters that are parked here, by how much they need.
    pub(super) parked: Groups<u32>,
    /// Units that are set aside for waiters that were overtaken too often.
    pub(super) reserved: BTreeMap<Place, u32>,
}

impl LimitSite {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            capacity,
            used: 0,
            holders: BTreeMap::new(),
            parked: Groups::new(),
            reserved: BTreeMap::new(),
        }
    }

    pub(super) fn hold(&mut self, id: RequestId, units: u32) {
        self.used += u64::from(units);
        self.holders.insert(id, units);
    }

    pub(super) fn release(&mut self, id: RequestId) {
        if let Some(units) = self.holders.remove(&id) {
            self.used -= u64::from(units);
        }
    }

    /// Whether `units` can be taken now at `place`.
    ///
    /// Who needs more than there is, because the limit was shrunk, runs alone.
    pub(super) fn passes(&self, units: u32, place: Place) -> bool {
        let (units, capacity) = (u64::from(units), u64::from(self.capacity));
        if capacity == 0 {
            return false;
        }
        let mut taken = self.used;
        for (_, &reserved) in self.reserved.range(..place) {
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

    /// The first in line of those who are parked here.
    pub(super) fn head(&self) -> Option<Place> {
        self.parked.values().filter_map(|places| places.first().copied()).min()
    }

    /// The first of those parked here that can pass. Of equal needs only the first has to
    /// be looked at: a later one has at least as many reservations before it. Each look is
    /// counted with `count`.
    pub(super) fn first_passing(&self, count: impl Fn()) -> Option<Place> {
        self.parked
            .iter()
            .filter_map(|(&units, places)| {
                count();
                places.first().copied().filter(|&place| self.passes(units, place))
            })
            .min()
    }
}
