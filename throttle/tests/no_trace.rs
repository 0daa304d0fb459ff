//! A request that was given up leaves nothing behind: the history goes on as without it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod history;
mod support;

use std::task::Poll;

use history::{Ask, Event, World, ask, event, request};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use support::Task;
use throttle::{Acquire, Claim, Priority, Request, Resource, Snapshot};

fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases.max(512),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/no_trace.regressions",
        ))),
        ..default
    }
}

/// The pictures after each event.
fn play(world: &mut World, events: &[Event]) -> Vec<Snapshot> {
    events
        .iter()
        .map(|event| {
            world.apply(event);
            world.admission.snapshot()
        })
        .collect()
}

/// The pictures in words, without the numbers that requests are told apart by.
fn told(pictures: impl IntoIterator<Item = Snapshot>) -> Vec<String> {
    let told = pictures.into_iter().map(|picture| format!("{picture:?}"));
    told.map(|text| {
        let parts = text.split("RequestId(");
        parts.map(|part| part.trim_start_matches(|digit: char| digit.is_ascii_digit())).collect()
    })
    .collect()
}

/// The future of a request that has to wait; `None` if it does not.
fn wait(world: &World, request: Request) -> Option<Task<Acquire>> {
    let mut task = Task::new(world.admission.acquire(request));
    match task.poll() {
        Poll::Pending => Some(task),
        Poll::Ready(outcome) => {
            drop(outcome);
            None
        }
    }
}

/// `snapshot` without whoever is called `owner`, nor what only it referred to.
fn without(mut snapshot: Snapshot, owner: &str) -> Snapshot {
    snapshot.waiters.retain(|waiter| waiter.owner != owner);
    let is_used = |limit: &str| {
        let names =
            |claim: &Claim| matches!(claim, Claim::Capacity { limit: own, .. } if own == limit);
        snapshot.waiters.iter().any(|waiter| names(&waiter.waits_for))
            || snapshot.holders.iter().any(|holder| holder.claims.iter().any(names))
    };
    // A limit that is known but not held may be referred to by some other claim of a waiter.
    let limits: Vec<_> =
        snapshot.limits.iter().filter(|limit| is_used(&limit.limit)).cloned().collect();
    snapshot.limits = limits;
    snapshot
}

/// The event, unless it let somebody come who is considered after a request made before.
fn as_urgent(event: Event) -> Event {
    match event {
        Event::Ask(ask) => Event::Ask(Ask { level: ask.level.max(1), ..ask }),
        Event::Advance { .. } => Event::Claim,
        other => other,
    }
}

proptest! {
    #![proptest_config(config())]

    /// Whatever it asked for and however urgent it was, it only stood in line for a moment.
    #[test]
    fn a_request_that_waited_for_a_moment_changes_nothing(
        before in prop::collection::vec(event(), 1..60),
        moment in ask(),
        after in prop::collection::vec(event(), 1..60),
    ) {
        let (mut with, mut plain) = (World::new(1), World::new(1));
        play(&mut with, &before);
        play(&mut plain, &before);
        let Some(task) = wait(&with, request("moment", &moment)) else { return Ok(()) };
        drop(task);
        prop_assert_eq!(told([with.look()]), told([plain.look()]));
        prop_assert_eq!(told(play(&mut with, &after)), told(play(&mut plain, &after)));
    }

    /// It waits behind everybody for something that never comes, and is examined whenever
    /// something else that it needs becomes free.
    #[test]
    fn a_request_that_waits_behind_everybody_is_noticed_by_nobody(
        before in prop::collection::vec(event(), 1..40),
        last in ask(),
        during in prop::collection::vec(event(), 1..40),
        after in prop::collection::vec(event(), 1..40),
    ) {
        let never = || Request::new("never").capacity(Resource::node(), "zeal", 1);
        let (mut with, mut plain) = (World::new(1), World::new(1));
        let _held = (
            with.admission.try_acquire(never()).unwrap(),
            plain.admission.try_acquire(never()).unwrap(),
        );
        play(&mut with, &before);
        play(&mut plain, &before);
        let late = request("last", &Ask { level: 0, ..last })
            .capacity(Resource::node(), "zeal", 1)
            .priority(Priority::Low);
        let Some(task) = wait(&with, late) else { unreachable!("zeal is held") };
        let during: Vec<_> = during.into_iter().map(as_urgent).collect();
        let seen: Vec<_> =
            play(&mut with, &during).into_iter().map(|picture| without(picture, "last")).collect();
        let expected: Vec<_> =
            play(&mut plain, &during).into_iter().map(|picture| without(picture, "last")).collect();
        prop_assert_eq!(told(seen), told(expected));
        drop(task);
        prop_assert_eq!(told([with.look()]), told([plain.look()]));
        prop_assert_eq!(told(play(&mut with, &after)), told(play(&mut plain, &after)));
    }

    #[test]
    fn the_same_history_leads_to_the_same_pictures(
        events in prop::collection::vec(event(), 1..80),
    ) {
        prop_assert_eq!(play(&mut World::new(1), &events), play(&mut World::new(1), &events));
    }
}
