//! What the core remembers of a request.

use std::sync::Arc;

use super::rulebook::ClassRef;
use super::table::Slot;
use crate::clock::Instant;

/// The identity of a request, and of the permit that it becomes: its number in the order
/// of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(super) u64);

/// The place of a request in every line that it stands in.
///
/// Priority is a head start in time. Since everybody ages alike the place never changes,
/// so ageing needs no work and a request cannot be put behind late arrivals for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Nanoseconds since the clock's origin, less the head start. Below zero for requests
    /// that waited before the clock began.
    pub(super) due: i128,
    pub(super) id: RequestId,
}

/// One claim, resolved to the site that decides it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    Exclusion { site: Slot, class: ClassRef },
    Capacity { site: Slot, units: u32 },
}

impl Need {
    pub(super) fn site(self) -> Site {
        match self {
            Self::Exclusion { site, .. } => Site::Exclusion(site),
            Self::Capacity { site, .. } => Site::Limit(site),
        }
    }
}

/// Something that a request can wait at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Site {
    Exclusion(Slot),
    Limit(Slot),
}

/// Who asks, and the operation that it is part of.
#[derive(Clone, Debug)]
pub(super) struct Party {
    pub(super) owner: Arc<str>,
    pub(super) root: Arc<str>,
}

/// A request that waits. It holds nothing.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) party: Party,
    /// From narrow to wide, exclusions before capacities.
    pub(super) needs: Vec<Need>,
    pub(super) place: Place,
    pub(super) since: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) coalesce_key: Option<String>,
    /// The first need that cannot be met: the one place where the waiter is parked.
    pub(super) witness: usize,
    /// Counted here and not where it is parked, so that moving does not reset it.
    pub(super) overtakes: u32,
    /// Whether its units are set aside at every limit that it needs.
    pub(super) is_reserving: bool,
}

impl Waiter {
    pub(super) fn witness(&self) -> Need {
        self.needs[self.witness]
    }
}

/// A request that was granted.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) party: Party,
    pub(super) needs: Vec<Need>,
    pub(super) since: Instant,
}

impl Holder {
    pub(super) fn has_exclusions(&self) -> bool {
        self.needs.iter().any(|need| matches!(need, Need::Exclusion { .. }))
    }
}
