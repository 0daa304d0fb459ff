//! Who passes whom: random histories, judged by their trace alone.
//!
//! The judge knows what was asked, when, and who held and waited after each event. Order,
//! conflicts and units are computed again from that, in the words of the promises:
//!
//! - a request never starts before an earlier one that it conflicts with,
//! - a waiter is passed on scarce limits a bounded number of times, and once it is pinned
//!   nobody who comes later takes what it needs,
//! - a request that arrives later than all head starts allow is never considered first,
//! - whenever everything is given back, everybody gets a turn.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod history;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use history::{LEVEL_MAX, LIMITS, STEP, World, event};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use throttle::{Claim, Snapshot, Waiting};

/// What is remembered of a waiter over its whole wait.
#[derive(Debug, Default)]
struct Wait {
    /// After how many events a later request had left less of some limit than the waiter
    /// needs there, while it waited for capacity and nothing that it needs was paused.
    passed: u32,
    /// The earlier requests that waited meanwhile.
    earlier: BTreeSet<String>,
}

struct Judge {
    overtakes_max: u32,
    waits: BTreeMap<String, Wait>,
    before: Snapshot,
}

impl Judge {
    fn new(world: &World, overtakes_max: u32) -> Self {
        Self { overtakes_max, waits: BTreeMap::new(), before: world.look() }
    }

    fn look(&mut self, world: &World) {
        let after = world.look();
        let held: BTreeSet<_> = self.before.holders.iter().map(|holder| &holder.owner).collect();
        let admitted: Vec<_> = after
            .holders
            .iter()
            .map(|holder| &holder.owner)
            .filter(|owner| !held.contains(owner))
            .collect();
        for waiter in &after.waiters {
            let waiting = &world.asked[&waiter.owner];
            for &owner in &admitted {
                let started = &world.asked[owner];
                if started.number > waiting.number || self.waited_before(&waiter.owner) {
                    assert!(
                        !started.conflicts_with(waiting) || started.key() < waiting.key(),
                        "{owner} started before {}",
                        waiter.owner
                    );
                }
                let head_starts = STEP * (LEVEL_MAX - waiting.level);
                assert!(
                    !started.conflicts_with(waiting)
                        || started.arrival <= waiting.arrival + head_starts,
                    "{owner} came too late to start before {}",
                    waiter.owner
                );
            }
            self.check_passes(world, &after, waiter, &admitted);
        }
        self.check_pins(world, &after);
        let keys: Vec<_> =
            after.waiters.iter().map(|waiter| world.asked[&waiter.owner].key()).collect();
        assert!(keys.is_sorted(), "waiters are listed in the order of consideration");
        self.waits.retain(|owner, _| after.waiters.iter().any(|waiter| waiter.owner == *owner));
        self.before = after;
    }

    fn waited_before(&self, owner: &str) -> bool {
        self.before.waiters.iter().any(|waiter| waiter.owner == owner)
    }

    /// Counts how often a waiter was passed, and checks that it may have been.
    fn check_passes(
        &mut self,
        world: &World,
        after: &Snapshot,
        waiter: &Waiting,
        admitted: &[&String],
    ) {
        let own = &world.asked[&waiter.owner];
        let wait = self.waits.entry(waiter.owner.clone()).or_default();
        let earlier = after.waiters.iter().map(|other| &other.owner);
        wait.earlier.extend(earlier.filter(|other| world.asked[*other].key() < own.key()).cloned());
        let Some(then) = self.before.waiters.iter().find(|then| then.owner == waiter.owner) else {
            return;
        };
        let was_pinned = then.is_pinned && waiter.is_pinned;
        let is_in_line = waits_for(then).is_some() && waits_for(waiter).is_some();
        let is_open = own.units.keys().all(|limit| world.capacities[limit] > 0);
        let mut was_passed = false;
        for (limit, _) in LIMITS {
            let Some(&units) = own.units.get(limit) else { continue };
            let capacity = u64::from(world.capacities[limit]);
            let is_short = used(after, limit) + units > capacity;
            let others_came = admitted
                .iter()
                .map(|owner| &world.asked[*owner])
                .any(|other| other.key() > own.key() && other.units.contains_key(limit));
            if others_came && is_short {
                assert!(!was_pinned, "{waiter:?} is pinned and was passed on {limit}");
                was_passed = true;
            }
        }
        // Nothing is set aside for a waiter that could not start anyway, so it is not passed.
        wait.passed += u32::from(was_passed && is_in_line && is_open);
        let others = u32::try_from(wait.earlier.len()).unwrap();
        assert!(wait.passed <= self.overtakes_max * (1 + others), "{waiter:?}: {wait:?}");
    }

    /// Whoever was passed as often as allowed is pinned while it waits for capacity, unless
    /// something that it needs is paused. Whoever is pinned could start if there were more.
    fn check_pins(&self, world: &World, after: &Snapshot) {
        for waiter in &after.waiters {
            let is_due = waiter.overtakes >= self.overtakes_max && waits_for(waiter).is_some();
            let is_open =
                world.asked[&waiter.owner].units.keys().all(|limit| world.capacities[limit] > 0);
            assert!(is_due || !waiter.is_pinned, "{waiter:?}");
            assert!(waiter.is_pinned || !is_due || !is_open, "{waiter:?}");
            let own = &world.asked[&waiter.owner];
            let mut holders = after.holders.iter().map(|holder| &world.asked[&holder.owner]);
            let is_kept_out = holders.any(|held| held.conflicts_with(own));
            assert!(!waiter.is_pinned || !is_kept_out, "{waiter:?} waits for capacity alone");
        }
    }
}

fn waits_for(waiter: &Waiting) -> Option<&str> {
    match &waiter.waits_for {
        Claim::Capacity { limit, .. } => Some(limit),
        _ => None,
    }
}

fn used(snapshot: &Snapshot, name: &str) -> u64 {
    snapshot.limits.iter().find(|limit| limit.limit == name).map_or(0, |limit| limit.used)
}

fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases.max(512),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/fairness.regressions",
        ))),
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nobody_is_passed_more_often_than_promised(
        overtakes_max in prop::sample::select(vec![0u32, 1, 3]),
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut world = World::new(overtakes_max);
        let mut judge = Judge::new(&world, overtakes_max);
        for event in &events {
            world.apply(event);
            judge.look(&world);
        }
    }

    #[test]
    fn everybody_has_a_turn_in_whatever_order_things_are_given_back(
        events in prop::collection::vec(event(), 1..80),
        order in prop::collection::vec(any::<usize>(), 1..20),
    ) {
        let mut world = World::new(1);
        for event in &events {
            world.apply(event);
        }
        let mut judge = Judge::new(&world, 1);
        for (limit, capacity) in LIMITS {
            world.resize(limit, capacity);
            judge.look(&world);
        }
        for &which in order.iter().cycle() {
            world.claim();
            if world.permits.is_empty() {
                break;
            }
            let which = which % world.permits.len();
            drop(world.permits.remove(which));
            judge.look(&world);
        }
        prop_assert!(world.tasks.is_empty(), "somebody waits for nobody");
        let end = world.look();
        prop_assert!(end.holders.is_empty() && end.limits.is_empty(), "{end:?}");
    }
}
