//! Runs that runs spawn: born, waited for and asked to stop together.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::{collections::BTreeSet, time::Duration};

use fsm_core::{
    Context, Data, Ending, Environment, Fault, Machine, Observer, Outcome, Retention, RunEvent,
    RunId, Runtime, RuntimeErrorKind, Spawn, State, Step, StepKind, Wait, check, go,
    testing::{ManualEnvironment, Trial},
};
use serde::{Deserialize, Serialize};

use self::support::{
    desk::{Desk, Prepare},
    id, lying,
    medium::Medium,
    parent::{Kid, Parent, Raise, Then},
    process::{Events, Process},
    telling::kind,
    world::{Act, World},
};

on_each_journal! {
    a_parent_waits_for_the_ends_of_its_children_and_sees_them
    a_child_is_born_with_the_transition_and_not_before
    a_child_that_fails_is_seen_to_have_failed
    a_parent_that_is_asked_to_stop_asks_its_children_and_waits_for_them
    a_child_that_defers_keeps_a_cancelled_parent_waiting
    a_parent_that_defers_does_not_pass_a_request_on
    a_parent_at_work_that_is_asked_to_stop_asks_its_children
    a_parent_that_ends_first_asks_its_children_to_stop
    a_parent_that_is_given_up_asks_its_children_to_stop
    a_child_that_ends_while_its_parent_is_not_here_is_seen
    a_crash_leaves_a_family_as_it_was
    a_child_of_an_ended_parent_is_asked_to_stop_by_the_next_process
    a_child_of_a_forgotten_parent_is_asked_to_stop_by_the_next_process
    an_unknown_machine_is_a_fault_of_the_parent_alone
    a_key_twice_is_a_fault_of_the_parent_alone
    a_key_that_names_no_run_is_a_fault_of_the_parent_alone
    grandchildren_are_waited_for_and_asked_to_stop
    a_hundred_children_are_waited_for
    a_child_is_no_run_to_redrive
    a_child_that_is_asked_after_when_it_ends_is_seen
    an_observer_that_panics_keeps_no_parent_waiting
    a_child_that_ends_during_a_step_is_seen_by_the_next_state
}

fn watch(kids: &[(&str, Prepare)]) -> Raise {
    Raise::new(kids, Then::Watch)
}

const WAITS: Prepare = Prepare::Serve { orders: 1 };

fn a_parent_waits_for_the_ends_of_its_children_and_sees_them(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("p", "parent", &watch(&[("a", WAITS), ("b", Prepare::Nothing)]));
    process.until_in("p/1/a", "await");
    process.until(|| process.has_ended("p/1/b"));
    process.rest();
    assert!(!process.has_ended("p"), "one child has not ended");
    process.order("p/1/a", 7);
    assert_eq!(
        process.ended("p"),
        r#"completed {"ends":["a completed {\"orders\":[7]} -","b completed {\"orders\":[]} -"]}"#
    );
    assert!(process.inspect("p").carried.children.is_empty(), "they are seen and forgotten");
    assert_eq!(process.inspect("p/1/a").carried.parent, Some(id("p")));
}

fn a_child_is_born_with_the_transition_and_not_before(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    let mut raise = watch(&[("a", WAITS)]);
    raise.kids.push(("b".to_owned(), Kid::Nobody));
    let end = process.end(&process.begin("p", "parent", &raise));
    assert_eq!(end.ending, Ending::Failed);
    assert!(process.history("p/1/a").is_empty(), "a step that fails has spawned nothing");
}

fn a_child_that_fails_is_seen_to_have_failed(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("p", "parent", &watch(&[("a", Prepare::Fail)]));
    assert_eq!(process.ended("p"), r#"completed {"ends":["a failed \"Fail\" desk.shut"]}"#);
}

fn a_parent_that_is_asked_to_stop_asks_its_children_and_waits_for_them(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("p", "parent", &watch(&[("a", WAITS), ("b", WAITS)]));
    process.until_in("p/1/b", "await");
    process.cancel("p");
    assert_eq!(process.ended("p"), r#"completed {"ends":["asked to stop"]}"#);
    for child in ["p/1/a", "p/1/b"] {
        assert_eq!(process.inspect(child).end().unwrap().ending, Ending::Cancelled);
        assert_eq!(process.kinds(child).iter().filter(|kind| **kind == "cancel").count(), 1);
    }
    let ends = process.inspect("p").carried.children.into_iter().filter_map(|child| child.end);
    assert_eq!(ends.count(), 2, "the state after the edge can see how they ended");
    let kinds = process.kinds("p");
    let of = |kind| kinds.iter().rposition(|other| *other == kind).unwrap();
    assert!(of("child_ended") < of("end"), "{kinds:?}");
}

fn a_child_that_defers_keeps_a_cancelled_parent_waiting(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("p", "parent", &watch(&[("a", Prepare::Hold), ("b", WAITS)]));
    process.until_in("p/1/a", "hold");
    process.cancel("p");
    process.until(|| process.has_ended("p/1/b"));
    process.rest();
    assert!(!process.has_ended("p"), "a child is not to be stopped yet");
    process.order("p/1/a", 1);
    assert_eq!(process.ended("p"), r#"completed {"ends":["asked to stop"]}"#);
}

fn a_parent_that_defers_does_not_pass_a_request_on(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("p", "parent", &Raise::new(&[("a", WAITS)], Then::Spare));
    process.until_in("p/1/a", "await");
    process.until_in("p", "spare");
    process.cancel("p");
    process.rest();
    assert!(!process.kinds("p/1/a").contains(&"cancel"));
    process.order("p/1/a", 1);
    assert!(process.ended("p").contains("a completed"));
}

fn a_parent_at_work_that_is_asked_to_stop_asks_its_children(medium: Medium) {
    let world = World::script([Act::Wait(0), Act::Heed]);
    let process = Process::full(&medium, &world);
    process.begin("p", "parent", &Raise::new(&[("a", WAITS)], Then::Toil));
    process.until_in("p/1/a", "await");
    process.until_asleep();
    process.environment.advance(Duration::from_secs(1));
    process.until(|| world.said("toil") == 1);
    process.cancel("p");
    assert!(process.ended("p").contains("a cancelled"), "{:?}", process.inspect("p"));
    assert_eq!(world.said("heeded"), 1);
}

fn a_parent_that_ends_first_asks_its_children_to_stop(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("p", "parent", &Raise::new(&[("a", WAITS), ("b", WAITS)], Then::End));
    process.ended("p");
    for child in ["p/1/a", "p/1/b"] {
        process.until(|| process.has_ended(child));
        let end = process.inspect(child).end().unwrap();
        assert_eq!(end.ending, Ending::Cancelled);
        assert!(end.fault.unwrap().message().contains("its parent p has ended"));
    }
}

fn a_parent_that_is_given_up_asks_its_children_to_stop(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("p", "parent", &watch(&[("a", WAITS)]));
    process.until_in("p/1/a", "await");
    process.block_on(process.runtime.abandon(&id("p"), "a test asks")).unwrap();
    process.until(|| process.has_ended("p/1/a"));
    assert_eq!(process.inspect("p").end().unwrap().ending, Ending::Abandoned);
}

fn a_child_that_ends_while_its_parent_is_not_here_is_seen(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("p", "parent", &watch(&[("a", WAITS)]));
    process.until_in("p/1/a", "await");
    let environment = process.die();

    let process = Process::full_at(&medium, environment, &world);
    process.end(&process.order("p/1/a", 1));
    assert!(!process.has_ended("p"));
    let environment = process.die();

    let process = Process::again(&medium, environment, &world);
    assert!(process.ended("p").contains("a completed"));
}

fn a_crash_leaves_a_family_as_it_was(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("p", "parent", &watch(&[("a", WAITS), ("b", WAITS)]));
    process.until_in("p/1/b", "await");
    process.until_in("p", "watch");
    let environment = process.die();

    let process = Process::again(&medium, environment, &world);
    process.order("p/1/a", 1);
    process.order("p/1/b", 2);
    process.ended("p");
    assert_eq!((world.said("raise"), world.said("prepare")), (1, 2));
}

fn a_child_of_an_ended_parent_is_asked_to_stop_by_the_next_process(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("p", "parent", &watch(&[("a", WAITS)]));
    process.until_in("p/1/a", "await");
    let environment = process.die();
    // The parent is given up where its child is not known.
    let process = Process::start_at(&medium, environment).with(support::parent::Parent, &world);
    process.block_on(process.runtime.abandon(&id("p"), "a test asks")).unwrap();
    process.rest();
    let environment = process.die();

    let process = Process::again(&medium, environment, &world);
    process.until(|| process.has_ended("p/1/a"));
    assert_eq!(process.inspect("p/1/a").end().unwrap().ending, Ending::Cancelled);
}

fn a_child_of_a_forgotten_parent_is_asked_to_stop_by_the_next_process(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    process.begin("p", "parent", &watch(&[("a", WAITS)]));
    process.until_in("p/1/a", "await");
    let environment = process.die();
    // The parent is given up where its child is not known, and forgotten.
    let process = Process::start_at(&medium, environment).with(support::parent::Parent, &world);
    process.block_on(process.runtime.abandon(&id("p"), "a test asks")).unwrap();
    process.rest();
    let all = Retention::default().finished_count(0);
    assert_eq!(process.block_on(process.runtime.prune(all)).unwrap().runs, 1);
    let environment = process.die();

    let process = Process::again(&medium, environment, &world);
    process.until(|| process.has_ended("p/1/a"));
    assert_eq!(process.inspect("p/1/a").end().unwrap().ending, Ending::Cancelled);
}

fn fault_of_the_parent(medium: &Medium, kids: Vec<(String, Kid)>) -> Fault {
    let world = World::default();
    let process = Process::full(medium, &world);
    process.begin("other", "desk", &WAITS);
    let end = process.end(&process.begin("p", "parent", &Raise { kids, then: Then::Watch }));
    assert_eq!(end.ending, Ending::Failed);
    process.order("other", 1);
    process.ended("other");
    assert_eq!(process.kinds("p"), ["enter", "end"]);
    end.fault.unwrap()
}

fn kid(key: &str) -> (String, Kid) {
    (key.to_owned(), Kid::Desk(WAITS))
}

fn an_unknown_machine_is_a_fault_of_the_parent_alone(medium: Medium) {
    let fault = fault_of_the_parent(&medium, vec![("a".to_owned(), Kid::Nobody)]);
    assert_eq!(fault.code(), "child.machine");
}

fn a_key_twice_is_a_fault_of_the_parent_alone(medium: Medium) {
    assert_eq!(fault_of_the_parent(&medium, vec![kid("a"), kid("a")]).code(), "child.twice");
}

fn a_key_that_names_no_run_is_a_fault_of_the_parent_alone(medium: Medium) {
    assert_eq!(fault_of_the_parent(&medium, vec![kid("two words")]).code(), "child.key");
}

fn grandchildren_are_waited_for_and_asked_to_stop(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    let family = || Raise {
        kids: vec![("m".to_owned(), Kid::Parent(watch(&[("a", WAITS)])))],
        then: Then::Watch,
    };
    process.begin("p", "parent", &family());
    process.begin("q", "parent", &family());
    process.until_in("p/1/m/1/a", "await");
    process.until_in("q/1/m/1/a", "await");
    process.order("p/1/m/1/a", 1);
    assert!(process.ended("p").contains("m completed"));
    process.cancel("q");
    process.ended("q");
    assert_eq!(process.inspect("q/1/m/1/a").end().unwrap().ending, Ending::Cancelled);
}

fn a_hundred_children_are_waited_for(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    let kids = (0..100).map(|number| kid(&format!("k{number}"))).collect();
    process.begin("p", "parent", &Raise { kids, then: Then::Watch });
    process.until_in("p", "watch");
    for number in 0..100 {
        assert!(!process.has_ended("p"));
        process.order(&format!("p/1/k{number}"), 1);
    }
    let end = process.ended("p");
    assert_eq!(end.matches("completed {").count(), 101, "{end}");
}

fn a_child_is_no_run_to_redrive(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("p", "parent", &watch(&[("a", Prepare::Fail)]));
    process.ended("p");
    let redriven = process.block_on(process.runtime.redrive(&id("p/1/a")));
    assert_eq!(kind(redriven), Some(RuntimeErrorKind::NotFailed));
}

fn a_child_that_is_asked_after_when_it_ends_is_seen(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.begin("p", "parent", &watch(&[("a", WAITS)]));
    process.until_in("p/1/a", "await");
    process.rest();
    let (child, runtime) = (process.attach("p/1/a").unwrap(), process.runtime.clone());
    process.environment.spawn(Box::pin(async move {
        // Whoever hears of the end looks at it again, and is there before the parent is.
        child.end().await.unwrap();
        for _ in 0..100 {
            runtime.attach(child.run()).await.unwrap();
        }
    }));
    process.order("p/1/a", 7);
    process.until(|| process.has_ended("p"));
}

/// Panics when it hears of the end of a child.
struct Nervous;

impl Observer for Nervous {
    fn observe(&self, run: &RunId, event: RunEvent) {
        let of_child = run.as_str() == "p/1/a";
        assert!(!(of_child && matches!(event, RunEvent::Ended(_))), "a child has ended");
    }
}

fn an_observer_that_panics_keeps_no_parent_waiting(medium: Medium) {
    let environment = ManualEnvironment::default();
    let runtime = Runtime::builder(medium.open(), environment.clone()).observer(Nervous).build();
    let process = Process { environment, runtime, events: Events::default() };
    let world = World::default();
    let process = process.with(Desk, &world).with(Parent, &world);
    process.begin("p", "parent", &watch(&[("a", Prepare::Nothing)]));
    process.until(|| process.has_ended("p"));
}

fn a_child_that_ends_during_a_step_is_seen_by_the_next_state(medium: Medium) {
    let world = World::script([Act::Wait(0)]);
    let process = Process::full(&medium, &world).with(Torn, &world);
    let run = process.begin("t", "torn", &Bear);
    process.until_in("t/1/a", "await");
    world.add([Act::Held]);
    process.order("t", 1);
    process.until(|| world.said("torn") == 1);
    process.order("t/1/a", 7);
    process.until(|| process.kinds("t").contains(&"child_ended"));
    assert_eq!(process.inspect("t").state, "torn");
    world.let_go();
    assert_eq!(process.end(&run).data.as_text(), Some(r#"{"ends":1}"#));
}

/// Waits for an order or its child, and then for its child.
struct Torn;

impl Machine for Torn {
    const NAME: &'static str = "torn";
    type Host = World;
    type Initial = Bear;
    type States = (Bear, Tear, Last, Seen);
}
check!(Torn);

#[derive(Serialize, Deserialize)]
struct Bear;

impl State<Torn> for Bear {
    const NAME: &'static str = "bear";
    type Next = (Tear,);

    async fn run(self, _: &Torn, cx: &mut Context<'_, Torn>) -> Step<Self> {
        cx.spawn::<support::desk::Desk>("a", &WAITS)?;
        go(Tear)
    }
}

#[derive(Serialize, Deserialize)]
struct Tear;

impl State<Torn> for Tear {
    const NAME: &'static str = "torn";
    const WAIT: Wait = Wait::for_signals(&["order"]).or_children();
    type Next = (Last,);

    async fn run(self, _: &Torn, cx: &mut Context<'_, Torn>) -> Step<Self> {
        cx.host().say("torn");
        cx.host().act(cx).await?;
        go(Last)
    }
}

#[derive(Serialize, Deserialize)]
struct Last;

impl State<Torn> for Last {
    const NAME: &'static str = "last";
    const WAIT: Wait = Wait::for_children();
    type Next = (Seen,);

    async fn run(self, _: &Torn, cx: &mut Context<'_, Torn>) -> Step<Self> {
        go(Seen { ends: cx.children().iter().filter(|child| child.end.is_some()).count() })
    }
}

#[derive(Serialize, Deserialize)]
struct Seen {
    ends: usize,
}

impl State<Torn> for Seen {
    const NAME: &'static str = "seen";
    type Next = ();
}

#[test]
fn a_crash_at_any_write_makes_no_second_child() {
    let trial = Trial::new("parent", &watch(&[("a", Prepare::Nothing), ("b", Prepare::Fail)]))
        .world(World::default)
        .machine(|world| fsm_core::Hosted::new(support::parent::Parent, world.clone()))
        .machine(|world| fsm_core::Hosted::new(support::desk::Desk, world.clone()))
        .observe(|world| world.log().into_iter().collect::<BTreeSet<_>>());
    let report = trial.crash_everywhere().unwrap();
    assert!(report.deaths() > 50, "{report}");
}

fn spawner(run: &'static str, key: &'static str) -> lying::Lying {
    lying::Lying::new("work", move |call, _| match call.kind {
        StepKind::Run if call.run == id("p") => {
            let mut outcome: Outcome = lying::to("done");
            let (machine, input) = ("lying".to_owned(), Data::default());
            outcome.spawned = vec![Spawn { key: key.to_owned(), run: id(run), machine, input }];
            outcome
        }
        StepKind::Run => lying::to("done"),
        StepKind::Exhausted(fault) => fault.into(),
        _ => unreachable!("{call:?}"),
    })
}

#[track_caller]
fn check_child(run: &'static str, key: &'static str, code: &str) {
    let process = Process::start(&Medium::memory());
    process.runtime.register(spawner(run, key), "tests 1").unwrap();
    process.end(&process.begin("other", "lying", &()));
    process.end(&process.begin("p/1/taken", "lying", &()));
    let before = (process.kinds("other"), process.kinds("p/1/taken"));
    let end = process.end(&process.begin("p", "lying", &()));
    assert_eq!(end.fault.as_ref().map(Fault::code), Some(code), "{run} {key}");
    assert_eq!((process.kinds("other"), process.kinds("p/1/taken")), before);
    assert_eq!(process.events.count(|event| matches!(event, RunEvent::Stalled(_))), 0);
}

#[test]
fn a_child_that_would_be_another_run_is_a_fault_of_its_parent_alone() {
    check_child("other", "other", "child.key");
    check_child("p/2/a", "a", "child.key");
    check_child("p/1/a/b", "a/b", "child.key");
    check_child("p/1/", "", "child.key");
    check_child("p/1/taken", "taken", "child.taken");
}
