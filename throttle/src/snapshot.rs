//! A picture of an admission at one moment.

use std::time::Duration;

use crate::request::Claim;
use crate::request_id::RequestId;
use crate::resource::Resource;

/// Who holds what and who waits for what, at one moment.
///
/// The picture is taken whole: everything in it was true at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Whoever holds a permit, in the order in which the requests were made.
    pub holders: Vec<Holding>,
    /// Whoever waits, in the order in which they are considered.
    pub waiters: Vec<Waiting>,
    /// The limits that are held or waited for.
    pub limits: Vec<LimitUse>,
    /// Whether requests are granted; see [`Admission::recovering`](crate::Admission::recovering).
    pub is_open: bool,
    /// Whether the admission was closed.
    pub is_closed: bool,
}

/// A permit that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holding {
    /// The identity of the permit.
    pub id: RequestId,
    /// Who holds it.
    pub owner: String,
    /// The operation that it is part of.
    pub root: String,
    /// What is held, with classes by their proper names.
    pub claims: Vec<Claim>,
    /// How long it has been held.
    pub age: Duration,
    /// Whether the future that waited for it was polled since the grant. A grant that
    /// nobody comes for keeps its claims from everybody else.
    pub is_claimed: bool,
    /// The owners of requests that are one with it and share the permit.
    pub shared_with: Vec<String>,
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// The identity of the request.
    pub id: RequestId,
    /// Who waits.
    pub owner: String,
    /// The operation that it is part of.
    pub root: String,
    /// How long it has been waiting.
    pub age: Duration,
    /// The owners of requests that are one with it.
    pub coalesced: Vec<String>,
    /// How often it was passed by a later request while it was the first of those who lacked
    /// units of some limit.
    pub overtakes: u32,
    /// Whether its units count as taken for all who come later.
    pub is_pinned: bool,
    /// The first claim that cannot be granted at this moment.
    pub waits_for: Claim,
    /// Its place among those who wait for the same thing; 1 is the first.
    pub position: usize,
    /// Who stands in the way: whoever holds what is wanted, then the first of those whose
    /// turn comes earlier. Empty only if the limit is paused or the request is in no line.
    pub blockers: Vec<Blocker>,
    /// Whether it is in line for what it waits for.
    pub standing: Standing,
}

/// Whether a request is in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It is in line for what it waits for.
    InLine,
    /// It came before the admission was opened, and takes its place then.
    NotOpen,
    /// It was granted and its future was not polled in time. It takes its old place as
    /// soon as the future is polled.
    Unclaimed,
}

/// Somebody who stands in the way of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Blocker {
    /// Who it is.
    pub owner: String,
    /// In which way.
    pub relation: Relation,
    /// For how long it has held a permit, or waited for one.
    pub age: Duration,
}

/// In which way somebody stands in the way of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Relation {
    /// It holds what is wanted.
    Holds,
    /// It waits too, and its turn comes first.
    IsAhead,
}

/// How much of a limit is used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitUse {
    /// Whose limit it is.
    pub resource: Resource,
    /// The name of the limit.
    pub limit: String,
    /// How many units there are: the smaller of what host and policies say.
    pub capacity: u32,
    /// How many units are held. More than `capacity` after it was shrunk.
    pub used: u64,
}

impl LimitUse {
    /// How many units have to be given back before anybody is admitted to the limit.
    pub fn debt(&self) -> u64 {
        self.used.saturating_sub(u64::from(self.capacity))
    }
}
