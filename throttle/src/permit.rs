//! What an operation holds while it works.

use crate::core::RequestId;
use crate::request::Request;
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
    id: RequestId,
    owner: String,
    root: String,
}

impl Permit {
    pub(crate) fn new(shared: Arc<Shared>, id: RequestId, request: &Request) -> Self {
        let (owner, root) = (request.owner().to_owned(), request.root().to_owned());
        tracing::debug!(owner, root, "permit granted");
        Self { shared, id, owner, root }
    }

    /// Who asked for the permit.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The operation that the permit is part of; see [`Request::lent_by`].
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Gives all capacity back and keeps the exclusions.
    ///
    /// For work that pauses: others may use the capacity, but nobody may touch what the
    /// work has left half done. Calling it again does nothing. To go on, ask for the
    /// capacity alone with a [`Request`] that is [lent](Request::lent_by) by this permit.
    pub fn release_capacity(&self) {
        self.shared.apply(|core, _| core.release_capacity(self.id));
        tracing::debug!(owner = self.owner, "capacity given back");
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.apply(|core, _| core.release(self.id));
        tracing::debug!(owner = self.owner, "permit given back");
    }
}
