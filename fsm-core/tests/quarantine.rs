//! Runs that cannot be continued, and steps that break their contract: each is its own run's
//! matter.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use fsm_core::{
    Body, Context, Data, Ending, Fault, Journal, Machine, Outcome, Record, RunEvent,
    RuntimeErrorKind, State, Step, StepKind, Verdict, check, go, testing::ManualEnvironment,
};
use futures::FutureExt;
use serde::{Deserialize, Serialize};

use self::support::{
    desk::Prepare,
    id, lying,
    medium::Medium,
    parent::{Parent, Raise, Then},
    process::Process,
    telling::kind,
    world::{Act, Work, World},
};

on_each_journal! {
    data_of_another_form_quarantine_their_run_alone
    an_input_of_another_form_fails_its_run_alone
    a_migration_that_fails_quarantines_its_run_alone
    a_quarantined_run_goes_on_where_it_was_once_its_machine_is_back
    a_quarantined_run_is_not_tried_again_and_again
    a_quarantined_child_is_tried_once
    a_step_that_breaks_its_contract_harms_no_other_run
    a_step_that_hangs_harms_no_other_run
}

/// Version 1 and its successors, whose data have changed.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Number,
    Text,
    Refuses,
}

fn process(medium: &Medium, environment: ManualEnvironment, world: &World, form: Form) -> Process {
    let process = Process::full_at(medium, environment, world);
    match form {
        Form::Number => process.with(Counts, world),
        Form::Text => process.with(Spells, world),
        Form::Refuses => process.with(Refuses, world),
    }
}

fn recover(process: &Process) -> Vec<(fsm_core::RunId, String)> {
    process.block_on(process.runtime.recover()).unwrap().quarantined
}

fn quarantines(process: &Process) -> usize {
    process.events.count(|event| matches!(event, RunEvent::Quarantined(_)))
}

fn data_of_another_form_quarantine_their_run_alone(medium: Medium) {
    let world = World::script([Act::Wait(0), Act::Hang]);
    let first = process(&medium, ManualEnvironment::default(), &world, Form::Number);
    first.begin("r", "counts", &Begin { many: 3 });
    first.until(|| world.said("counting") == 1);
    let second = process(&medium, first.die(), &world, Form::Text);
    recover(&second);
    second.until(|| quarantines(&second) == 1);
    let (run, why) = second.runtime.quarantined().remove(0);
    assert_eq!(run, id("r"));
    assert!(why.contains("no Counting"), "{why}");
    assert_eq!(kind(second.attach("r").map(drop)), None, "it is found");
    second.until(|| quarantines(&second) == 2);
    assert!(!second.has_ended("r"));
    second.end(&second.begin("other", "job", &Work::default()));

    let third = process(&medium, second.die(), &world, Form::Number);
    assert!(recover(&third).is_empty());
    assert_eq!(third.ended("r"), r#"completed {"many":3}"#);
}

fn an_input_of_another_form_fails_its_run_alone(medium: Medium) {
    let world = World::default();
    let process = process(&medium, ManualEnvironment::default(), &world, Form::Number);
    let end = process.end(&process.begin("r", "counts", &"three"));
    assert_eq!(end.fault.as_ref().map(Fault::code), Some("data.decode"));
    assert_eq!(
        process.end(&process.begin("s", "counts", &Begin { many: 1 })).ending,
        Ending::Completed
    );
}

fn a_migration_that_fails_quarantines_its_run_alone(medium: Medium) {
    let world = World::script([Act::Hang]);
    let first = process(&medium, ManualEnvironment::default(), &world, Form::Number);
    first.begin("r", "counts", &Begin { many: 3 });
    first.until(|| world.said("begin") == 1);
    first.begin("other", "desk", &Prepare::Nothing);
    let second = process(&medium, first.die(), &world, Form::Refuses);
    let quarantined = recover(&second);
    assert_eq!(quarantined.len(), 1);
    assert!(quarantined[0].1.contains("cannot be counted any more"), "{quarantined:?}");
    assert_eq!(second.ended("other"), r#"completed {"orders":[]}"#);
    let third = process(&medium, second.die(), &world, Form::Number);
    assert_eq!(third.ended("r"), r#"completed {"many":3}"#);
    assert!(third.runtime.quarantined().is_empty());
}

fn a_quarantined_run_goes_on_where_it_was_once_its_machine_is_back(medium: Medium) {
    let world = World::script([Act::Wait(0), Act::Hang]);
    let first = process(&medium, ManualEnvironment::default(), &world, Form::Number);
    first.begin("r", "counts", &Begin { many: 3 });
    first.until(|| world.said("counting") == 1);
    let second = Process::full_at(&medium, first.die(), &world);
    assert_eq!(recover(&second).len(), 1);
    assert_eq!(kind(second.attach("r")), Some(RuntimeErrorKind::Quarantined));
    second.runtime.register(fsm_core::Hosted::new(Counts, world.clone()), "tests 1").unwrap();
    assert_eq!(second.ended("r"), r#"completed {"many":3}"#);
    assert!(second.runtime.quarantined().is_empty());
    assert_eq!(world.log(), ["begin", "counting", "dropped", "counting"]);
}

fn a_quarantined_run_is_not_tried_again_and_again(medium: Medium) {
    let world = World::script([Act::Hang]);
    let first = process(&medium, ManualEnvironment::default(), &world, Form::Number);
    first.begin("r", "counts", &Begin { many: 3 });
    first.until(|| world.said("begin") == 1);
    let before = first.kinds("r");
    let second = Process::full_at(&medium, first.die(), &world);
    recover(&second);
    second.environment.advance(std::time::Duration::from_secs(86_400));
    second.rest();
    assert_eq!((quarantines(&second), second.environment.next_wake()), (1, None));
    assert_eq!(second.kinds("r"), before);
}

fn a_quarantined_child_is_tried_once(medium: Medium) {
    let world = World::default();
    let process = Process::full(&medium, &world);
    let kids = [("a", Prepare::Serve { orders: 1 }), ("b", Prepare::Serve { orders: 1 })];
    process.begin("p", "parent", &Raise::new(&kids, Then::Watch));
    process.until_in("p/1/b", "await");
    let environment = process.die();
    let process = Process::start_at(&medium, environment).with(Parent, &world);
    assert_eq!(recover(&process).len(), 2);
    process.rest();
    process.tell("p", "s", &support::desk::Gossip).unwrap();
    process.rest();
    assert_eq!(quarantines(&process), 2);
}

#[track_caller]
fn check_step(medium: &Medium, code: &str, broken: impl Fn() -> Outcome + Send + Sync + 'static) {
    let world = World::default();
    let process = Process::full(medium, &world);
    let machine = lying::Lying::new("work", move |call, _| match call.kind {
        StepKind::Exhausted(fault) => fault.into(),
        _ => broken(),
    });
    process.runtime.register(machine, "tests 1").unwrap();
    process.begin(&format!("before-{code}"), "desk", &Prepare::Nothing);
    let end = process.end(&process.begin(&format!("broken-{code}"), "lying", &()));
    assert_eq!((end.ending, end.fault.unwrap().code()), (Ending::Failed, code));
    process.begin(&format!("after-{code}"), "desk", &Prepare::Nothing);
    for run in ["before", "after"] {
        assert_eq!(process.ended(&format!("{run}-{code}")), r#"completed {"orders":[]}"#);
    }
}

fn a_step_that_breaks_its_contract_harms_no_other_run(medium: Medium) {
    check_step(&medium, "step.panicked", || std::panic::resume_unwind(Box::new("as it likes")));
    check_step(&medium, "state.undeclared", || lying::to("nowhere"));
    check_step(&medium, "state.again", || Verdict::Again.into());
    check_step(&medium, "child.machine", || {
        let mut outcome = lying::to("done");
        let run = id("broken-child.machine/1/a");
        let (key, machine, input) = ("a".to_owned(), "nobody".to_owned(), Data::default());
        outcome.spawned = vec![fsm_core::Spawn { key, run, machine, input }];
        outcome
    });
}

fn a_step_that_hangs_harms_no_other_run(medium: Medium) {
    let world = World::script([Act::Hang]);
    let process = Process::full(&medium, &world);
    process.begin("hangs", "job", &Work::default());
    process.until(|| world.said("work 1") == 1);
    for number in 0..10 {
        let run = process.begin(&format!("r{number}"), "job", &Work::default());
        assert_eq!(process.end(&run).ending, Ending::Completed);
    }
}

/// A record that cannot follow the ones before it.
fn rubbish(run: &str, seq: u64) -> Record {
    let at = fsm_core::Timestamp::from_unix_ms(1);
    Record { run: id(run), seq, at, body: Body::Redrive }
}

#[test]
fn one_bad_record_among_a_thousand_runs_harms_none_of_the_others() {
    let (medium, world) = (Medium::memory(), World::default());
    let process = Process::full(&medium, &world);
    for number in 0..1_000 {
        process.begin(&format!("r{number:03}"), "desk", &Prepare::Serve { orders: 1 });
    }
    process.environment.run_until_stalled();
    medium.open().append(vec![rubbish("r500", 3)]).now_or_never().unwrap().unwrap();
    let process = Process::full_at(&medium, process.die(), &world);
    let recovered = process.block_on(process.runtime.recover()).unwrap();
    assert_eq!((recovered.runs, recovered.quarantined.len()), (999, 1));
    assert_eq!(recovered.quarantined[0].0, id("r500"));
    for number in (0..1_000).filter(|number| *number != 500) {
        process.order(&format!("r{number:03}"), number);
    }
    process.environment.run_until_stalled();
    for number in (0..1_000).filter(|number| *number != 500) {
        assert!(process.has_ended(&format!("r{number:03}")));
    }
    assert_eq!(kind(process.attach("r500")), Some(RuntimeErrorKind::Quarantined));
}

#[test]
fn a_run_that_cannot_be_continued_can_be_given_up() {
    let (medium, world) = (Medium::memory(), World::default());
    let process = Process::full(&medium, &world);
    process.begin("missing", "desk", &Prepare::Serve { orders: 1 });
    process.begin("damaged", "job", &Work { rest_secs: Some(60), ..Work::default() });
    process.environment.run_until_stalled();
    medium.open().append(vec![rubbish("damaged", 3)]).now_or_never().unwrap().unwrap();
    let process = Process::start_at(&medium, process.die()).with(support::world::Job, &world);
    assert_eq!(recover(&process).len(), 2);
    for run in ["missing", "damaged"] {
        let given_up = process.block_on(process.runtime.abandon(&id(run), "a test asks"));
        let end = process.end(&given_up.unwrap());
        assert_eq!((end.ending, end.fault.unwrap().code()), (Ending::Abandoned, "run.abandoned"));
        assert_eq!(process.kinds(run).last(), Some(&"end"));
    }
    assert!(process.runtime.quarantined().is_empty());
    let ended = |event: &RunEvent| matches!(event, RunEvent::Ended(_));
    assert_eq!(process.events.count(ended), 2);
    let unknown = process.block_on(process.runtime.abandon(&id("nobody"), "a test asks"));
    assert_eq!(kind(unknown), Some(RuntimeErrorKind::UnknownRun));
}

#[test]
fn a_run_that_never_began_and_cannot_be_continued_can_be_revoked() {
    let (medium, world) = (Medium::memory(), World::default());
    let process = Process::full(&medium, &world);
    let input = Data::encode(&Prepare::Nothing).unwrap();
    let first = process.runtime.first_record(id("r"), "desk", input).unwrap();
    process.block_on(medium.open().append(vec![first])).unwrap();
    let process = Process::start_at(&medium, process.die());
    assert_eq!(recover(&process).len(), 1);
    let fault = Fault::user("test.room", "there is no room");
    let revoked = process.block_on(process.runtime.revoke(&id("r"), Ending::Failed, fault));
    assert_eq!(revoked.unwrap().unwrap().ending, Ending::Failed);
    assert!(process.runtime.quarantined().is_empty());
}

#[test]
fn a_parent_hears_of_a_child_that_was_given_up_without_its_machine() {
    let (medium, world) = (Medium::memory(), World::default());
    let process = Process::full(&medium, &world);
    let kids = [("a", Prepare::Serve { orders: 1 })];
    process.begin("p", "parent", &Raise::new(&kids, Then::Watch));
    process.environment.run_until_stalled();
    let process = Process::start_at(&medium, process.die()).with(Parent, &world);
    assert_eq!(recover(&process).len(), 1);
    process.block_on(process.runtime.abandon(&id("p/1/a"), "a test asks")).unwrap();
    assert!(process.ended("p").contains("a abandoned"));
}

struct Counts;

impl Machine for Counts {
    const NAME: &'static str = "counts";
    type Host = World;
    type Initial = Begin;
    type States = (Begin, Counting, Counted);
}
check!(Counts);

#[derive(Serialize, Deserialize)]
struct Begin {
    many: u32,
}

#[derive(Serialize, Deserialize)]
struct Counting {
    many: u32,
}

#[derive(Serialize, Deserialize)]
struct Counted {
    many: u32,
}

impl State<Counts> for Begin {
    const NAME: &'static str = "begin";
    type Next = (Counting,);

    async fn run(self, _: &Counts, cx: &mut Context<'_, Counts>) -> Step<Self> {
        cx.host().say("begin");
        cx.host().act(cx).await?;
        go(Counting { many: self.many })
    }
}

impl State<Counts> for Counting {
    const NAME: &'static str = "counting";
    type Next = (Counted,);

    async fn run(self, _: &Counts, cx: &mut Context<'_, Counts>) -> Step<Self> {
        cx.host().say("counting");
        cx.host().act(cx).await?;
        go(Counted { many: self.many })
    }
}

impl State<Counts> for Counted {
    const NAME: &'static str = "counted";
    type Next = ();
}

/// The same machine, whose author has forgotten to raise the version.
struct Spells;

mod spelled {
    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Counting {
        pub(super) many: String,
    }
}

impl Machine for Spells {
    const NAME: &'static str = "counts";
    type Host = World;
    type Initial = Begin;
    type States = (Begin, spelled::Counting, Counted);
}
check!(Spells);

impl State<Spells> for Begin {
    const NAME: &'static str = "begin";
    type Next = (spelled::Counting,);

    async fn run(self, _: &Spells, _: &mut Context<'_, Spells>) -> Step<Self> {
        go(spelled::Counting { many: self.many.to_string() })
    }
}

impl State<Spells> for spelled::Counting {
    const NAME: &'static str = "counting";
    type Next = (Counted,);

    async fn run(self, _: &Spells, _: &mut Context<'_, Spells>) -> Step<Self> {
        go(Counted { many: self.many.len() as u32 })
    }
}

impl State<Spells> for Counted {
    const NAME: &'static str = "counted";
    type Next = ();
}

/// A version that no run of the one before can be continued with.
struct Refuses;

impl Machine for Refuses {
    const NAME: &'static str = "counts";
    const VERSION: u32 = 2;
    type Host = World;
    type Initial = Counted;
    type States = (Counted,);

    fn migrate(_: u32, state: &str, _: Data) -> Result<(String, Data), Fault> {
        Err(Fault::permanent("counts.old", format!("`{state}` cannot be counted any more")))
    }
}

impl State<Refuses> for Counted {
    const NAME: &'static str = "counted";
    type Next = ();
}
