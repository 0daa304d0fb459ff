//! Waiting places, grouped by what makes them alike.

use smallvec::SmallVec;

use super::line::Line;
use super::request_state::Place;

/// Places by group, in the order of the groups; a group that is empty is not kept.
#[derive(Debug)]
pub(super) struct Groups<K>(SmallVec<[(K, Line<Place>); 1]>);

impl<K: Copy + Ord> Groups<K> {
    pub(super) fn new() -> Self {
        Self(SmallVec::new())
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds `place` to the group of `key`.
    pub(super) fn insert(&mut self, key: K, place: Place) {
        let index = self.search(key).unwrap_or_else(|index| {
            self.0.insert(index, (key, Line::new()));
            index
        });
        self.0[index].1.insert(place, ());
    }

    /// Removes `place` from the group of `key`, and the group with its last place.
    pub(super) fn remove(&mut self, key: K, place: Place) {
        if let Ok(index) = self.search(key) {
            let places = &mut self.0[index].1;
            places.remove(&place);
            if places.is_empty() {
                self.0.remove(index);
            }
        }
    }

    pub(super) fn get(&self, key: K) -> Option<&Line<Place>> {
        self.search(key).ok().map(|index| &self.0[index].1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &Line<Place>)> {
        self.0.iter().map(|(key, places)| (*key, places))
    }

    /// The first place of each group.
    pub(super) fn heads(&self) -> impl Iterator<Item = (K, Place)> + '_ {
        self.iter().filter_map(|(key, places)| Some((key, places.first()?)))
    }

    /// The places of all groups, one group after the other.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.iter().flat_map(|(_, places)| places.keys())
    }

    fn search(&self, key: K) -> Result<usize, usize> {
        self.0.binary_search_by(|(group, _)| group.cmp(&key))
    }
}
