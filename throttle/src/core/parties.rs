//! Who asks: owners and root operations by name, and what they have to do with each other.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Core;
use super::line::Line;
use super::request_state::Party;
use super::table::Slot;
use crate::request::Request;
use crate::request_id::RequestId;

/// What is known of one name.
#[derive(Debug)]
pub(super) struct PartyState {
    /// How many permits it owns.
    permits: usize,
    /// How many permits with exclusions are held in its name as a root operation.
    holding: usize,
    /// The waiters whose root operation it is.
    waiting: Line<RequestId>,
}

impl PartyState {
    fn new() -> Self {
        Self { permits: 0, holding: 0, waiting: Line::new() }
    }

    /// Whether a request waits in its name as a root operation.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// It owns one permit more.
    #[inline]
    pub(super) fn start_owning(&mut self) {
        self.permits += 1;
    }

    /// One permit more with exclusions is held in its name as a root operation.
    #[inline]
    pub(super) fn start_holding(&mut self) {
        self.holding += 1;
    }
}

impl Core {
    /// Refers to whoever makes the request.
    pub(super) fn refer_to_party(&mut self, request: &Request) -> Party {
        let owner = self.refer_to_name(request.owner());
        let root = match request.root.as_deref() {
            Some(root) => self.refer_to_name(root),
            None => {
                self.parties.refer_again(owner);
                owner
            }
        };
        Party { owner, root, lender: request.lender }
    }

    /// Refers once more to somebody.
    #[inline]
    pub(super) fn refer_again_to_party(&mut self, party: Party) {
        self.parties.refer_again(party.owner);
        self.parties.refer_again(party.root);
    }

    pub(super) fn refer_to_name(&mut self, name: &str) -> Slot {
        self.parties.refer(name, || (Arc::from(name), PartyState::new()))
    }

    /// Ends the references to whoever made a request.
    pub(super) fn forget_party(&mut self, party: Party) {
        self.parties.forget(party.owner);
        self.parties.forget(party.root);
    }

    pub(super) fn party_name(&self, slot: Slot) -> &Arc<str> {
        self.parties.name(slot)
    }

    #[inline]
    pub(super) fn owns_permit(&self, owner: Slot) -> bool {
        self.parties.get(owner).permits > 0
    }

    #[inline]
    pub(super) fn start_owning(&mut self, owner: Slot) {
        self.parties.get_mut(owner).start_owning();
    }

    #[inline]
    pub(super) fn stop_owning(&mut self, owner: Slot) {
        self.parties.get_mut(owner).permits -= 1;
    }

    /// Whether a permit with exclusions is held in the name of `root`.
    #[inline]
    pub(super) fn is_holding(&self, root: Slot) -> bool {
        self.parties.get(root).holding > 0
    }

    pub(super) fn start_holding(&mut self, root: Slot) {
        let state = self.parties.get_mut(root);
        state.start_holding();
        if state.holding == 1 && state.is_waiting() {
            for id in self.waiting_for(root) {
                self.borrowers.insert(id);
                let site = self.waiter(id).witness().site();
                self.gain(site);
            }
        }
    }

    pub(super) fn stop_holding(&mut self, root: Slot) {
        let state = self.parties.get_mut(root);
        state.holding -= 1;
        if state.holding == 0 && state.is_waiting() {
            for id in self.waiting_for(root) {
                self.borrowers.remove(&id);
            }
        }
    }

    pub(super) fn start_waiting(&mut self, root: Slot, id: RequestId) {
        self.parties.get_mut(root).waiting.insert(id, ());
    }

    pub(super) fn stop_waiting(&mut self, root: Slot, id: RequestId) {
        self.parties.get_mut(root).waiting.remove(&id);
    }

    fn waiting_for(&self, root: Slot) -> SmallVec<[RequestId; 8]> {
        self.parties.get(root).waiting.keys().collect()
    }
}
