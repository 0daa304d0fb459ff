//! Buckets inside buckets, and the lines in front of them.
//!
//! **Promise.** Bytes are taken from every level in the same moment or from none, so the
//! bound of each level holds in every window. In front of a level, first come is first
//! served; one that does not come forward when it is called is passed after a while, which
//! begins when its turn has come and not when a smaller one could be served.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;
use std::time::Duration;

use super::bucket::{Bucket, Rate};
use crate::clock::Instant;
use crate::wakers::Wakers;

/// How long the first in line may hold up the others without taking its turn. A task that
/// never polls its future again must not stop the node.
const PATIENCE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LevelId(u64);

/// The place of a future in line, in the order of first polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

pub(super) enum Turn {
    /// The bytes were taken.
    Granted(u64),
    /// Nothing changes before this moment, unless the ticket is called.
    NotBefore(Instant),
}

#[derive(Debug, Default)]
pub(super) struct Tree {
    levels: BTreeMap<LevelId, Level>,
    parked: BTreeMap<Ticket, Parked>,
    next: u64,
}

#[derive(Debug)]
struct Level {
    bucket: Bucket,
    parent: Option<LevelId>,
    line: BTreeSet<Ticket>,
}

#[derive(Debug)]
struct Parked {
    level: LevelId,
    /// What it waits for there.
    bytes: u64,
    waker: Waker,
}

const PRESENT: &str = "a level exists as long as a handle to it or to a level below";

impl Tree {
    pub(super) fn add_level(&mut self, parent: Option<LevelId>) -> LevelId {
        let id = LevelId(self.take_number());
        let level = Level { bucket: Bucket::default(), parent, line: BTreeSet::new() };
        self.levels.insert(id, level);
        id
    }

    pub(super) fn remove_level(&mut self, id: LevelId) {
        self.levels.remove(&id);
    }

    pub(super) fn add_ticket(&mut self) -> Ticket {
        Ticket(self.take_number())
    }

    /// Changes the rate of a level and calls everybody, since every wait may be shorter.
    pub(super) fn set_rate(
        &mut self,
        id: LevelId,
        rate: Option<Rate>,
        now: Instant,
        wakers: &mut Wakers,
    ) {
        self.level_mut(id).bucket.set_rate(rate, now);
        self.call_everybody(wakers);
    }

    /// Takes bytes at `id` and every level above it, into debt if need be.
    pub(super) fn charge(&mut self, id: LevelId, bytes: u64, now: Instant) {
        for id in self.path(id) {
            self.level_mut(id).bucket.take(bytes, now);
        }
    }

    /// Puts unused bytes back and calls everybody, since every wait may be shorter.
    pub(super) fn refund(&mut self, id: LevelId, bytes: u64, now: Instant, wakers: &mut Wakers) {
        for id in self.path(id) {
            self.level_mut(id).bucket.put_back(bytes, now);
        }
        self.call_everybody(wakers);
    }

    /// Takes up to `wanted` bytes for `ticket` if it is its turn, else parks it in front of
    /// the level that it has to wait for.
    pub(super) fn turn(
        &mut self,
        ticket: Ticket,
        id: LevelId,
        wanted: u64,
        now: Instant,
        waker: Waker,
        wakers: &mut Wakers,
    ) -> Turn {
        let path = self.path(id);
        let bursts = path.iter().filter_map(|&id| self.level(id).bucket.rate()).map(Rate::burst);
        let bytes = bursts.fold(wanted, u64::min);
        for &id in &path {
            let level = self.level(id);
            let Some(rate) = level.bucket.rate() else { continue };
            let ahead = level.line.range(..ticket).filter_map(|ahead| self.parked.get(ahead));
            let not_before = match ahead.map(|ahead| ahead.bytes).max() {
                None => level.bucket.ready_at(bytes),
                // The burst may have become smaller than what was waited for.
                Some(ahead) => level.bucket.ready_at(bytes.max(ahead.min(rate.burst()))) + PATIENCE,
            };
            if now < not_before {
                self.park(ticket, Parked { level: id, bytes, waker }, wakers);
                return Turn::NotBefore(not_before);
            }
        }
        for id in path {
            self.level_mut(id).bucket.take(bytes, now);
        }
        self.leave(ticket, wakers);
        Turn::Granted(bytes)
    }

    /// Takes a ticket out of its line and calls the one that is first then.
    pub(super) fn leave(&mut self, ticket: Ticket, wakers: &mut Wakers) {
        if let Some(parked) = self.parked.remove(&ticket) {
            let line = &mut self.level_mut(parked.level).line;
            line.remove(&ticket);
            let first = line.first().copied();
            if let Some(next) = first.and_then(|first| self.parked.get(&first)) {
                wakers.call(next.waker.clone());
            }
            wakers.let_go(parked.waker);
        }
    }

    fn park(&mut self, ticket: Ticket, parked: Parked, wakers: &mut Wakers) {
        let before = self.parked.get(&ticket).map(|parked| parked.level);
        if before.is_some_and(|before| before != parked.level) {
            self.leave(ticket, wakers);
        }
        self.level_mut(parked.level).line.insert(ticket);
        if let Some(before) = self.parked.insert(ticket, parked) {
            wakers.let_go(before.waker);
        }
    }

    fn call_everybody(&self, wakers: &mut Wakers) {
        for parked in self.parked.values() {
            wakers.call(parked.waker.clone());
        }
    }

    /// The level and every level above it, from narrow to wide.
    fn path(&self, id: LevelId) -> Vec<LevelId> {
        let mut path = vec![id];
        let mut level = self.level(id);
        while let Some(parent) = level.parent {
            path.push(parent);
            level = self.level(parent);
        }
        path
    }

    fn level(&self, id: LevelId) -> &Level {
        self.levels.get(&id).expect(PRESENT)
    }

    fn level_mut(&mut self, id: LevelId) -> &mut Level {
        self.levels.get_mut(&id).expect(PRESENT)
    }

    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
