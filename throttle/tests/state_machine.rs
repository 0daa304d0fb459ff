//! Random histories, judged by an oracle that knows the rules from their statement alone.
//!
//! The oracle recomputes who holds what from the permits that the test has in its hands,
//! and states the compatibility of classes a second time, as a function. After each event
//! it checks that
//!
//! - nobody was admitted beyond a capacity,
//! - no two holders conflict,
//! - holders hold all their claims and waiters none,
//! - no waiter could have what it is said to wait for, and whoever was granted was woken,
//! - nobody started before an earlier request that it conflicts with.
//!
//! At the end everything is given back, everybody must start, and nothing may be left. A
//! failure prints the shortest history that shows it; `cargo test -p throttle --test
//! state_machine` replays the ones that were found.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::task::Poll;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use support::Task;
use throttle::{
    Acquire, Admission, Claim, Class, Clock, Limits, ManualClock, Permit, Policy, Prepared,
    Priority, Request, Resource, Rule, Scope, Snapshot,
};

const STEP_SECONDS: u64 = 60;
const OVERTAKES_MAX: u32 = 1;
const CLASSES: [&str; 4] = ["data", "log", "restore", "probe"];
const PRIORITIES: [Priority; 4] =
    [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];

fn policy() -> Policy {
    CLASSES
        .into_iter()
        .fold(Policy::new(), |policy, name| policy.class(Class::new(name)))
        .rule(Scope::Item, "data/log", Rule::Allow)
        .rule(Scope::Item, "log/log", Rule::Allow)
        .rule(Scope::Item, "probe>*", Rule::Allow)
        .rule(Scope::Instance, "*/*", Rule::Allow)
        .rule(Scope::Instance, "restore/*", Rule::Wait)
}

/// The same rules, said differently: may `asked` start beside `running`?
fn may_join(scope: Scope, running: &str, asked: &str) -> bool {
    match (scope, running, asked) {
        (Scope::Instance, one, other) => one != "restore" && other != "restore",
        (_, "probe", _) => true,
        (_, "log", "log" | "data") | (_, "data", "log") => true,
        _ => false,
    }
}

fn may_mix(scope: Scope, one: &str, other: &str) -> bool {
    may_join(scope, one, other) && may_join(scope, other, one)
}

#[derive(Clone, Debug)]
enum Event {
    Ask { items: Vec<(usize, usize)>, units: Vec<(usize, u32)>, priority: usize },
    AskAgain(usize),
    AskForPart { of: usize, item: usize, class: usize },
    Try { item: usize, class: usize, limit: usize },
    PollWoken,
    DropFuture(usize),
    Release(usize),
    ReleaseCapacity(usize),
    SetCapacity { limit: usize, capacity: u32 },
    Advance { seconds: u64 },
}

/// Three limits, and what they have at the beginning.
fn limits() -> [(Resource, &'static str, u32); 3] {
    [
        (Resource::node(), "streams", 4),
        (Resource::node(), "buffers", 6),
        (Resource::workload("w"), "streams", 3),
    ]
}

/// Three items, and the instance of the first two.
fn resource(number: usize) -> Resource {
    match number {
        0..3 => Resource::item(format!("w/i/{number}")),
        _ => Resource::instance("w/i"),
    }
}

fn event() -> impl Strategy<Value = Event> {
    let items = prop::collection::vec((0usize..4, 0usize..4), 0..3);
    let units = prop::collection::vec((0usize..3, 1u32..4), 0..3);
    prop_oneof![
        6 => (items, units, 0usize..4)
            .prop_filter("a request has a claim", |(items, units, _)| {
                !items.is_empty() || !units.is_empty()
            })
            .prop_map(|(items, units, priority)| Event::Ask { items, units, priority }),
        3 => any::<usize>().prop_map(Event::AskAgain),
        1 => (any::<usize>(), 0usize..4, 0usize..4)
            .prop_map(|(of, item, class)| Event::AskForPart { of, item, class }),
        1 => (0usize..4, 0usize..4, 0usize..3)
            .prop_map(|(item, class, limit)| Event::Try { item, class, limit }),
        4 => Just(Event::PollWoken),
        2 => any::<usize>().prop_map(Event::DropFuture),
        5 => any::<usize>().prop_map(Event::Release),
        1 => any::<usize>().prop_map(Event::ReleaseCapacity),
        1 => (0usize..3, 0u32..7)
            .prop_map(|(limit, capacity)| Event::SetCapacity { limit, capacity }),
        1 => (1u64..200).prop_map(|seconds| Event::Advance { seconds }),
    ]
}

/// What the test knows of a request, waiting or granted.
#[derive(Clone, Debug)]
struct Known {
    root: String,
    /// In the order of consideration; lower is earlier.
    key: (i128, usize),
    exclusions: BTreeSet<(Resource, String)>,
    units: BTreeMap<(Resource, String), u64>,
}

impl Known {
    fn claims(&self) -> usize {
        self.exclusions.len() + self.units.len()
    }

    /// Whether `other` holds something that this one may not join.
    fn is_kept_out_by(&self, other: &Known) -> bool {
        self.root != other.root
            && self.meets(other, |scope, own, others| !may_join(scope, others, own))
    }

    /// Whether it matters which of the two starts first.
    fn is_ordered_with(&self, other: &Known) -> bool {
        self.meets(other, |scope, own, others| !may_mix(scope, own, others))
    }

    fn meets(&self, other: &Known, test: impl Fn(Scope, &str, &str) -> bool) -> bool {
        self.exclusions.iter().any(|(resource, own)| {
            other
                .exclusions
                .iter()
                .any(|(others, class)| others == resource && test(resource.scope(), own, class))
        })
    }
}

struct World {
    clock: ManualClock,
    admission: Admission,
    capacities: BTreeMap<(Resource, String), u32>,
    known: BTreeMap<String, Known>,
    prepared: Vec<(Prepared, Priority)>,
    permits: Vec<Permit>,
    futures: Vec<(String, Task<Acquire>)>,
    /// Who held something after the last event.
    held_before: BTreeSet<String>,
    next: usize,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        let host = limits().into_iter().fold(
            Limits::new()
                .overtakes_max(OVERTAKES_MAX)
                .priority_step(Duration::from_secs(STEP_SECONDS)),
            |host, (resource, limit, capacity)| host.resource(resource, limit, capacity),
        );
        let admission = Admission::new(host, clock.clone());
        admission.register("w", policy().compile().unwrap()).unwrap();
        let capacities = limits()
            .into_iter()
            .map(|(resource, limit, capacity)| ((resource, limit.to_owned()), capacity))
            .collect();
        Self {
            clock,
            admission,
            capacities,
            known: BTreeMap::new(),
            prepared: Vec::new(),
            permits: Vec::new(),
            futures: Vec::new(),
            held_before: BTreeSet::new(),
            next: 0,
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Ask { items, units, priority } => {
                let mut request = self.request();
                for &(item, class) in items {
                    request = request.exclusion("w", resource(item), CLASSES[class]);
                }
                for &(limit, units) in units {
                    let (resource, limit, _) = limits()[limit].clone();
                    request = request.capacity(resource, limit, units);
                }
                self.ask(request.priority(PRIORITIES[*priority]), PRIORITIES[*priority]);
            }
            Event::AskAgain(which) => {
                let known = &self.known;
                let idle = |(prepared, _): &&(Prepared, Priority)| {
                    !known.contains_key(prepared.request().owner())
                };
                let idle: Vec<_> = self.prepared.iter().filter(idle).collect();
                if let Some((prepared, priority)) = pick(&idle, *which).copied().cloned() {
                    self.remember(prepared.request(), priority);
                    self.next += 1;
                    self.wait(prepared.acquire(), prepared.request().owner());
                }
            }
            Event::AskForPart { of, item, class } => {
                if let Some(permit) = pick(&self.permits, *of) {
                    let request = self.request().lent_by(permit);
                    let request = request.exclusion("w", resource(*item), CLASSES[*class]);
                    self.ask(request, Priority::Normal);
                }
            }
            Event::Try { item, class, limit } => {
                let (limited, limit, _) = limits()[*limit].clone();
                let request = self
                    .request()
                    .exclusion("w", resource(*item), CLASSES[*class])
                    .capacity(limited, limit, 1);
                self.remember(&request, Priority::Normal);
                match self.admission.try_acquire(request.clone()) {
                    Ok(permit) => self.permits.push(permit),
                    Err(error) => {
                        assert!(error.is_retryable(), "{error}");
                        self.known.remove(request.owner());
                    }
                }
                self.next += 1;
            }
            Event::PollWoken => self.poll_woken(),
            Event::DropFuture(which) => {
                if !self.futures.is_empty() {
                    let (owner, future) = self.futures.swap_remove(which % self.futures.len());
                    drop(future);
                    self.known.remove(&owner);
                }
            }
            Event::Release(which) => {
                if !self.permits.is_empty() {
                    let permit = self.permits.swap_remove(which % self.permits.len());
                    self.known.remove(permit.owner());
                }
            }
            Event::ReleaseCapacity(which) => {
                if let Some(permit) = pick(&self.permits, *which) {
                    permit.release_capacity();
                    if let Some(known) = self.known.get_mut(permit.owner()) {
                        known.units.clear();
                    }
                }
            }
            Event::SetCapacity { limit, capacity } => {
                let (resource, limit, _) = limits()[*limit].clone();
                self.admission.set_capacity(&resource, limit, *capacity);
                self.capacities.insert((resource, limit.to_owned()), *capacity);
            }
            Event::Advance { seconds } => self.clock.advance(Duration::from_secs(*seconds)),
        }
    }

    fn request(&self) -> Request {
        Request::new(format!("op-{}", self.next))
    }

    fn remember(&mut self, request: &Request, priority: Priority) {
        let level = PRIORITIES.iter().position(|&other| other == priority).unwrap();
        let arrival = i128::from(self.clock.now().since_origin().as_secs());
        let head_start = i128::try_from(level).unwrap() * i128::from(STEP_SECONDS);
        let mut known = Known {
            root: request.root().to_owned(),
            key: (arrival - head_start, self.next),
            exclusions: BTreeSet::new(),
            units: BTreeMap::new(),
        };
        for claim in request.claims() {
            match claim {
                Claim::Exclusion { resource, class, .. } => {
                    known.exclusions.insert((resource.clone(), class.clone()));
                }
                Claim::Capacity { resource, limit, units, .. } => {
                    *known.units.entry((resource.clone(), limit.clone())).or_default() +=
                        u64::from(*units);
                }
                other => panic!("{other:?}"),
            }
        }
        self.known.insert(request.owner().to_owned(), known);
    }

    fn ask(&mut self, request: Request, priority: Priority) {
        let owner = request.owner().to_owned();
        self.remember(&request, priority);
        self.next += 1;
        // Looking the names up beforehand makes no difference.
        let future = match self.next % 2 {
            0 => Ok(self.admission.acquire(request)),
            _ => self.admission.prepare(request).map(|prepared| {
                self.prepared.push((prepared.clone(), priority));
                prepared.acquire()
            }),
        };
        match future {
            Ok(future) => self.wait(future, &owner),
            Err(error) => self.refused(&owner, &error),
        }
    }

    fn wait(&mut self, future: Acquire, owner: &str) {
        let mut task = Task::new(future);
        match task.poll() {
            Poll::Ready(Ok(permit)) => self.permits.push(permit),
            Poll::Ready(Err(error)) => self.refused(owner, &error),
            Poll::Pending => self.futures.push((owner.to_owned(), task)),
        }
    }

    fn refused(&mut self, owner: &str, error: &throttle::AcquireError) {
        let kind = error.kind();
        assert!(matches!(kind, throttle::AcquireErrorKind::Unsatisfiable { .. }), "{error}");
        self.known.remove(owner);
    }

    fn poll_woken(&mut self) {
        let permits = &mut self.permits;
        self.futures.retain_mut(|(_, task)| {
            if !task.is_woken() {
                return true;
            }
            match task.poll() {
                Poll::Ready(outcome) => permits.push(outcome.unwrap()),
                Poll::Pending => panic!("woken for nothing"),
            }
            false
        });
    }

    fn check(&mut self) {
        let snapshot = self.admission.snapshot();
        let waiting: BTreeSet<_> =
            self.futures.iter().filter(|(_, task)| !task.is_woken()).map(|(o, _)| o).collect();
        let seen: BTreeSet<_> = snapshot.waiters.iter().map(|waiter| &waiter.owner).collect();
        assert_eq!(seen, waiting, "who waits, and who was not woken");

        let holders: BTreeMap<_, _> =
            self.known.iter().filter(|(owner, _)| !waiting.contains(owner)).collect();
        self.check_holders(&snapshot, &holders);
        self.check_admitted(&snapshot, &holders);
        self.check_waiters(&snapshot, &holders);
        self.held_before = holders.into_keys().cloned().collect();
    }

    /// Holders hold all that they claimed, nobody else holds anything, nobody conflicts.
    fn check_holders(&self, snapshot: &Snapshot, holders: &BTreeMap<&String, &Known>) {
        assert_eq!(snapshot.holders.len(), holders.len());
        for holding in &snapshot.holders {
            assert_eq!(holding.claims.len(), holders[&holding.owner].claims(), "{holding:?}");
        }
        for limit in &snapshot.limits {
            let name = (limit.resource.clone(), limit.limit.clone());
            assert_eq!(limit.used, used(holders.values().copied(), &name), "{name:?}");
            assert_eq!(limit.capacity, self.capacities[&name]);
        }
        for one in holders.values() {
            for other in holders.values() {
                // Each may have come first; one allowed order is enough.
                let is_conflict = one.root != other.root
                    && one.meets(other, |scope, one, other| {
                        !may_join(scope, one, other) && !may_join(scope, other, one)
                    });
                assert!(!is_conflict, "{one:?} beside {other:?}");
            }
        }
    }

    /// Who was admitted by the last event fits, and has not passed whom it must not pass.
    fn check_admitted(&self, snapshot: &Snapshot, holders: &BTreeMap<&String, &Known>) {
        let admitted: Vec<_> =
            holders.iter().filter(|(owner, _)| !self.held_before.contains(**owner)).collect();
        for (owner, known) in &admitted {
            for (name, &units) in &known.units {
                let capacity = u64::from(self.capacities[name]);
                let used = used(holders.values().copied(), name);
                let is_alone = units > capacity && used == units && capacity > 0;
                assert!(used <= capacity || is_alone, "{owner} was admitted beyond {name:?}");
            }
            let joined: Vec<_> =
                holders.iter().filter(|(other, _)| self.held_before.contains(**other)).collect();
            for (other, held) in joined {
                assert!(!known.is_kept_out_by(held), "{owner} was admitted beside {other}");
            }
            let is_borrower = self.has_exclusions(holders, &known.root, owner);
            for waiter in &snapshot.waiters {
                let waiting = &self.known[&waiter.owner];
                assert!(
                    is_borrower || waiting.key > known.key || !known.is_ordered_with(waiting),
                    "{owner} started before {}",
                    waiter.owner
                );
            }
        }
    }

    /// No waiter could have what it waits for, and each is told by whom it is kept waiting.
    fn check_waiters(&self, snapshot: &Snapshot, holders: &BTreeMap<&String, &Known>) {
        let keys: Vec<_> =
            snapshot.waiters.iter().map(|waiter| self.known[&waiter.owner].key).collect();
        assert!(keys.is_sorted(), "waiters are listed in the order of consideration");
        for (index, waiter) in snapshot.waiters.iter().enumerate() {
            let known = &self.known[&waiter.owner];
            let ahead = &snapshot.waiters[..index];
            match &waiter.waits_for {
                Claim::Exclusion { resource, class, .. } => {
                    let wanted = Known {
                        exclusions: BTreeSet::from([(resource.clone(), class.clone())]),
                        ..known.clone()
                    };
                    let is_held = holders.values().any(|held| wanted.is_kept_out_by(held));
                    let is_borrower = self.has_exclusions(holders, &known.root, &waiter.owner);
                    let is_behind = !is_borrower
                        && ahead
                            .iter()
                            .any(|other| wanted.is_ordered_with(&self.known[&other.owner]));
                    assert!(is_held || is_behind, "{waiter:?} was overlooked");
                    assert!(!waiter.blockers.is_empty(), "{waiter:?}");
                }
                Claim::Capacity { resource, limit, units, .. } => {
                    let name = (resource.clone(), limit.clone());
                    let (capacity, units) = (u64::from(self.capacities[&name]), u64::from(*units));
                    assert_eq!(known.units[&name], units);
                    let pinned = ahead
                        .iter()
                        .filter(|other| other.is_pinned)
                        .map(|other| self.known[&other.owner].units.get(&name).unwrap_or(&0));
                    let taken = used(holders.values().copied(), &name) + pinned.sum::<u64>();
                    let fits = taken + units <= capacity || (taken == 0 && units > capacity);
                    assert!(capacity == 0 || !fits, "{waiter:?} was overlooked");
                    assert_eq!(waiter.blockers.is_empty(), capacity == 0, "{waiter:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Whether the root of a request holds exclusions, apart from the request itself.
    fn has_exclusions(
        &self,
        holders: &BTreeMap<&String, &Known>,
        root: &str,
        except: &str,
    ) -> bool {
        holders.iter().any(|(owner, known)| {
            known.root == root && *owner != except && !known.exclusions.is_empty()
        })
    }

    /// Gives everything back until nobody waits.
    fn drain(&mut self) {
        for (resource, limit, capacity) in limits() {
            self.admission.set_capacity(&resource, limit, capacity);
            self.capacities.insert((resource, limit.to_owned()), capacity);
            self.check();
        }
        loop {
            self.poll_woken();
            let Some(permit) = self.permits.pop() else { break };
            self.known.remove(permit.owner());
            drop(permit);
            self.check();
        }
        assert!(self.futures.is_empty(), "somebody waits for nobody");
        self.prepared.clear();
        let snapshot = self.admission.snapshot();
        assert!(snapshot.holders.is_empty() && snapshot.limits.is_empty(), "{snapshot:?}");
    }
}

fn pick<T>(all: &[T], which: usize) -> Option<&T> {
    all.get(which.checked_rem(all.len())?)
}

fn used<'a>(holders: impl Iterator<Item = &'a Known>, name: &(Resource, String)) -> u64 {
    holders.filter_map(|known| known.units.get(name)).sum()
}

fn config() -> ProptestConfig {
    let found = FileFailurePersistence::Direct("tests/state_machine.regressions");
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases.max(512),
        failure_persistence: Some(Box::new(found)),
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_history_keeps_the_promises(events in prop::collection::vec(event(), 1..120)) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
            world.check();
        }
        world.drain();
    }

    #[test]
    fn the_same_history_is_decided_the_same_way(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let run = || {
            let mut world = World::new();
            let mut pictures = Vec::new();
            for event in &events {
                world.apply(event);
                pictures.push(world.admission.snapshot());
            }
            pictures
        };
        prop_assert_eq!(run(), run());
    }
}
