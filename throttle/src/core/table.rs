//! Things with a name, reached by number while somebody refers to them.
//!
//! **Promise.** An entry exists from its first reference to its last, so that names that
//! come and go leave nothing behind.

use std::collections::BTreeMap;

/// The number of an entry; it means something only while a reference to it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(usize);

#[derive(Debug)]
pub(super) struct Table<K, V> {
    names: BTreeMap<K, Slot>,
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

impl<K: Clone + Ord, V> Table<K, V> {
    pub(super) fn new() -> Self {
        Self { names: BTreeMap::new(), entries: Vec::new(), vacant: Vec::new() }
    }

    /// Adds a reference to the entry called `name`, which is made if it does not exist.
    pub(super) fn refer(&mut self, name: K, make: impl FnOnce() -> V) -> Slot {
        if let Some(&slot) = self.names.get(&name) {
            self.entry_mut(slot).references += 1;
            return slot;
        }
        let entry = Some(Entry { name: name.clone(), value: make(), references: 1 });
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.entries[slot.0] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                Slot(self.entries.len() - 1)
            }
        };
        self.names.insert(name, slot);
        slot
    }

    /// Adds a reference to an entry that is referred to already.
    pub(super) fn refer_again(&mut self, slot: Slot) {
        self.entry_mut(slot).references += 1;
    }

    /// Takes a reference back; the entry goes with the last one.
    pub(super) fn forget(&mut self, slot: Slot) {
        let entry = self.entry_mut(slot);
        entry.references -= 1;
        if entry.references == 0 {
            let entry = self.entries[slot.0].take().expect(LIVE);
            self.names.remove(&entry.name);
            self.vacant.push(slot);
        }
    }

    pub(super) fn find(&self, name: &K) -> Option<Slot> {
        self.names.get(name).copied()
    }

    pub(super) fn name(&self, slot: Slot) -> &K {
        &self.entry(slot).name
    }

    pub(super) fn get(&self, slot: Slot) -> &V {
        &self.entry(slot).value
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut V {
        &mut self.entry_mut(slot).value
    }

    /// Every entry, in the order of the names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.names.iter().map(|(name, &slot)| (name, self.get(slot)))
    }

    pub(super) fn slots(&self) -> Vec<Slot> {
        self.names.values().copied().collect()
    }

    fn entry(&self, slot: Slot) -> &Entry<K, V> {
        self.entries[slot.0].as_ref().expect(LIVE)
    }

    fn entry_mut(&mut self, slot: Slot) -> &mut Entry<K, V> {
        self.entries[slot.0].as_mut().expect(LIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_goes_with_its_last_reference() {
        let mut table = Table::new();
        let slot = table.refer("a", || 1);
        assert_eq!(table.refer("a", || 2), slot);
        table.forget(slot);
        assert_eq!(*table.get(slot), 1);
        table.forget(slot);
        assert_eq!(table.find(&"a"), None);
    }

    #[test]
    fn a_vacant_slot_is_used_again() {
        let mut table = Table::new();
        let slot = table.refer("a", || 1);
        table.forget(slot);
        assert_eq!(table.refer("b", || 2), slot);
        assert_eq!(*table.name(slot), "b");
    }
}
