//! What the core remembers of a request.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::members::Members;
use super::prepared::Stamp;
use super::rulebook::ClassRef;
use super::table::Slot;
use crate::clock::Instant;
use crate::request_id::RequestId;

/// The place of a request in every line that it stands in.
///
/// Priority is a head start in time. Since everybody ages alike the place never changes,
/// so ageing needs no work and a request cannot be put behind late arrivals for ever.
#[derive(Clone, Copy, Debug, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Nanoseconds since the clock's origin, less the head start. Below zero for requests
    /// that waited before the clock began. As far as 64 bits reach.
    pub(super) due: i64,
    /// Among requests that are due at the same time, whose place it is: the request's own,
    /// or that of the permit whose place it takes again.
    pub(super) rank: u64,
    pub(super) id: RequestId,
}

/// The nanoseconds of `time`, or the most that can be counted, those of 292 years.
#[inline]
pub(super) fn nanoseconds(time: Duration) -> i64 {
    let whole = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    whole.saturating_mul(1_000_000_000).saturating_add(i64::from(time.subsec_nanos()))
}

impl PartialEq for Place {
    /// Nobody has two places, so this agrees with the order.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// One claim, resolved to the site that decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Exclusion { site: Slot, class: ClassRef },
    Capacity { site: Slot, units: u32 },
}

impl Need {
    #[inline]
    pub(super) fn site(self) -> Site {
        match self {
            Self::Exclusion { site, .. } => Site::Exclusion(site),
            Self::Capacity { site, .. } => Site::Limit(site),
        }
    }

    /// The limit and the units, if it is a capacity.
    #[inline]
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

/// One request, from when it is handed in until its permit is gone.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) party: Party,
    pub(super) needs: Needs,
    pub(super) place: Place,
    /// Since when it is what it is: waiting, or granted.
    pub(super) since: Instant,
    pub(super) members: Members,
    pub(super) coalesce_key: Option<Arc<str>>,
    /// The first need that cannot be met: the one place where a waiter is parked.
    pub(super) witness: usize,
    /// Counted here and not where it is parked, so that moving does not reset it.
    pub(super) overtakes: u32,
    /// Whether its units are set aside at every limit that it needs.
    pub(super) is_reserving: bool,
    /// Capacity that was given back and may be wanted again.
    pub(super) given_up: Needs,
    /// By limit, how many of its units came from the lender.
    pub(super) loans: Vec<(Slot, u32)>,
    /// What there is to know of a grant until somebody comes for it.
    pub(super) unclaimed: Option<Unclaimed>,
    /// Who did the work, once it has left the permit to those who followed it.
    pub(super) lead: Option<Arc<str>>,
    /// Of which prepared request it is one.
    pub(super) prepared: Option<Stamp>,
}

/// A grant that nobody came for yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unclaimed {
    pub(super) revoke_at: Instant,
    pub(super) waiting_since: Instant,
}

/// A request that is not granted. It holds nothing.
pub(super) type Waiter = Box<Record>;

/// A request that was granted.
pub(super) type Holder = Box<Record>;

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

impl Record {
    /// A record that is not about any request yet.
    pub(super) fn blank() -> Box<Self> {
        let nobody = Party { owner: Slot::default(), root: Slot::default(), lender: None };
        let nowhere = Place { due: 0, rank: 0, id: RequestId { number: 0, slot: 0 } };
        Box::new(Self {
            party: nobody,
            needs: Needs::new(),
            place: nowhere,
            since: Instant::ORIGIN,
            members: Members::default(),
            coalesce_key: None,
            witness: 0,
            overtakes: 0,
            is_reserving: false,
            given_up: Needs::new(),
            loans: Vec::new(),
            unclaimed: None,
            lead: None,
            prepared: None,
        })
    }

    /// Forgets what the record was about. Party, place and times are written anew anyway.
    pub(super) fn wipe(&mut self) {
        self.needs.clear();
        self.members.clear();
        self.coalesce_key = None;
        (self.witness, self.overtakes, self.is_reserving) = (0, 0, false);
        self.given_up.clear();
        self.loans.clear();
        self.unclaimed = None;
        self.lead = None;
        self.prepared = None;
    }

    /// Makes the record that of a request that is not handed in yet, but has its names. False
    /// if somebody else had a part in it.
    #[inline]
    pub(super) fn rewind(&mut self) -> bool {
        let owner = self.party.owner;
        if !self.given_up.is_empty() || !self.members.rewind(self.place.id, owner) {
            return false;
        }
        self.coalesce_key = None;
        (self.witness, self.overtakes, self.is_reserving) = (0, 0, false);
        self.loans.clear();
        self.unclaimed = None;
        true
    }

    pub(super) fn witness(&self) -> Need {
        self.needs[self.witness]
    }

    #[inline]
    pub(super) fn has_exclusions(&self) -> bool {
        // They come first.
        matches!(self.needs.first(), Some(Need::Exclusion { .. }))
    }
}
