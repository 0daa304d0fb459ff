//! An ordered map that is cheapest where keys come in ascending order.
//!
//! **Promise.** It behaves like a `BTreeMap`. The first and the last key are reached and
//! removed at once, a key behind all others is added at once, and everything else takes a
//! time that grows with the logarithm of the length. A map of one needs no allocation.
//!
//! **How.** Those who wait, and those who hold, nearly always come in the order of their
//! keys and leave at one of the ends. So the keys are a sorted vector; a key that leaves from
//! the middle leaves a hole, and holes are swept out once they are most of it. What comes out
//! of order, because it is more urgent, goes into a tree beside it.

use std::collections::BTreeMap;

use smallvec::SmallVec;

/// Holes and gaps up to this many are not worth a sweep.
const SWEEP_MIN: usize = 32;

/// What an empty line keeps for its next members.
const CAPACITY_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Line<K, V = ()> {
    /// In ascending order; a hole has no value. The first behind `head` and the last are
    /// never holes.
    items: SmallVec<[(K, Option<V>); 1]>,
    /// How many at the beginning of `items` are gone.
    head: usize,
    /// How many behind `head` are holes.
    holes: usize,
    /// What came out of order.
    early: BTreeMap<K, V>,
}

impl<K: Ord + Copy, V> Line<K, V> {
    pub(super) fn new() -> Self {
        Self { items: SmallVec::new(), head: 0, holes: 0, early: BTreeMap::new() }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.early.is_empty()
    }

    /// Adds `key`, or gives it another value.
    #[inline]
    pub(super) fn insert(&mut self, key: K, value: V) {
        let is_last = self.items.last().is_none_or(|(last, _)| *last < key);
        if is_last && self.early.is_empty() {
            self.items.push((key, Some(value)));
        } else {
            self.insert_anywhere(key, value, is_last);
        }
    }

    #[cold]
    fn insert_anywhere(&mut self, key: K, value: V, is_last: bool) {
        if let Some(known) = self.early.get_mut(&key) {
            *known = value;
        } else if is_last {
            self.items.push((key, Some(value)));
        } else if let Ok(index) = self.search(&key) {
            if self.items[index].1.replace(value).is_none() {
                self.holes -= 1;
            }
        } else {
            self.early.insert(key, value);
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        if let [(only, value)] = &mut *self.items
            && only == key
        {
            let value = value.take();
            self.clear();
            return value;
        }
        if let Some((first, value)) = self.items.get_mut(self.head)
            && first == key
        {
            let value = value.take();
            self.head += 1;
            self.trim_front();
            return value;
        }
        if self.items.last().is_some_and(|(last, _)| last == key) {
            let (_, value) = self.items.pop()?;
            self.trim_back();
            return value;
        }
        self.remove_anywhere(key)
    }

    #[cold]
    fn remove_anywhere(&mut self, key: &K) -> Option<V> {
        match self.search(key) {
            Ok(index) => {
                let value = self.items[index].1.take()?;
                self.holes += 1;
                self.sweep();
                Some(value)
            }
            Err(_) => self.early.remove(key),
        }
    }

    #[inline]
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        match self.search(key) {
            Ok(index) => self.items[index].1.as_ref(),
            Err(_) => self.early.get(key),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self.search(key) {
            Ok(index) => self.items[index].1.as_mut(),
            Err(_) => self.early.get_mut(key),
        }
    }

    /// The smallest key.
    #[inline]
    pub(super) fn first(&self) -> Option<K> {
        let first = self.items.get(self.head).map(|&(key, _)| key);
        if self.early.is_empty() {
            return first;
        }
        let early = self.early.keys().next().copied();
        early.into_iter().chain(first).min()
    }

    /// Every key with its value, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let items = self.items[self.head..].iter();
        let mut items = items.filter_map(|(key, value)| Some((*key, value.as_ref()?))).peekable();
        let mut early = self.early.iter().map(|(&key, value)| (key, value)).peekable();
        std::iter::from_fn(move || match (items.peek(), early.peek()) {
            (Some((item, _)), Some((other, _))) if other < item => early.next(),
            (Some(_), _) => items.next(),
            (None, _) => early.next(),
        })
    }

    /// Every key, in ascending order.
    pub(super) fn keys(&self) -> impl Iterator<Item = K> {
        self.iter().map(|(key, _)| key)
    }

    /// Where `key` is among the items, or where it would be.
    fn search(&self, key: &K) -> Result<usize, usize> {
        if self.items.last().is_some_and(|(last, _)| last == key) {
            return Ok(self.items.len() - 1);
        }
        let behind_head = self.items[self.head..].binary_search_by(|(item, _)| item.cmp(key));
        match behind_head {
            Ok(index) => Ok(index + self.head),
            Err(index) => Err(index + self.head),
        }
    }

    fn trim_back(&mut self) {
        while self.items.len() > self.head
            && self.items.last().is_some_and(|(_, value)| value.is_none())
        {
            self.items.pop();
            self.holes -= 1;
        }
        if self.items.len() == self.head {
            self.clear();
        }
    }

    #[inline]
    fn trim_front(&mut self) {
        while self.items.get(self.head).is_some_and(|(_, value)| value.is_none()) {
            self.head += 1;
            self.holes -= 1;
        }
        if self.items.len() == self.head {
            self.clear();
        } else {
            self.sweep();
        }
    }

    #[inline]
    fn clear(&mut self) {
        self.items.clear();
        self.head = 0;
        if self.items.capacity() > CAPACITY_MAX {
            self.items = SmallVec::new();
        }
    }

    /// Takes the holes out once they are three quarters of all, so that each costs a fixed amount.
    #[inline]
    fn sweep(&mut self) {
        let gone = self.head + self.holes;
        if gone > SWEEP_MIN && gone * 4 > self.items.len() * 3 {
            self.take_holes_out();
        }
    }

    #[cold]
    fn take_holes_out(&mut self) {
        self.items.drain(..self.head);
        if self.holes > 0 {
            self.items.retain(|(_, value)| value.is_some());
        }
        (self.head, self.holes) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Plays `steps` on a line and on a map of the standard library: insert where the first
    /// number is even, else remove.
    fn check(steps: &[(u8, u16)]) -> Result<(), TestCaseError> {
        let (mut line, mut map) = (Line::new(), BTreeMap::new());
        for (number, &(step, key)) in steps.iter().enumerate() {
            match step % 4 {
                0 => {
                    line.insert(key, number);
                    map.insert(key, number);
                }
                1 => {
                    // Behind all others, as those who arrive.
                    let key =
                        map.keys().next_back().map_or(key, |last: &u16| last.saturating_add(1));
                    line.insert(key, number);
                    map.insert(key, number);
                }
                2 => prop_assert_eq!(line.remove(&key), map.remove(&key)),
                _ => {
                    let first = map.keys().next().copied().unwrap_or(key);
                    prop_assert_eq!(line.remove(&first), map.remove(&first));
                }
            }
            prop_assert_eq!(line.first(), map.keys().next().copied());
            prop_assert_eq!(line.get(&key), map.get(&key));
            prop_assert_eq!(line.get_mut(&key), map.get_mut(&key));
            prop_assert_eq!(line.is_empty(), map.is_empty());
        }
        prop_assert!(line.iter().eq(map.iter().map(|(&key, value)| (key, value))));
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_line_is_an_ordered_map(steps in prop::collection::vec((any::<u8>(), 0..40u16), 0..400)) {
            check(&steps)?;
        }

        #[test]
        fn a_long_line_is_an_ordered_map(steps in prop::collection::vec((any::<u8>(), any::<u16>()), 0..400)) {
            let arrivals = (0..300).map(|number| (0, number * 100));
            let steps: Vec<_> = arrivals.chain(steps).collect();
            check(&steps)?;
        }
    }

    #[test]
    fn holes_do_not_pile_up() {
        let mut line = Line::new();
        (0..1000).for_each(|key| line.insert(key, ()));
        (1..999).for_each(|key| assert!(line.remove(&key).is_some()));
        assert!(line.items.len() <= 2 * SWEEP_MIN);
        assert!(line.keys().eq([0, 999]));
    }
}
