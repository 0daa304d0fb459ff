//! Live events: who sees what, in which order, and what a slow watcher misses.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::sync::Arc;

use fsm_core::{
    AnyMachine, Data, Fault, Graph, Outcome, Port, Progress, RunEvent, StepCall, Watch, Watched,
};
use futures::{FutureExt, StreamExt, future::BoxFuture};

use self::support::{
    desk::{Gossip, Prepare},
    id, lying,
    medium::Medium,
    process::Process,
    world::{Act, Work, World, transient},
};

on_each_journal! {
    events_come_in_the_order_in_which_they_happen
    a_watcher_of_one_run_sees_no_other
    what_happened_before_is_not_seen
    what_is_seen_is_durable
}

/// What has been seen so far, one word an event.
fn seen(watch: &mut Watch) -> Vec<String> {
    std::iter::from_fn(|| watch.next().now_or_never().flatten()).map(|seen| word(&seen)).collect()
}

fn word(seen: &Watched) -> String {
    let Watched::Event(_, event) = seen else { return format!("{seen:?}") };
    match event {
        RunEvent::Entered { state, entry } => format!("entered {state} {entry}"),
        RunEvent::AttemptFailed { attempt, fault } => format!("failed {attempt} {}", fault.code()),
        RunEvent::Progressed(progress) => format!("progressed {}", progress.done),
        RunEvent::Signalled { id, name } => format!("signalled {id} {name}"),
        RunEvent::CancelRequested(why) => format!("asked to stop: {why}"),
        RunEvent::Paused(why) => format!("paused {}", why.code()),
        RunEvent::Resumed => "resumed".to_owned(),
        RunEvent::Ended(end) => format!("ended {}", end.ending.as_str()),
        other => format!("{other:?}"),
    }
}

fn events_come_in_the_order_in_which_they_happen(medium: Medium) {
    let world = World::script([Act::Fault(transient()), Act::Held]);
    let process = Process::full(&medium, &world);
    let mut watch = process.runtime.watch();
    let run = process.begin("r", "job", &Work { patient: true, ..Work::default() });
    process.until(|| process.kinds("r").contains(&"attempt"));
    process.block_on(process.runtime.pause(&id("r"), "a test asks")).unwrap();
    process.tell("r", "s", &Gossip).unwrap();
    process.block_on(process.runtime.resume(&id("r"))).unwrap();
    world.let_go();
    process.end(&run);
    assert_eq!(
        seen(&mut watch),
        [
            "failed 1 test.transient",
            "paused run.paused",
            "signalled s gossip",
            "resumed",
            "entered patient 2",
            "entered done 3",
            "ended completed",
        ]
    );
}

fn a_watcher_of_one_run_sees_no_other(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    // It need not exist yet.
    let mut one = process.runtime.watch_run(&id("a"));
    let mut all = process.runtime.watch();
    for run in ["a", "b"] {
        process.end(&process.begin(run, "desk", &Prepare::Nothing));
    }
    assert_eq!(seen(&mut one), ["entered served 2", "ended completed"]);
    assert_eq!(seen(&mut all).len(), 4);
}

fn what_happened_before_is_not_seen(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    process.end(&process.begin("r", "desk", &Prepare::Nothing));
    let mut late = process.runtime.watch_run(&id("r"));
    process.attach("r").unwrap();
    process.rest();
    assert!(seen(&mut late).is_empty(), "nobody is told twice of an end");
}

fn what_is_seen_is_durable(medium: Medium) {
    let process = Process::full(&medium, &World::default());
    let mut watch = process.runtime.watch();
    process.begin("r", "desk", &Prepare::Serve { orders: 1 });
    let first = process.block_on(watch.next()).unwrap();
    assert_eq!(word(&first), "entered await 2");
    assert_eq!(process.states("r"), ["prepare", "await"]);
    process.order("r", 1);
    assert_eq!(word(&process.block_on(watch.next()).unwrap()), "signalled order-1 order");
    assert!(process.kinds("r").contains(&"signal"));
}

#[test]
fn a_slow_watcher_is_told_how_much_it_missed_and_slows_nobody_down() {
    let process = Process::full(&Medium::memory(), &World::default());
    let mut slow = process.runtime.watch();
    let _never_looks = process.runtime.watch();
    for number in 0..1_000 {
        process.end(&process.begin(&format!("r{number:03}"), "desk", &Prepare::Nothing));
    }
    let first = process.block_on(slow.next()).unwrap();
    let Watched::Missed(missed) = first else { panic!("{first:?}") };
    let rest = seen(&mut slow);
    assert_eq!(missed as usize + rest.len(), 2_000);
    assert_eq!((rest.len(), rest.last().map(String::as_str)), (1_024, Some("ended completed")));
}

/// Reports progress a thousand times, then does what it is told.
struct Chatty(Graph);

impl AnyMachine for Chatty {
    fn graph(&self) -> &Graph {
        &self.0
    }

    fn step(&self, _: StepCall, port: Arc<dyn Port>) -> BoxFuture<'_, Outcome> {
        for done in 0..1_000 {
            port.progress(Progress { done, total: Some(1_000) });
        }
        Box::pin(async { lying::to("done") })
    }

    fn migrate(
        &self,
        _: u32,
        state: String,
        data: Data,
    ) -> BoxFuture<'_, Result<(String, Data), Fault>> {
        Box::pin(async { Ok((state, data)) })
    }
}

#[test]
fn of_progress_only_the_newest_is_kept() {
    let process = Process::start(&Medium::memory());
    let graph =
        lying::graph("work", vec![lying::state("work", &["done"]), lying::state("done", &[])]);
    process.runtime.register(Chatty(graph), "tests 1").unwrap();
    let mut watch = process.runtime.watch();
    process.end(&process.begin("r", "lying", &()));
    assert_eq!(seen(&mut watch), ["progressed 999", "entered done 2", "ended completed"]);
    assert_eq!(process.events.count(|event| matches!(event, RunEvent::Progressed(_))), 1_000);
}

#[test]
fn a_watch_ends_with_its_runtime() {
    let process = Process::full(&Medium::memory(), &World::default());
    let mut watch = process.runtime.watch();
    process.begin("r", "desk", &Prepare::Timed);
    process.environment.run_until_stalled();
    assert_eq!(seen(&mut watch), ["entered timed 2"]);
    let Process { environment, runtime, .. } = process;
    drop(runtime);
    environment.run_until_stalled();
    assert!(watch.next().now_or_never().is_none(), "its runs go on");
    environment.drop_tasks();
    assert_eq!(watch.next().now_or_never(), Some(None));
}
