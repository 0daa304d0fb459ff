//! Whatever was asked for and given back, nothing is left in the core.

use std::time::Duration;

use proptest::prelude::*;

use super::{Adopted, Core, Opening, Patience, PreparedIndex, Submitted};
use crate::clock::Instant;
use crate::limits::Limits;
use crate::policy::{Class, CompiledPolicy, Policy, Rule};
use crate::request::Request;
use crate::request_id::RequestId;
use crate::resource::{Resource, Scope};

fn policy() -> CompiledPolicy {
    let policy = Policy::new()
        .class(Class::new("data"))
        .class(Class::new("log").coalesce(Scope::Item))
        .rule(Scope::Item, "data/log", Rule::Allow)
        .rule(Scope::Item, "log/log", Rule::Wait);
    policy.compile().expect("the policy is sound")
}

/// One of a few owners asks for one of a few things.
fn request(seed: u8) -> Request {
    let request = Request::new(format!("op-{}", seed % 7));
    let item = Resource::item(format!("w/main/{}", seed % 3));
    let request = match seed % 4 {
        0 => request.exclusion("w", item, "data"),
        1 => request.exclusion("w", item, "log").coalesce_key("equal"),
        2 => request.capacity(Resource::node(), "streams", 1 + u32::from(seed % 3)),
        _ => request.exclusion("w", item, "data").capacity(Resource::node(), "buffers", 2),
    };
    let request = request.capacity(Resource::instance("w/main"), "streams", 1);
    match seed % 5 {
        0 => request.deadline(Instant::ORIGIN + Duration::from_secs(u64::from(seed))),
        _ => request,
    }
}

#[derive(Default)]
struct Players {
    members: Vec<RequestId>,
    prepared: Vec<(PreparedIndex, Request)>,
}

/// Plays one step on the core.
fn step(core: &mut Core, players: &mut Players, kind: u8, seed: u8, now: Instant) {
    let member = players.members.get(usize::from(seed) % players.members.len().max(1)).copied();
    let patience = if seed.is_multiple_of(6) { Patience::Refuse } else { Patience::Wait };
    let mut handed_in = Vec::new();
    match (kind % 12, member) {
        (0 | 1, _) => handed_in.push(core.submit(&request(seed), None, patience, now)),
        (2, _) => {
            if let Ok(index) = core.prepare(&request(seed)) {
                players.prepared.push((index, request(seed)));
            }
        }
        (3 | 4, _) if !players.prepared.is_empty() => {
            let (index, request) = &players.prepared[usize::from(seed) % players.prepared.len()];
            handed_in.push(core.submit(request, Some(*index), patience, now));
        }
        (5, _) if !players.prepared.is_empty() => {
            let (index, _) = players.prepared.remove(usize::from(seed) % players.prepared.len());
            core.unprepare(index);
        }
        (6, _) => {
            core.tick(now);
        }
        // Only who came for its permit has one to give something back of.
        (7, Some(member)) => {
            if core.claim(member).is_some() {
                core.release_capacity(member);
            }
        }
        (8, Some(member)) => {
            core.claim(member);
            if let Ok(Some(Submitted::Granted(part))) = core.reacquire(member, "again", now) {
                core.merge(part, member);
            }
        }
        (9, Some(member)) => {
            core.claim(member);
        }
        (10, Some(member)) if seed.is_multiple_of(3) => {
            core.force_release(member);
        }
        (11, Some(member)) if seed.is_multiple_of(3) => {
            core.rejoin(member);
        }
        (11, _) if seed.is_multiple_of(5) => {
            core.replace("w", policy()).expect("it has a policy");
        }
        (_, Some(member)) => {
            core.cancel(member);
            core.release(member);
            players.members.retain(|&known| known != member);
        }
        (_, None) => {
            let adopted = core.adopt(&request(seed), Adopted::Exclusions, now);
            players.members.extend(adopted);
        }
    }
    for submitted in handed_in.into_iter().flatten() {
        let (Submitted::Granted(id) | Submitted::Queued(id)) = submitted;
        players.members.push(id);
    }
    core.take_actions().for_each(drop);
}

/// Everybody leaves. The request to take capacity again that nobody merged leaves as well.
fn leave(core: &mut Core, players: Players) {
    for (index, _) in players.prepared {
        core.unprepare(index);
    }
    for member in players.members {
        core.cancel(member);
        core.release(member);
    }
    core.close();
    for holder in core.requests.holders().iter().map(|holder| holder.place.id).collect::<Vec<_>>() {
        core.force_release(holder);
    }
    core.take_actions().for_each(drop);
}

fn check_empty(core: &Core) -> Result<(), TestCaseError> {
    prop_assert!(core.requests.is_empty());
    prop_assert!(core.parties.slots().is_empty());
    prop_assert!(core.exclusions.slots().is_empty());
    prop_assert_eq!(core.limits.slots().len(), 2, "only those that the host has named");
    prop_assert!(core.limits.iter().all(|(_, site)| site.used == 0 && site.line.is_empty()));
    prop_assert!(core.deadlines.is_empty() && core.unclaimed.is_empty());
    prop_assert!(core.borrowers.is_empty() && core.capacity_borrowers.is_empty());
    prop_assert!(core.gained.is_empty());
    Ok(())
}

fn new_core() -> Core {
    let limits =
        Limits::new().node("streams", 3).node("buffers", 4).each(Scope::Instance, "streams", 5);
    let mut core = Core::new(limits.overtakes_max(2), Opening::AtOnce);
    core.register("w", policy()).expect("it is the only policy");
    core
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_was_there_leaves_nothing(steps in prop::collection::vec((0..12u8, any::<u8>()), 0..200)) {
        let (mut core, mut players) = (new_core(), Players::default());
        for (second, (kind, seed)) in (0..).zip(steps) {
            let now = Instant::ORIGIN + Duration::from_secs(second);
            step(&mut core, &mut players, kind, seed, now);
        }
        leave(&mut core, players);
        check_empty(&core)?;
    }
}

#[test]
fn ten_thousand_databases_come_and_go() {
    let mut core = new_core();
    for number in 0..10_000 {
        let item = Resource::item(format!("w/main/{number}"));
        let request = Request::new(format!("op-{number}")).exclusion("w", item, "data");
        let submitted = core.submit(&request, None, Patience::Wait, Instant::ORIGIN);
        let Ok(Submitted::Granted(id)) = submitted else { panic!("nobody else wants it") };
        if number % 2 == 0 {
            core.release(id);
        }
    }
    assert_eq!(core.exclusions.slots().len(), 5_000);
    let holders: Vec<_> = core.requests.holders().iter().map(|holder| holder.place.id).collect();
    holders.into_iter().for_each(|id| core.release(id));
    check_empty(&core).expect("nothing is left");
}
