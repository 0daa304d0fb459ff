//! Things with a name, reached by number while somebody refers to them.
//!
//! **Promise.** An entry exists from its first reference to its last, so that names that
//! come and go leave nothing behind. The names are hashed alike in every process, and no
//! order of theirs is ever seen.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use hashbrown::hash_table::Entry as Place;
use hashbrown::{Equivalent, HashTable};

/// The number of an entry; it means something only while a reference to it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u32);

impl Slot {
    fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
pub(super) struct Table<K, V> {
    names: HashTable<Slot>,
    hasher: FixedState,
    entries: Vec<Option<Entry<K, V>>>,
    vacant: Vec<Slot>,
}

#[derive(Debug)]
struct Entry<K, V> {
    name: K,
    value: V,
    references: usize,
}

const LIVE: &str = "a slot is used only while a reference to it is kept";

impl<K: Eq + Hash, V> Table<K, V> {
    pub(super) fn new() -> Self {
        Self {
            names: HashTable::new(),
            hasher: FixedState::default(),
            entries: Vec::new(),
            vacant: Vec::new(),
        }
    }

    /// Adds a reference to the entry called `name`, which is made if it does not exist.
    pub(super) fn refer<Q>(&mut self, name: &Q, make: impl FnOnce() -> (K, V)) -> Slot
    where
        Q: Equivalent<K> + Hash + ?Sized,
    {
        let (hasher, entries) = (&self.hasher, &mut self.entries);
        let place = self.names.entry(
            hasher.hash_one(name),
            |slot| entries[slot.index()].as_ref().is_some_and(|entry| name.equivalent(&entry.name)),
            |slot| entries[slot.index()].as_ref().map_or(0, |entry| hasher.hash_one(&entry.name)),
        );
        match place {
            Place::Occupied(place) => {
                let slot = *place.get();
                entries[slot.index()].as_mut().expect(LIVE).references += 1;
                slot
            }
            Place::Vacant(place) => {
                let slot = self.vacant.pop().unwrap_or_else(|| {
                    let number = u32::try_from(entries.len()).expect("fewer than 2^32 names");
                    entries.push(None);
                    Slot(number)
                });
                place.insert(slot);
                let (name, value) = make();
                entries[slot.index()] = Some(Entry { name, value, references: 1 });
                slot
            }
        }
    }

    /// Adds a reference to an entry that is referred to already.
    #[inline]
    pub(super) fn refer_again(&mut self, slot: Slot) {
        self.entry_mut(slot).references += 1;
    }

    /// Takes a reference back; the entry goes with the last one.
    #[inline]
    pub(super) fn forget(&mut self, slot: Slot) {
        let entry = self.entry_mut(slot);
        entry.references -= 1;
        if entry.references == 0 {
            let entry = self.entries[slot.index()].take().expect(LIVE);
            let hash = self.hasher.hash_one(&entry.name);
            if let Ok(place) = self.names.find_entry(hash, |&named| named == slot) {
                place.remove();
            }
            self.vacant.push(slot);
        }
    }

    pub(super) fn find<Q>(&self, name: &Q) -> Option<Slot>
    where
        Q: Equivalent<K> + Hash + ?Sized,
    {
        let is_named = |slot: &Slot| name.equivalent(&self.entry(*slot).name);
        self.names.find(self.hasher.hash_one(name), is_named).copied()
    }

    #[inline]
    pub(super) fn name(&self, slot: Slot) -> &K {
        &self.entry(slot).name
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot) -> &V {
        &self.entry(slot).value
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut V {
        &mut self.entry_mut(slot).value
    }

    /// Every entry, in the order of the names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)>
    where
        K: Ord,
    {
        self.iter_referred(|_| 1)
    }

    /// Every entry that has at least as many references as `least` says, in the order of the
    /// names.
    pub(super) fn iter_referred(
        &self,
        least: impl Fn(&V) -> usize,
    ) -> impl Iterator<Item = (&K, &V)>
    where
        K: Ord,
    {
        let entries = self.entries.iter().flatten();
        let mut entries: Vec<_> =
            entries.filter(|entry| entry.references >= least(&entry.value)).collect();
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        entries.into_iter().map(|entry| (&entry.name, &entry.value))
    }

    /// Every slot that is in use, in no order that means anything.
    pub(super) fn slots(&self) -> Vec<Slot> {
        (0..)
            .zip(&self.entries)
            .filter_map(|(number, entry)| entry.as_ref().map(|_| Slot(number)))
            .collect()
    }

    #[inline]
    fn entry(&self, slot: Slot) -> &Entry<K, V> {
        self.entries[slot.index()].as_ref().expect(LIVE)
    }

    #[inline]
    fn entry_mut(&mut self, slot: Slot) -> &mut Entry<K, V> {
        self.entries[slot.index()].as_mut().expect(LIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refer(table: &mut Table<String, u8>, name: &str, value: u8) -> Slot {
        table.refer(name, || (name.to_owned(), value))
    }

    #[test]
    fn an_entry_goes_with_its_last_reference() {
        let mut table = Table::new();
        let slot = refer(&mut table, "a", 1);
        assert_eq!(refer(&mut table, "a", 2), slot);
        table.forget(slot);
        assert_eq!(*table.get(slot), 1);
        table.forget(slot);
        assert_eq!(table.find("a"), None);
        assert!(table.slots().is_empty());
    }

    #[test]
    fn a_vacant_slot_is_used_again() {
        let mut table = Table::new();
        let slot = refer(&mut table, "a", 1);
        table.forget(slot);
        assert_eq!(refer(&mut table, "b", 2), slot);
        assert_eq!(*table.name(slot), "b");
    }

    #[test]
    fn names_are_told_apart_in_a_large_table() {
        let mut table = Table::new();
        let names: Vec<_> = (0..1000).map(|number| format!("name-{number}")).collect();
        let slots: Vec<_> = names.iter().map(|name| refer(&mut table, name, 0)).collect();
        for (name, slot) in names.iter().zip(slots) {
            assert_eq!(table.find(name.as_str()), Some(slot));
            table.forget(slot);
            assert_eq!(table.find(name.as_str()), None);
        }
        assert!(table.iter().next().is_none());
    }
}
