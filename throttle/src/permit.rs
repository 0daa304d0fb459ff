//! What an operation holds while it works.

use crate::core::Claimed;
use crate::reacquire::Reacquire;
use crate::request::{Claim, Request};
use crate::request_id::RequestId;
use crate::shared::Shared;
use crate::sync::Arc;

/// What an operation holds while it works; everything returns when it is dropped.
///
/// A permit belongs to nobody's stack frame: it can be sent to another thread and kept as
/// long as needed. It is given back exactly once, also when its holder panics.
#[derive(Debug)]
#[must_use = "the claims are given back as soon as the permit is dropped"]
pub struct Permit {
    shared: Arc<Shared>,
    /// The share of the permit that belongs to this request.
    member: RequestId,
    id: RequestId,
    coalesced_into: Option<std::sync::Arc<str>>,
    owner: String,
    root: String,
}

impl Permit {
    pub(crate) fn new(
        shared: Arc<Shared>,
        member: RequestId,
        claimed: Claimed,
        request: &Request,
    ) -> Self {
        let Claimed { id, coalesced_into, root } = claimed;
        let owner = request.owner().to_owned();
        let root = root.map_or_else(|| request.root().to_owned(), |root| root.to_string());
        tracing::debug!(%id, owner, root, "permit granted");
        Self { shared, member, id, coalesced_into, owner, root }
    }

    /// The identity of the permit, as a [`Snapshot`](crate::Snapshot) shows it.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Who asked for the permit.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The owner that does the work, if this permit is shared with an equal request whose
    /// owner came for it first. Do not do it a second time.
    ///
    /// The permit returns when nobody who came for it has it any more, so whoever follows
    /// keeps the result safe until it has looked at it. Who comes later than that gets
    /// [`Coalesced`](crate::AcquireErrorKind::Coalesced) with the same owner.
    pub fn coalesced_into(&self) -> Option<&str> {
        self.coalesced_into.as_deref()
    }

    /// The operation that the permit is part of; see [`Request::lent_by`].
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Gives all capacity back and keeps the exclusions.
    ///
    /// For work that pauses: others may use the capacity, but nobody may touch what the
    /// work has left half done. Calling it again does nothing. To go on,
    /// [acquire it again](Self::reacquire).
    pub fn release_capacity(&self) {
        self.shared.apply(|core, _| core.release_capacity(self.id));
        tracing::debug!(owner = self.owner, "capacity given back");
    }

    /// Gives some of its claims back and keeps the others.
    ///
    /// Units are taken off what is held of their limit. What is not held is ignored.
    /// Capacity can be [acquired again](Self::reacquire); an exclusion cannot: whoever
    /// waits for one while holding another may wait for ever.
    pub fn downgrade(&self, returned: &[Claim]) {
        self.shared.apply(|core, _| core.downgrade(self.id, returned));
        tracing::debug!(owner = self.owner, "claims given back");
    }

    /// Waits for the capacity that was given back and takes all of it together.
    ///
    /// It queues at the place that the request for this permit had, so it comes before
    /// everybody who arrived later. It is ready at once if nothing was given back.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::AcquireErrorKind::Closed) if the admission was closed before, and
    /// [`Released`](crate::AcquireErrorKind::Released) if the permit was released by force.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in line and takes nothing.
    pub fn reacquire(&self) -> Reacquire<'_> {
        Reacquire::new(self)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.apply(|core, _| core.release(self.member));
        tracing::debug!(id = %self.id, owner = self.owner, "permit given back");
    }
}
