//! Why a request was not granted.

use std::time::Duration;

use crate::clock::Instant;
use crate::resource::Resource;

/// An exclusion that could not be taken because somebody else has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conflict {
    /// What both want to work on.
    pub resource: Resource,
    /// The class that was asked for.
    pub class: String,
    /// The owner that has the exclusion.
    pub holder: String,
    /// The class for which it has it.
    pub holder_class: String,
    /// Since when it has it.
    pub since: Instant,
}

/// Why a request was not granted, with what is needed to act on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireErrorKind {
    /// The admission was closed.
    #[error("was refused: admission is closed")]
    Closed,
    /// The request would have to wait, and was made with
    /// [`Admission::try_acquire`](crate::Admission::try_acquire).
    #[error("would have to wait for {}", blocked_by.as_deref().unwrap_or("capacity"))]
    WouldWait {
        /// Somebody it would wait for, if there is one.
        blocked_by: Option<String>,
    },
    /// The request would have to wait while its owner holds a permit: if what it waits for
    /// waits for that permit, both wait for ever.
    ///
    /// Give the permit back first, or make the request part of the operation that holds it
    /// ([`Request::lent_by`](crate::Request::lent_by)).
    #[error("would wait for {} while its owner holds a permit", blocked_by.as_deref().unwrap_or("capacity"))]
    WouldNest {
        /// Somebody it would wait for, if there is one.
        blocked_by: Option<String>,
    },
    /// The permit is gone: [`Admission::force_release`](crate::Admission::force_release).
    #[error("lost its permit: it was released by force")]
    Released,
    /// The deadline of the request passed while it waited.
    #[error("expired after {waited:?}")]
    Expired {
        /// How long it waited.
        waited: Duration,
        /// Somebody it was waiting for, if there was one.
        blocked_by: Option<String>,
    },
    /// A rule of the policy refuses the work while other work runs.
    #[error("was rejected with {code} because of {}", conflict.holder)]
    Rejected {
        /// The code that the policy gives for it.
        code: String,
        /// What it conflicts with.
        conflict: Conflict,
    },
    /// An equal request is waiting already, or was granted and its permit given back before
    /// anybody came for this one.
    #[error("is one with the request of {into}")]
    Coalesced {
        /// The owner whose outcome is the outcome of this request too.
        into: String,
    },
    /// Exclusions could not be taken back because others hold them.
    #[error("asks for exclusions that are held by others: {}", conflicts.len())]
    Conflicting {
        /// Every conflict that there is.
        conflicts: Vec<Conflict>,
    },
    /// More units are asked for than the limit has ever had.
    #[error("asks for {units} units of {limit} of {resource}, which has {ceiling}")]
    Unsatisfiable {
        /// Whose limit it is.
        resource: Resource,
        /// The name of the limit.
        limit: String,
        /// What was asked for.
        units: u64,
        /// The most that can be asked for.
        ceiling: u32,
    },
    /// No policy is registered for the workload.
    #[error("names workload {workload}, which has no policy")]
    UnknownWorkload {
        /// The name that is not known.
        workload: String,
    },
    /// The policy of the workload has no such class.
    #[error("names class {class}, which workload {workload} does not have")]
    UnknownClass {
        /// The workload.
        workload: String,
        /// The name that is not known.
        class: String,
    },
    /// Neither the host nor a policy has set the limit.
    #[error("names limit {limit} of {resource}, which is not set")]
    UnknownLimit {
        /// The resource.
        resource: Resource,
        /// The name that is not known.
        limit: String,
    },
    /// The request has no claims, too many of them, or one for no units.
    #[error("is malformed: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A request that was not granted. See [`AcquireError::kind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("request of {} {}", refused.owner, refused.kind)]
pub struct AcquireError {
    // Boxed, so that the success path does not carry the size of the failures.
    refused: Box<Refused>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    owner: String,
    kind: AcquireErrorKind,
}

impl AcquireError {
    pub(crate) fn new(owner: &str, kind: AcquireErrorKind) -> Self {
        Self { refused: Box::new(Refused { owner: owner.to_owned(), kind }) }
    }

    /// What went wrong; match on this, with a `_` arm.
    pub fn kind(&self) -> &AcquireErrorKind {
        &self.refused.kind
    }

    /// The owner of the request.
    pub fn owner(&self) -> &str {
        &self.refused.owner
    }

    /// Whether the same request may be granted later without anyone's help.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.refused.kind,
            AcquireErrorKind::WouldWait { .. }
                | AcquireErrorKind::Expired { .. }
                | AcquireErrorKind::Rejected { .. }
                | AcquireErrorKind::Conflicting { .. }
        )
    }
}
