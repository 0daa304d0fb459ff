//! Random histories of an admission with two scarce limits, three items and their instance.
#![allow(dead_code, reason = "each test file uses the part that it needs")]

use std::collections::{BTreeMap, BTreeSet};
use std::task::Poll;
use std::time::Duration;

use proptest::prelude::*;
use throttle::{
    Acquire, Admission, Class, Clock, Limits, ManualClock, Permit, Policy, Priority, Request,
    Resource, Rule, Scope, Snapshot,
};

use crate::support::Task;

pub(crate) const STEP: Duration = Duration::from_secs(60);
pub(crate) const LIMITS: [(&str, u32); 2] = [("streams", 4), ("buffers", 5)];
const CLASSES: [&str; 3] = ["data", "log", "restore"];
const PRIORITIES: [Priority; 4] =
    [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];
/// The level of the most urgent priority.
pub(crate) const LEVEL_MAX: u32 = 3;

fn policy() -> Policy {
    CLASSES
        .into_iter()
        .fold(Policy::new(), |policy, name| policy.class(Class::new(name)))
        .rule(Scope::Item, "data/log", Rule::Allow)
        .rule(Scope::Instance, "*/*", Rule::Allow)
        .rule(Scope::Instance, "restore/*", Rule::Wait)
}

/// Whether two classes may work on one resource at the same time, said a second time.
pub(crate) fn are_compatible(scope: Scope, one: &str, other: &str) -> bool {
    match scope {
        Scope::Instance => one != "restore" && other != "restore",
        _ => matches!((one, other), ("data", "log") | ("log", "data")),
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Ask(Ask),
    Claim,
    Drop(usize),
    Release(usize),
    Resize { limit: usize, capacity: u32 },
    Advance { seconds: u64 },
}

#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) exclusions: Vec<(usize, usize)>,
    pub(crate) units: [u32; 2],
    pub(crate) level: u32,
}

pub(crate) fn ask() -> impl Strategy<Value = Ask> {
    let exclusions = prop::collection::vec((0usize..4, 0usize..3), 0..3);
    (exclusions, [0u32..4, 0u32..4], 0u32..4)
        .prop_filter("a request has a claim", |(exclusions, units, _)| {
            !exclusions.is_empty() || units.iter().any(|&units| units > 0)
        })
        .prop_map(|(exclusions, units, level)| Ask { exclusions, units, level })
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => ask().prop_map(Event::Ask),
        4 => Just(Event::Claim),
        1 => any::<usize>().prop_map(Event::Drop),
        6 => any::<usize>().prop_map(Event::Release),
        1 => (0usize..2, 0u32..7)
            .prop_map(|(limit, capacity)| Event::Resize { limit, capacity }),
        2 => (1u64..100).prop_map(|seconds| Event::Advance { seconds }),
    ]
}

/// What the test itself knows of a request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) arrival: Duration,
    pub(crate) level: u32,
    pub(crate) number: usize,
    pub(crate) exclusions: BTreeSet<(Resource, String)>,
    pub(crate) units: BTreeMap<&'static str, u64>,
}

impl Asked {
    /// The order of consideration: arrival less head start, then the order of asking.
    pub(crate) fn key(&self) -> (i128, usize) {
        let arrival = i128::try_from(self.arrival.as_nanos()).unwrap();
        let head_start = i128::try_from(STEP.as_nanos()).unwrap() * i128::from(self.level);
        (arrival - head_start, self.number)
    }

    pub(crate) fn conflicts_with(&self, other: &Asked) -> bool {
        self.exclusions.iter().any(|(resource, own)| {
            other.exclusions.iter().any(|(others, class)| {
                resource == others && !are_compatible(resource.scope(), own, class)
            })
        })
    }
}

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) admission: Admission,
    pub(crate) capacities: BTreeMap<&'static str, u32>,
    pub(crate) asked: BTreeMap<String, Asked>,
    pub(crate) permits: Vec<Permit>,
    pub(crate) tasks: Vec<(String, Task<Acquire>)>,
}

impl World {
    pub(crate) fn new(overtakes_max: u32) -> Self {
        let clock = ManualClock::new();
        let limits = LIMITS.into_iter().fold(
            Limits::new().overtakes_max(overtakes_max).priority_step(STEP).node("zeal", 1),
            |limits, (name, capacity)| limits.node(name, capacity),
        );
        let admission = Admission::new(limits, clock.clone());
        admission.register("w", policy().compile().unwrap()).unwrap();
        Self {
            clock,
            admission,
            capacities: LIMITS.into_iter().collect(),
            asked: BTreeMap::new(),
            permits: Vec::new(),
            tasks: Vec::new(),
        }
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Ask(ask) => self.ask(ask),
            Event::Claim => self.claim(),
            Event::Drop(which) => {
                if !self.tasks.is_empty() {
                    drop(self.tasks.remove(which % self.tasks.len()));
                }
            }
            Event::Release(which) => {
                if !self.permits.is_empty() {
                    drop(self.permits.remove(which % self.permits.len()));
                }
            }
            Event::Resize { limit, capacity } => self.resize(LIMITS[*limit].0, *capacity),
            Event::Advance { seconds } => self.clock.advance(Duration::from_secs(*seconds)),
        }
    }

    pub(crate) fn resize(&mut self, limit: &'static str, capacity: u32) {
        self.admission.set_capacity(&Resource::node(), limit, capacity);
        self.capacities.insert(limit, capacity);
    }

    fn ask(&mut self, ask: &Ask) {
        let number = self.asked.len();
        let owner = format!("op-{number}");
        let mut asked = Asked {
            arrival: self.clock.now().since_origin(),
            level: ask.level,
            number,
            exclusions: BTreeSet::new(),
            units: BTreeMap::new(),
        };
        for &(item, class) in &ask.exclusions {
            asked.exclusions.insert((resource(item), CLASSES[class].to_owned()));
        }
        for ((limit, _), &units) in LIMITS.into_iter().zip(&ask.units) {
            if units > 0 {
                asked.units.insert(limit, u64::from(units));
            }
        }
        self.asked.insert(owner.clone(), asked);
        let mut task = Task::new(self.admission.acquire(request(&owner, ask)));
        match task.poll() {
            Poll::Ready(outcome) => self.permits.push(outcome.unwrap()),
            Poll::Pending => self.tasks.push((owner, task)),
        }
    }

    /// Takes the permits of all that were woken.
    pub(crate) fn claim(&mut self) {
        let permits = &mut self.permits;
        self.tasks.retain_mut(|(_, task)| {
            let is_woken = task.is_woken();
            if is_woken {
                match task.poll() {
                    Poll::Ready(outcome) => permits.push(outcome.unwrap()),
                    Poll::Pending => panic!("woken for nothing"),
                }
            }
            !is_woken
        });
    }

    /// The picture, in which exactly those wait who were not woken.
    pub(crate) fn look(&self) -> Snapshot {
        let snapshot = self.admission.snapshot();
        let seen: BTreeSet<_> = snapshot.waiters.iter().map(|waiter| &waiter.owner).collect();
        let waiting: BTreeSet<_> =
            self.tasks.iter().filter(|(_, task)| !task.is_woken()).map(|(o, _)| o).collect();
        assert_eq!(seen, waiting, "who waits, and who was not woken");
        snapshot
    }
}

fn resource(number: usize) -> Resource {
    match number {
        0..3 => Resource::item(format!("w/i/{number}")),
        _ => Resource::instance("w/i"),
    }
}

pub(crate) fn request(owner: &str, ask: &Ask) -> Request {
    let request = ask.exclusions.iter().fold(Request::new(owner), |request, &(item, class)| {
        request.exclusion("w", resource(item), CLASSES[class])
    });
    LIMITS
        .into_iter()
        .zip(&ask.units)
        .filter(|&(_, &units)| units > 0)
        .fold(request, |request, ((limit, _), &units)| {
            request.capacity(Resource::node(), limit, units)
        })
        .priority(PRIORITIES[ask.level as usize])
}
