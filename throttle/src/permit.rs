//! What an operation holds while it works.

use crate::core::{Claimed, Joined};
use crate::reacquire::Reacquire;
use crate::request::Claim;
use crate::request_id::RequestId;
use crate::shared::Shared;
use crate::sync::Arc;
use crate::ticket::Ticket;

/// What an operation holds while it works; everything returns when it is dropped.
///
/// A permit belongs to nobody's stack frame: it can be sent to another thread and kept as
/// long as needed. It is given back exactly once, also when its holder panics.
#[derive(Debug)]
#[must_use = "the claims are given back as soon as the permit is dropped"]
pub struct Permit {
    ticket: Arc<Ticket>,
    /// The share of the permit that belongs to this request.
    member: RequestId,
    /// What there is to know if it is not the permit of the request itself.
    joined: Option<Box<Joined>>,
}

impl Permit {
    #[inline]
    pub(crate) fn new(ticket: Arc<Ticket>, member: RequestId, claimed: Claimed) -> Self {
        let permit = Self { ticket, member, joined: claimed.joined };
        tracing::debug!(
            id = %permit.id(),
            owner = permit.owner(),
            root = permit.root(),
            "permit granted"
        );
        permit
    }

    /// A permit that was granted without a wait.
    #[inline]
    pub(crate) fn at_once(ticket: Arc<Ticket>, id: RequestId) -> Self {
        Self::new(ticket, id, Claimed { joined: None })
    }

    /// The identity of the permit, as a [`Snapshot`](crate::Snapshot) shows it.
    pub fn id(&self) -> RequestId {
        self.joined.as_ref().map_or(self.member, |joined| joined.id)
    }

    /// Who asked for the permit.
    pub fn owner(&self) -> &str {
        self.ticket.request.owner()
    }

    /// The owner that does the work, if this permit is shared with an equal request whose
    /// owner came for it first. Do not do it a second time.
    ///
    /// The permit returns when nobody who came for it has it any more, so whoever follows
    /// keeps the result safe until it has looked at it. Who comes later than that gets
    /// [`Coalesced`](crate::AcquireErrorKind::Coalesced) with the same owner. The shares of a
    /// permit do not exclude each other: if its owner fails, give the share back and ask again.
    pub fn coalesced_into(&self) -> Option<&str> {
        self.joined.as_ref()?.coalesced_into.as_deref()
    }

    /// The operation that the permit is part of; see [`Request::lent_by`](crate::Request::lent_by).
    pub fn root(&self) -> &str {
        match &self.joined {
            Some(joined) => &joined.root,
            None => self.ticket.request.root(),
        }
    }

    /// Gives all capacity back and keeps the exclusions.
    ///
    /// For work that pauses: others may use the capacity, but nobody may touch what the
    /// work has left half done. Calling it again does nothing. To go on,
    /// [acquire it again](Self::reacquire).
    pub fn release_capacity(&self) {
        self.shared().apply(|core| core.release_capacity(self.id()));
        tracing::debug!(owner = self.owner(), "capacity given back");
    }

    /// Gives some of its claims back and keeps the others.
    ///
    /// Units are taken off what is held of their limit. What is not held is ignored.
    /// Capacity can be [acquired again](Self::reacquire); an exclusion cannot: whoever
    /// waits for one while holding another may wait for ever.
    pub fn downgrade(&self, returned: &[Claim]) {
        self.shared().apply(|core| core.downgrade(self.id(), returned));
        tracing::debug!(owner = self.owner(), "claims given back");
    }

    /// Waits for the capacity that was given back and takes all of it together.
    ///
    /// It queues at the place that the request for this permit had, so it comes before
    /// everybody who arrived later. It is ready at once if nothing was given back. What is
    /// given back while it waits is left to the next time.
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
        &self.ticket.shared
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared().apply(|core| core.release(self.member));
        tracing::debug!(id = %self.id(), owner = self.owner(), "permit given back");
    }
}
