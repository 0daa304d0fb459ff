//! What the futures that wait will find, by the identity of their requests.

use std::collections::BTreeMap;
use std::task::Waker;

use crate::acquire_error::AcquireError;
use crate::request_id::RequestId;

/// What a future that waits will find when it is polled.
pub(crate) enum Waiting {
    Parked(Waker),
    Settled(Result<(), AcquireError>),
    /// It was granted and did not look in time. Its request is in no line until it does.
    Revoked,
}

/// A map from requests to what their futures will find.
///
/// A request has a place of its own in the core while it waits, and so it has one here. Only
/// who is told something after its place was given to somebody else is kept aside.
#[derive(Default)]
pub(crate) struct Waits {
    places: Vec<Option<(RequestId, Waiting)>>,
    aside: BTreeMap<RequestId, Waiting>,
}

impl Waits {
    pub(crate) fn insert(&mut self, id: RequestId, waiting: Waiting) -> Option<Waiting> {
        let index = id.slot as usize;
        if index >= self.places.len() {
            self.places.resize_with(index + 1, || None);
        }
        match &mut self.places[index] {
            Some((known, before)) if *known == id => Some(std::mem::replace(before, waiting)),
            // A request that is aside stays there.
            place @ None if !self.aside.contains_key(&id) => {
                *place = Some((id, waiting));
                None
            }
            _ => self.aside.insert(id, waiting),
        }
    }

    pub(crate) fn get_mut(&mut self, id: RequestId) -> Option<&mut Waiting> {
        match self.places.get_mut(id.slot as usize) {
            Some(Some((known, waiting))) if *known == id => Some(waiting),
            _ => self.aside.get_mut(&id),
        }
    }

    pub(crate) fn remove(&mut self, id: RequestId) -> Option<Waiting> {
        match self.places.get_mut(id.slot as usize) {
            Some(place) if place.as_ref().is_some_and(|(known, _)| *known == id) => {
                place.take().map(|(_, waiting)| waiting)
            }
            _ => self.aside.remove(&id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64, slot: u32) -> RequestId {
        RequestId { number, slot }
    }

    fn is_revoked(waiting: Option<Waiting>) -> bool {
        matches!(waiting, Some(Waiting::Revoked))
    }

    #[test]
    fn two_requests_at_one_place_are_kept_apart() {
        let mut waits = Waits::default();
        let (early, late) = (id(0, 3), id(9, 3));
        assert!(waits.insert(early, Waiting::Settled(Ok(()))).is_none());
        assert!(waits.insert(late, Waiting::Revoked).is_none());
        assert!(matches!(waits.get_mut(early), Some(Waiting::Settled(Ok(())))));
        assert!(matches!(waits.get_mut(late), Some(Waiting::Revoked)));
        assert!(waits.remove(early).is_some());
        assert!(waits.remove(early).is_none());
        // The place is free, but whoever was aside is found where it was.
        assert!(is_revoked(waits.insert(late, Waiting::Revoked)));
        assert!(is_revoked(waits.remove(late)));
        assert!(waits.remove(late).is_none());
    }
}
