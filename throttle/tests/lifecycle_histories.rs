//! Random lives of permits: revoked, shared, lent, given back in part, taken again, while
//! capacities and policies change.
//!
//! After each event nobody holds a limit that was not claimed, and every waiter is told what
//! it waits for. At the end everybody who still waits is granted once permits return, and
//! nothing is left behind. A failure prints the shortest history that shows it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::task::Poll;
use std::time::Duration;

use proptest::prelude::*;
use support::Task;
use throttle::{
    Acquire, AcquireErrorKind, Admission, Claim, Class, Limits, ManualClock, Permit, Policy,
    Request, Resource, Rule, Scope, Standing,
};

const CLASSES: [&str; 3] = ["data", "log", "restore"];
const LIMITS: [(&str, u32); 2] = [("streams", 4), ("lane", 2)];

#[derive(Clone, Debug)]
enum Event {
    Ask {
        item: usize,
        class: usize,
        units: Vec<(usize, u32)>,
        is_keyed: bool,
        part_of: Option<usize>,
    },
    PollAll,
    Poll(usize),
    DropFuture(usize),
    Release(usize),
    ReleaseCapacity(usize),
    Downgrade {
        which: usize,
        limit: usize,
        units: u32,
    },
    Reacquire(usize),
    ForceRelease(usize),
    SetCapacity {
        limit: usize,
        capacity: u32,
    },
    Replace {
        is_strict: bool,
    },
    Tick {
        seconds: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let which = any::<usize>;
    let units = prop::collection::vec((0usize..2, 1u32..3), 0..3);
    prop_oneof![
        6 => (0usize..2, 0usize..3, units, any::<bool>(), prop::option::weighted(0.3, which()))
            .prop_map(|(item, class, units, is_keyed, part_of)| {
                Event::Ask { item, class, units, is_keyed, part_of }
            }),
        3 => Just(Event::PollAll),
        2 => which().prop_map(Event::Poll),
        2 => which().prop_map(Event::DropFuture),
        4 => which().prop_map(Event::Release),
        1 => which().prop_map(Event::ReleaseCapacity),
        2 => (which(), 0usize..2, 1u32..3)
            .prop_map(|(which, limit, units)| Event::Downgrade { which, limit, units }),
        2 => which().prop_map(Event::Reacquire),
        1 => which().prop_map(Event::ForceRelease),
        1 => (0usize..2, 0u32..5).prop_map(|(limit, capacity)| Event::SetCapacity { limit, capacity }),
        1 => any::<bool>().prop_map(|is_strict| Event::Replace { is_strict }),
        2 => (1u64..50).prop_map(|seconds| Event::Tick { seconds }),
    ]
}

fn policy(is_strict: bool) -> Policy {
    let classes = CLASSES
        .into_iter()
        .fold(Policy::new(), |policy, name| policy.class(Class::new(name).coalesce(Scope::Item)));
    match is_strict {
        true => classes,
        false => classes.rule(Scope::Item, "data/log", Rule::Allow),
    }
}

struct World {
    clock: ManualClock,
    admission: Admission,
    permits: Vec<Permit>,
    futures: Vec<Task<Acquire>>,
    next: usize,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        let limits = LIMITS
            .into_iter()
            .fold(Limits::new().overtakes_max(2), |limits, (name, n)| limits.node(name, n));
        let admission = Admission::new(limits, clock.clone());
        admission.register("w", policy(false).compile().unwrap()).unwrap();
        Self { clock, admission, permits: Vec::new(), futures: Vec::new(), next: 0 }
    }

    fn apply(&mut self, event: &Event) {
        let Self { permits, futures, admission, .. } = self;
        let permit = |which: usize| Some(&permits[which.checked_rem(permits.len())?]);
        match *event {
            Event::Ask { item, class, ref units, is_keyed, part_of } => {
                let item = Resource::item(format!("w/i/{item}"));
                let owner = format!("op-{}", self.next);
                let mut request = Request::new(owner).exclusion("w", item, CLASSES[class]);
                for &(limit, units) in units {
                    request = request.capacity(Resource::node(), LIMITS[limit].0, units);
                }
                if is_keyed {
                    request = request.coalesce_key("scheduled");
                }
                if let Some(permit) = part_of.and_then(permit) {
                    request = request.borrowing_from(permit);
                }
                self.next += 1;
                futures.push(Task::new(admission.acquire(request)));
                let last = futures.len() - 1;
                self.poll(last);
            }
            Event::PollAll => self.poll_all(),
            Event::Poll(which) => {
                if let Some(which) = which.checked_rem(futures.len()) {
                    self.poll(which);
                }
            }
            Event::DropFuture(which) => {
                if let Some(which) = which.checked_rem(futures.len()) {
                    drop(futures.swap_remove(which));
                }
            }
            Event::Release(which) => {
                if let Some(which) = which.checked_rem(permits.len()) {
                    drop(permits.swap_remove(which));
                }
            }
            Event::ReleaseCapacity(which) => {
                if let Some(permit) = permit(which) {
                    permit.release_capacity();
                }
            }
            Event::Downgrade { which, limit, units } => {
                if let Some(permit) = permit(which) {
                    permit.downgrade(&[Claim::capacity(Resource::node(), LIMITS[limit].0, units)]);
                }
            }
            Event::Reacquire(which) => {
                if let Some(permit) = permit(which) {
                    // It is dropped at once if it has to wait.
                    let _ = Task::new(permit.reacquire()).poll();
                }
            }
            Event::ForceRelease(which) => {
                if let Some(permit) = permit(which) {
                    admission.force_release(permit.id());
                }
            }
            Event::SetCapacity { limit, capacity } => {
                admission.set_capacity(&Resource::node(), LIMITS[limit].0, capacity);
            }
            Event::Replace { is_strict } => {
                admission.replace("w", policy(is_strict).compile().unwrap()).unwrap();
            }
            Event::Tick { seconds } => {
                self.clock.advance(Duration::from_secs(seconds));
                admission.tick();
            }
        }
    }

    fn poll(&mut self, which: usize) {
        match self.futures[which].poll() {
            Poll::Pending => {}
            Poll::Ready(outcome) => {
                drop(self.futures.swap_remove(which));
                match outcome {
                    Ok(permit) => self.permits.push(permit),
                    Err(error) => assert!(
                        matches!(
                            error.kind(),
                            AcquireErrorKind::Released
                                | AcquireErrorKind::Coalesced { .. }
                                | AcquireErrorKind::Unsatisfiable { .. }
                        ),
                        "{error}"
                    ),
                }
            }
        }
    }

    fn poll_all(&mut self) {
        for which in (0..self.futures.len()).rev() {
            self.poll(which);
        }
    }

    fn check(&self) {
        let snapshot = self.admission.snapshot();
        for limit in &snapshot.limits {
            let claimed = snapshot.holders.iter().flat_map(|holder| &holder.claims);
            let claimed: u64 = claimed
                .filter_map(|claim| match claim {
                    Claim::Capacity { limit: name, units, .. } if *name == limit.limit => {
                        Some(u64::from(*units))
                    }
                    _ => None,
                })
                .sum();
            // Less if some of it is lent.
            assert!(limit.used <= claimed, "{limit} but {claimed} claimed\n{snapshot}");
        }
        for waiter in &snapshot.waiters {
            let is_explained = !waiter.blockers.is_empty()
                || waiter.standing != Standing::InLine
                || snapshot.limits.iter().any(|limit| limit.capacity == 0);
            assert!(is_explained, "{waiter}");
        }
    }

    fn drain(&mut self) {
        for (limit, capacity) in LIMITS {
            self.admission.set_capacity(&Resource::node(), limit, capacity);
        }
        loop {
            self.poll_all();
            self.poll_all();
            self.check();
            if self.permits.pop().is_none() {
                break;
            }
        }
        let snapshot = self.admission.snapshot();
        assert!(self.futures.is_empty(), "somebody waits for nobody\n{snapshot}");
        assert!(snapshot.to_string().is_empty(), "left behind:\n{snapshot}");
        assert_eq!(self.admission.next_tick(), None);
        assert!(Task::new(self.admission.drain()).poll().is_ready());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_life_of_a_permit_leaves_nothing_behind(
        events in prop::collection::vec(event(), 1..100),
    ) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
            world.check();
        }
        world.drain();
    }
}
