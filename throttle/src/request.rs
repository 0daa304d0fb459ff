//! What an operation asks for: a set of claims, granted together or not at all.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::permit::Permit;
use crate::priority::Priority;
use crate::request_id::RequestId;
use crate::resource::Resource;

/// One thing that an operation needs before it may work.
///
/// Claims can be written down with an operation and taken back after a restart (see
/// [`Admission::adopt`](crate::Admission::adopt)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Claim {
    /// To do work of `class` on `resource`, by the rules of `workload`'s policy.
    ///
    /// Classes of different workloads always conflict on the same resource.
    #[non_exhaustive]
    Exclusion {
        /// The workload whose policy knows the class.
        workload: String,
        /// What is worked on.
        resource: Resource,
        /// The kind of work, or an alias of it.
        class: String,
    },
    /// To use `units` of the limit `limit` of `resource`.
    #[non_exhaustive]
    Capacity {
        /// Whose limit it is.
        resource: Resource,
        /// The name of the limit.
        limit: String,
        /// How much of it is used, at least 1.
        units: u32,
    },
}

impl Claim {
    /// A claim to do work of `class` on `resource`.
    pub fn exclusion(
        workload: impl Into<String>,
        resource: Resource,
        class: impl Into<String>,
    ) -> Self {
        Self::Exclusion { workload: workload.into(), resource, class: class.into() }
    }

    /// A claim to `units` of the limit `limit` of `resource`.
    pub fn capacity(resource: Resource, limit: impl Into<String>, units: u32) -> Self {
        Self::Capacity { resource, limit: limit.into(), units }
    }
}

/// What one operation asks for: 1 to 8 claims and how to treat them.
///
/// The claims are granted together or not at all; a request that waits holds nothing.
///
/// # Examples
///
/// ```
/// use throttle::{Priority, Request, Resource};
///
/// let request = Request::new("op-17")
///     .exclusion("sqlite", Resource::item("sqlite/main/orders.db"), "data")
///     .capacity(Resource::node(), "streams", 1)
///     .priority(Priority::High);
/// assert_eq!(request.owner(), "op-17");
/// assert_eq!(request.claims().len(), 2);
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is given to an admission"]
pub struct Request {
    pub(crate) owner: String,
    pub(crate) root: Option<String>,
    pub(crate) lender: Option<RequestId>,
    pub(crate) claims: Vec<Claim>,
    pub(crate) priority: Option<Priority>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) waited: Duration,
    pub(crate) coalesce_key: Option<Arc<str>>,
}

impl Request {
    /// The most claims that a request may have.
    pub const CLAIMS_MAX: usize = 8;

    /// A request of `owner`, still without claims.
    ///
    /// The owner is the name by which the request is shown to others, such as the id of
    /// the operation. It may own several requests, but while it holds a permit it cannot
    /// wait for another one ([`WouldNest`](crate::AcquireErrorKind::WouldNest)), unless
    /// that one is [lent](Self::lent_by). What waits already when another one of its requests
    /// is granted stays in line: whoever keeps the first until it has the second is back at
    /// holding and waiting.
    pub fn new(owner: impl Into<String>) -> Self {
        Self {
            owner: owner.into(),
            root: None,
            lender: None,
            claims: Vec::new(),
            priority: None,
            deadline: None,
            waited: Duration::ZERO,
            coalesce_key: None,
        }
    }

    /// Adds a claim to do work of `class` on `resource`; see [`Claim::Exclusion`].
    pub fn exclusion(
        self,
        workload: impl Into<String>,
        resource: Resource,
        class: impl Into<String>,
    ) -> Self {
        self.claim(Claim::exclusion(workload, resource, class))
    }

    /// Adds a claim to `units` of a limit; see [`Claim::Capacity`].
    ///
    /// Claims to the same limit are added up.
    pub fn capacity(self, resource: Resource, limit: impl Into<String>, units: u32) -> Self {
        self.claim(Claim::capacity(resource, limit, units))
    }

    /// Adds a claim that was made elsewhere.
    pub fn claim(mut self, claim: Claim) -> Self {
        self.claims.push(claim);
        self
    }

    /// How urgent the request is.
    ///
    /// Without it, the most urgent of the claimed classes decides.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// When to give up waiting, on the clock of the admission.
    ///
    /// The admission has no timer of its own: the request expires when
    /// [`Admission::tick`](crate::Admission::tick), or any call that asks for a permit or
    /// a snapshot, is made at or after this moment.
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// How long the request has waited elsewhere, for instance before a restart.
    ///
    /// It is placed in line as if it had arrived that much earlier.
    pub fn already_waited(mut self, waited: Duration) -> Self {
        self.waited = waited;
        self
    }

    /// A key that is equal for requests of which one is enough.
    ///
    /// Where the policy says so ([`Rule::Coalesce`](crate::Rule::Coalesce),
    /// [`Class::coalesce`](crate::Class::coalesce)), a request whose equal is waiting
    /// already is one with it: it has the same place in line, whatever its own priority,
    /// and shares the permit. Whoever comes for that first does the work; the others learn
    /// from [`Permit::coalesced_into`](crate::Permit::coalesced_into) whom to follow. Equal
    /// requests ask for the same claims; a request that is part of an operation has no equal.
    pub fn coalesce_key(mut self, key: impl Into<String>) -> Self {
        self.coalesce_key = Some(key.into().into());
        self
    }

    /// Makes the request part of the operation that holds `permit`.
    ///
    /// Its exclusions do not conflict with those of that operation, nor does it queue for
    /// an exclusion behind strangers, who may well be waiting for that very operation.
    /// Capacity is not lent: the units are claimed like anybody's.
    pub fn lent_by(mut self, permit: &Permit) -> Self {
        self.root = Some(permit.root().to_owned());
        self
    }

    /// Makes the request part of the operation that holds `permit`, capacity included.
    ///
    /// As [`lent_by`](Self::lent_by), and the units that the permit holds are used first;
    /// only what they do not cover is claimed like anybody's. Units that are lent cannot be
    /// lent again; they return to the permit, or, if that has given them up meanwhile, to
    /// the limit.
    pub fn borrowing_from(mut self, permit: &Permit) -> Self {
        self.lender = Some(permit.id());
        self.lent_by(permit)
    }

    /// Who asks.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The operation that the request is part of: the owner, unless it was lent.
    pub fn root(&self) -> &str {
        self.root.as_deref().unwrap_or(&self.owner)
    }

    /// What is asked for.
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }
}
