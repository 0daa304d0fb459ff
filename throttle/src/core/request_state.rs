//! What the core remembers of a request.

use std::sync::Arc;

use smallvec::SmallVec;

use super::members::Members;
use super::rulebook::ClassRef;
use super::table::Slot;
use crate::clock::Instant;
use crate::request_id::RequestId;

/// The place of a request in every line that it stands in.
///
/// Priority is a head start in time. Since everybody ages alike the place never changes,
/// so ageing needs no work and a request cannot be put behind late arrivals for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Nanoseconds since the clock's origin, less the head start. Below zero for requests
    /// that waited before the clock began.
    pub(super) due: i128,
    /// Among requests that are due at the same time, whose place it is: the request's own,
    /// or that of the permit whose place it takes again.
    pub(super) rank: u64,
    pub(super) id: RequestId,
}

/// One claim, resolved to the site that decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// The limit and the units, if it is a capacity.
    pub(super) fn capacity(self) -> Option<(Slot, u32)> {
        match self {
            Self::Capacity { site, units } => Some((site, units)),
            Self::Exclusion { .. } => None,
        }
    }
}

/// The needs of one request, from narrow to wide, exclusions before capacities. What is usual
/// (an item, its instance, its workload and the node) fits without an allocation.
pub(super) type Needs = SmallVec<[Need; 4]>;

/// Something that a request can wait at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Site {
    Exclusion(Slot),
    Limit(Slot),
}

/// Who asks, and the operation that it is part of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Party {
    pub(super) owner: Slot,
    pub(super) root: Slot,
    /// The permit whose units it may use.
    pub(super) lender: Option<RequestId>,
}

/// A request that is not granted. It holds nothing.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) party: Party,
    pub(super) needs: Needs,
    pub(super) place: Place,
    pub(super) since: Instant,
    pub(super) members: Members,
    pub(super) coalesce_key: Option<Arc<str>>,
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

/// A request that is in no line for now.
#[derive(Debug)]
pub(super) struct Absentee {
    pub(super) waiter: Waiter,
    pub(super) reason: Absence,
}

/// Why a request is in no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// The admission was not opened yet.
    NotOpen,
    /// It was granted, and nobody came for the permit.
    Unclaimed,
}

/// A request that was granted.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) party: Party,
    pub(super) needs: Needs,
    pub(super) place: Place,
    pub(super) since: Instant,
    pub(super) members: Members,
    /// Capacity that was given back and may be wanted again.
    pub(super) given_up: Needs,
    /// By limit, how many of its units came from the lender.
    pub(super) loans: Vec<(Slot, u32)>,
    /// What is left of the waiter until somebody comes for the permit.
    pub(super) unclaimed: Option<Unclaimed>,
}

/// What it takes to make a waiter again of a grant that nobody came for.
#[derive(Debug)]
pub(super) struct Unclaimed {
    pub(super) revoke_at: Instant,
    pub(super) since: Instant,
    pub(super) coalesce_key: Option<Arc<str>>,
    pub(super) overtakes: u32,
}

impl Holder {
    pub(super) fn new(
        party: Party,
        needs: Needs,
        place: Place,
        since: Instant,
        members: Members,
        unclaimed: Option<Unclaimed>,
    ) -> Self {
        let (given_up, loans) = (Needs::new(), Vec::new());
        Self { party, needs, place, since, members, given_up, loans, unclaimed }
    }

    pub(super) fn has_exclusions(&self) -> bool {
        self.needs.iter().any(|need| matches!(need, Need::Exclusion { .. }))
    }
}
