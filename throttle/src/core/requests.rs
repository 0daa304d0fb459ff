//! Every request that there is, by its identity.
//!
//! **Promise.** An identity finds its own request or nothing, also after the place where it
//! was kept was used again: each place knows the number of whoever it belongs to.

use super::request_state::{Absentee, Holder, Record, Waiter};
use crate::request_id::RequestId;

#[derive(Debug)]
pub(super) struct Requests {
    places: Vec<Option<(u64, Entry)>>,
    vacant: Vec<u32>,
    next_number: u64,
    holding: usize,
    absent: usize,
}

/// What a request is at the moment.
#[derive(Debug)]
pub(super) enum Entry {
    Waiter(Waiter),
    Absentee(Absentee),
    Holder(Holder),
    /// It is one with an earlier request.
    Follower(RequestId),
}

impl Requests {
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), vacant: Vec::new(), next_number: 0, holding: 0, absent: 0 }
    }

    /// An identity for the next request. Nothing is kept until it is inserted, which has to
    /// be done before the next insertion, or never.
    #[inline]
    pub(super) fn next_id(&mut self) -> RequestId {
        let number = self.next_number;
        self.next_number += 1;
        let slot = self.vacant.last().copied();
        let slot = slot.unwrap_or_else(|| {
            u32::try_from(self.places.len()).expect("fewer than 2^32 requests at once")
        });
        RequestId { number, slot }
    }

    /// Keeps `entry` in a place that is vacant.
    #[inline]
    pub(super) fn insert(&mut self, id: RequestId, entry: Entry) {
        match &entry {
            Entry::Holder(_) => self.holding += 1,
            Entry::Absentee(_) => self.absent += 1,
            Entry::Waiter(_) | Entry::Follower(_) => {}
        }
        if self.vacant.last() == Some(&id.slot) {
            self.vacant.pop();
        } else {
            self.make_room(id.slot);
        }
        self.places[id.slot as usize] = Some((id.number, entry));
    }

    /// Makes a place, or takes one that is not the last that became vacant.
    #[cold]
    fn make_room(&mut self, slot: u32) {
        if slot as usize == self.places.len() {
            self.places.push(None);
            return;
        }
        // Several were taken out at once.
        let vacant = self.vacant.iter().rposition(|&vacant| vacant == slot);
        self.vacant.remove(vacant.expect("an entry is inserted into a vacant place"));
    }

    #[inline]
    fn get(&self, id: RequestId) -> Option<&Entry> {
        match self.places.get(id.slot as usize) {
            Some(Some((number, entry))) if *number == id.number => Some(entry),
            _ => None,
        }
    }

    #[inline]
    fn get_mut(&mut self, id: RequestId) -> Option<&mut Entry> {
        match self.places.get_mut(id.slot as usize) {
            Some(Some((number, entry))) if *number == id.number => Some(entry),
            _ => None,
        }
    }

    /// Takes a request out if `is_wanted` says so.
    #[inline]
    fn take_if(&mut self, id: RequestId, is_wanted: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let place = self.places.get_mut(id.slot as usize)?;
        match place {
            Some((number, entry)) if *number == id.number && is_wanted(entry) => {}
            _ => return None,
        }
        let (_, entry) = place.take()?;
        self.vacant.push(id.slot);
        match &entry {
            Entry::Holder(_) => self.holding -= 1,
            Entry::Absentee(_) => self.absent -= 1,
            Entry::Waiter(_) | Entry::Follower(_) => {}
        }
        Some(entry)
    }

    /// The request that the member is part of: itself, unless it follows another one.
    #[inline]
    pub(super) fn group(&self, member: RequestId) -> RequestId {
        match self.get(member) {
            Some(Entry::Follower(id)) => *id,
            _ => member,
        }
    }

    pub(super) fn remove_follower(&mut self, member: RequestId) {
        self.take_if(member, |entry| matches!(entry, Entry::Follower(_)));
    }

    #[inline]
    pub(super) fn waiter(&self, id: RequestId) -> Option<&Record> {
        match self.get(id) {
            Some(Entry::Waiter(waiter)) => Some(waiter),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn waiter_mut(&mut self, id: RequestId) -> Option<&mut Record> {
        match self.get_mut(id) {
            Some(Entry::Waiter(waiter)) => Some(waiter),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn take_waiter(&mut self, id: RequestId) -> Option<Waiter> {
        match self.take_if(id, |entry| matches!(entry, Entry::Waiter(_))) {
            Some(Entry::Waiter(waiter)) => Some(waiter),
            _ => None,
        }
    }

    pub(super) fn absentee(&self, id: RequestId) -> Option<&Absentee> {
        match self.get(id) {
            Some(Entry::Absentee(absentee)) => Some(absentee),
            _ => None,
        }
    }

    pub(super) fn absentee_mut(&mut self, id: RequestId) -> Option<&mut Absentee> {
        match self.get_mut(id) {
            Some(Entry::Absentee(absentee)) => Some(absentee),
            _ => None,
        }
    }

    pub(super) fn take_absentee(&mut self, id: RequestId) -> Option<Absentee> {
        match self.take_if(id, |entry| matches!(entry, Entry::Absentee(_))) {
            Some(Entry::Absentee(absentee)) => Some(absentee),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn holder(&self, id: RequestId) -> Option<&Record> {
        match self.get(id) {
            Some(Entry::Holder(holder)) => Some(holder),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn holder_mut(&mut self, id: RequestId) -> Option<&mut Record> {
        match self.get_mut(id) {
            Some(Entry::Holder(holder)) => Some(holder),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn take_holder(&mut self, id: RequestId) -> Option<Holder> {
        match self.take_if(id, |entry| matches!(entry, Entry::Holder(_))) {
            Some(Entry::Holder(holder)) => Some(holder),
            _ => None,
        }
    }

    /// Takes out a holder that shares its permit with nobody.
    #[inline]
    pub(super) fn take_only_holder(&mut self, id: RequestId) -> Option<Holder> {
        let is_only = |entry: &Entry| match entry {
            Entry::Holder(holder) => holder.members.is_just(id),
            _ => false,
        };
        match self.take_if(id, is_only) {
            Some(Entry::Holder(holder)) => Some(holder),
            _ => None,
        }
    }

    /// Whether nobody holds anything.
    #[inline]
    pub(super) fn is_drained(&self) -> bool {
        self.holding == 0
    }

    /// All who hold something, in the order in which they came.
    pub(super) fn holders(&self) -> Vec<&Record> {
        self.sorted(|entry| match entry {
            Entry::Holder(holder) => Some(&**holder),
            _ => None,
        })
    }

    /// All who wait in line, in the order in which they came.
    pub(super) fn waiters(&self) -> Vec<&Record> {
        self.sorted(|entry| match entry {
            Entry::Waiter(waiter) => Some(&**waiter),
            _ => None,
        })
    }

    /// All who are in no line for now, in the order in which they came.
    pub(super) fn absentees(&self) -> Vec<&Absentee> {
        if self.absent == 0 {
            return Vec::new();
        }
        self.sorted(|entry| match entry {
            Entry::Absentee(absentee) => Some(absentee),
            _ => None,
        })
    }

    /// Whether there is no request at all.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.places.iter().all(Option::is_none)
    }

    fn sorted<'a, T: 'a>(&'a self, pick: impl Fn(&'a Entry) -> Option<&'a T>) -> Vec<&'a T> {
        let places = self.places.iter().flatten();
        let mut picked: Vec<_> =
            places.filter_map(|(number, entry)| Some((*number, pick(entry)?))).collect();
        picked.sort_unstable_by_key(|&(number, _)| number);
        picked.into_iter().map(|(_, picked)| picked).collect()
    }
}
