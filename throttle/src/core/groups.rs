//! Waiting places, grouped by what makes them alike.

use std::collections::{BTreeMap, BTreeSet};

use super::request_state::Place;

/// Places by group; a group that is empty is not kept.
pub(super) type Groups<K> = BTreeMap<K, BTreeSet<Place>>;

/// Adds `place` to the group of `key`.
pub(super) fn insert<K: Ord>(groups: &mut Groups<K>, key: K, place: Place) {
    groups.entry(key).or_default().insert(place);
}

/// Removes `place` from the group of `key`, and the group with its last place.
pub(super) fn remove<K: Ord>(groups: &mut Groups<K>, key: &K, place: Place) {
    if let Some(places) = groups.get_mut(key) {
        places.remove(&place);
        if places.is_empty() {
            groups.remove(key);
        }
    }
}
