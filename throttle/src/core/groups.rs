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

    /// The first of those at the head of a group who are wanted.
    #[inline]
    pub(super) fn first_that(&self, is_wanted: impl Fn(K, Place) -> bool) -> Option<Place> {
        let mut best: Option<Place> = None;
        for (key, places) in &self.0 {
            if let Some(place) = places.first()
                && is_wanted(*key, place)
            {
                best = Some(best.map_or(place, |best| best.min(place)));
            }
        }
        best
    }

    /// Whether somebody stands before `place`.
    #[inline]
    pub(super) fn is_any_before(&self, place: Place) -> bool {
        !self.0.is_empty() && self.heads().any(|(_, first)| first < place)
    }

    /// The places of all groups, one group after the other.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.iter().flat_map(|(_, places)| places.keys())
    }

    #[inline]
    fn search(&self, key: K) -> Result<usize, usize> {
        // Nearly always all are alike.
        if let [(only, _)] = &*self.0
            && *only == key
        {
            return Ok(0);
        }
        self.0.binary_search_by(|(group, _)| group.cmp(&key))
    }
}
