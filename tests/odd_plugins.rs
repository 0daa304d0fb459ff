//! Plugins that break their contract, or only behave oddly: the engine says so and goes on.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mercury::{Class, Engine, ErrorKind, Event, ItemId, Outcome, Phase, Plugin, Shutdown};
use plugin_sdk::{
    Cancel, Claim, Config, Context, Decision, Fault, Host, Item, Machine, Machines, Manifest,
    OpenTake, PointId, PointKind, PointMeta, PointNotes, Receipt, Redirect, RestoreRequest, Retry,
    RunPlan, Seal, Sealed, State, Step, Take, TakeId, Wanted, Workload, async_trait, go, throttle,
};
use serde::{Deserialize, Serialize};
use support::{World, check, ended, has_progressed, ids, operation, soon, until};

/// A workload whose items are named after what it does to them.
struct Odd {
    gate: PathBuf,
}

#[derive(Deserialize)]
struct Settings {
    /// A file; some of what it does waits until it is there.
    gate: PathBuf,
}

struct Backup;

impl Machine for Backup {
    const NAME: &'static str = "backup";
    type Host = Host;
    type Initial = Work;
    type States = (Work, Seal, Sealed, Redirect);
}
plugin_sdk::check!(Backup);

#[derive(Serialize, Deserialize)]
struct Work {
    oddity: String,
    gate: PathBuf,
}

impl State<Backup> for Work {
    const NAME: &'static str = "work";
    const RETRY: Retry = Retry::times(1).or_pause();
    type Next = (Seal, Redirect);

    async fn run(self, _: &Backup, cx: &mut Context<'_, Backup>) -> Step<Self> {
        match self.oddity.as_str() {
            "redirects" => {
                let wanted = Wanted::new(cx.host().operation().clone(), PointKind::Full);
                return go(Redirect { reason: "the chain is broken".to_owned(), wanted });
            }
            "panics" => panic!("no backup today"),
            "waits for an operator" if !self.gate.exists() => {
                return Err(Fault::retryable("odd.gate", "the gate is shut"));
            }
            // It holds its thread, whatever it is asked.
            "blocks" => {
                cx.progress(0, None);
                while !self.gate.exists() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            _ => {}
        }
        let finished = match cx.host().take("work").await? {
            Take::Finished(finished) => finished,
            Take::Begun(take) => {
                self.write(&take).await?;
                let finished = take.finish().await?;
                if self.oddity == "fails after its take" {
                    return Err(Fault::retryable("odd.late", "it failed with everything sent"));
                }
                finished
            }
        };
        let mut seal = Seal::full(finished, PointNotes::new());
        if self.oddity == "forges a receipt" {
            let (take, stream) = (TakeId::new("forged"), "work".to_owned());
            seal.receipts = vec![Receipt { take, stream, length: 1, hash: "0".repeat(64) }];
        }
        go(seal)
    }
}

/// A machine whose step has less time than it takes.
struct Hasty;

impl Machine for Hasty {
    const NAME: &'static str = "hasty";
    type Host = Host;
    type Initial = Hurry;
    type States = (Hurry, Seal, Sealed);
}
plugin_sdk::check!(Hasty);

#[derive(Serialize, Deserialize)]
struct Hurry {
    gate: PathBuf,
}

/// Jobs of [`Hurry`] that are at work now, and the most that ever were.
static AT_WORK: AtomicUsize = AtomicUsize::new(0);
static MOST_AT_WORK: AtomicUsize = AtomicUsize::new(0);

impl State<Hasty> for Hurry {
    const NAME: &'static str = "hurry";
    /// Once it is at work, nobody stops it.
    const CANCEL: Cancel = Cancel::Defer;
    const RETRY: Retry = Retry::times(20)
        .backoff(Duration::from_millis(1), 1.0)
        .attempt_timeout(Duration::from_millis(200));
    type Next = (Seal,);

    async fn run(self, _: &Hasty, cx: &mut Context<'_, Hasty>) -> Step<Self> {
        let now = AT_WORK.fetch_add(1, Ordering::SeqCst) + 1;
        MOST_AT_WORK.fetch_max(now, Ordering::SeqCst);
        while !self.gate.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        AT_WORK.fetch_sub(1, Ordering::SeqCst);
        let finished = match cx.host().take("hurry").await? {
            Take::Finished(finished) => finished,
            Take::Begun(take) => take.finish().await?,
        };
        go(Seal::full(finished, PointNotes::new()))
    }
}

impl Work {
    async fn write(&self, take: &OpenTake) -> Result<(), Fault> {
        let mut sink = take.stream("work").await?;
        if self.oddity == "opens a stream twice" {
            take.stream("work").await?;
        }
        sink.send(bytes::Bytes::from_static(b"bytes of the plugin's own")).await?;
        if self.oddity != "gives a stream up" {
            sink.finish().await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Workload for Odd {
    fn manifest() -> Manifest {
        Manifest::new("plugin-odd", "0.1.0", "odd")
            .throttle(throttle::Policy::new().class(throttle::Class::new("data")))
    }

    fn open(config: Config) -> Result<Self, Fault> {
        let Settings { gate } = config.read()?;
        Ok(Odd { gate })
    }

    async fn discover(&self) -> Result<Vec<Item>, Fault> {
        let stray = ItemId::new("sqlite", "local", "not-mine");
        Ok(vec![Item::new(stray.map_err(|error| Fault::bug("odd", error.to_string()))?)])
    }

    async fn decide(&self, item: &ItemId, _: &Wanted, _: &[PointMeta]) -> Result<Decision, Fault> {
        let input = Work { oddity: item.name().to_owned(), gate: self.gate.clone() };
        let mut plan = RunPlan::new::<Backup>(input)?;
        match item.name() {
            "panics in decide" => panic!("no decision today"),
            "skips for nothing" => {
                return Ok(Decision::Skip {
                    reason: "it says so".to_owned(),
                    unchanged_since: PointId::new("nothing"),
                });
            }
            "has no such machine" => plan.machine = "nothing".to_owned(),
            "claims an unknown class" => {
                plan = plan.claim(Claim::Item { class: "nothing".to_owned() });
            }
            "claims too many streams" => {
                plan = RunPlan::new::<Hasty>(Hurry { gate: self.gate.clone() })?
                    .claim(Claim::Streams { count: 100 });
            }
            "outlives its attempt" => {
                plan = RunPlan::new::<Hasty>(Hurry { gate: self.gate.clone() })?;
            }
            _ => plan = plan.claim(Claim::Item { class: "data".to_owned() }),
        }
        Ok(Decision::Run(plan))
    }

    async fn restore(&self, _: &RestoreRequest) -> Result<RunPlan, Fault> {
        Err(Fault::permanent("odd.restore", "nothing is given back").advise("do not ask"))
    }

    fn machines(self: &Arc<Self>) -> Machines {
        Machines::new().with(Backup).with(Hasty)
    }
}

fn odd(oddity: &str) -> ItemId {
    ItemId::new("odd", "one", oddity).unwrap()
}

fn gate(world: &World) -> PathBuf {
    world.path("gate")
}

fn open(gate: &Path) {
    std::fs::write(gate, "").unwrap();
}

async fn start(world: &World) -> Engine {
    let config = serde_json::json!({ "gate": gate(world) });
    let plugin = Plugin::linked::<Odd>().config("odd", config);
    world.bare().plugin(plugin).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_plugin_does_wrong_is_named_and_harms_nobody_else() {
    let cases = [
        ("panics", Class::Bug, "plugin.panicked"),
        ("panics in decide", Class::Bug, "plugin.panicked"),
        ("skips for nothing", Class::Bug, "plugin.contract"),
        ("has no such machine", Class::Bug, "plugin.contract"),
        ("claims an unknown class", Class::Permanent, "throttle.claim"),
        ("forges a receipt", Class::Bug, "seal.receipt"),
        ("opens a stream twice", Class::User, "archive.exists"),
        ("redirects", Class::Chain, "run.redirected"),
    ];
    let world = World::new();
    let engine = start(&world).await;
    for (oddity, class, code) in cases {
        let backup = engine.backup(&odd(oddity)).submit().await.unwrap();
        let error = ended(&backup).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (class, code), "{oddity}: {error:?}");
        assert_eq!(backup.status().await.unwrap().phase, Phase::Failed, "{oddity}");
        assert_eq!(engine.points(&odd(oddity)).await.unwrap(), [], "{oddity}");
    }
    let well = engine.backup(&odd("behaves")).submit().await.unwrap();
    let outcome = ended(&well).await.unwrap();
    let Outcome::BackedUp { stats, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((stats.lent_chunks, stats.foreign_chunks), (0, 1));
    let running: u32 = world
        .store()
        .query_row("SELECT count(*) FROM runs WHERE status = 'active'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(running, 0, "no run is left behind");
    assert_eq!(engine.shutdown(Duration::ZERO).await, Shutdown::Drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_of_somebody_else_is_not_taken_for_a_discovery() {
    let world = World::new();
    let error = start(&world).await.discover().await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Plugin, "plugin.contract"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_given_up_is_no_part_of_a_point() {
    let world = World::new();
    let engine = start(&world).await;
    let mut events = engine.subscribe();
    let id = "given-up";
    let backup = engine.backup(&odd("gives a stream up")).id(id).submit().await.unwrap();
    // A retryable fault in a state that waits for an operator when its attempts are used up.
    let stuck = until(&mut events, |event| matches!(event, Event::Stuck { .. })).await;
    let Event::Stuck { operation, why } = stuck else { panic!("{stuck:?}") };
    assert_eq!(operation.as_str(), id);
    assert!(why.contains("take.unfinished"), "{why}");
    backup.cancel().await.unwrap();
    assert_eq!(ended(&backup).await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(engine.points(&odd("gives a stream up")).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_waits_for_an_operator_goes_on_at_the_next_start() {
    let world = World::new();
    let item = odd("waits for an operator");
    let engine = start(&world).await;
    let mut events = engine.subscribe();
    engine.backup(&item).id("patient").submit().await.unwrap();
    until(&mut events, |event| matches!(event, Event::Stuck { .. })).await;
    let left = soon(engine.shutdown(Duration::ZERO)).await;
    assert_eq!(left, Shutdown::Resumable(vec![operation("patient")]));
    open(&gate(&world));

    let engine = start(&world).await;
    ended(&engine.operation(&operation("patient")).await.unwrap()).await.unwrap();
    assert_eq!(ids(&engine.points(&item).await.unwrap()), ["patient/1"]);
}

/// What the journal says of a run that was never let in.
fn never_began(world: &World, run: &str) {
    let kinds: String = world
        .store()
        .query_row("SELECT group_concat(kind) FROM history WHERE run = ?1", [run], |row| row.get(0))
        .unwrap();
    assert_eq!(kinds, "enter,end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_claims_are_refused_never_begins() {
    let world = World::new();
    open(&gate(&world));
    let engine = start(&world).await;
    let item = odd("claims too many streams");
    let backup = engine.backup(&item).id("greedy").submit().await.unwrap();
    let error = ended(&backup).await.unwrap_err();
    check(&error, ErrorKind::Operation, Class::Permanent, "throttle.claim");
    assert_eq!(engine.points(&item).await.unwrap(), []);
    never_began(&world, "greedy/1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_cancelled_while_it_waits_never_begins_even_if_its_first_state_defers() {
    let world = World::new();
    let config = serde_json::json!({ "gate": gate(&world) });
    let plugin = Plugin::linked::<Odd>().config("odd", config);
    let engine = world.bare().streams(1).plugin(plugin).start().await.unwrap();
    let mut events = engine.subscribe();
    let first = engine.backup(&odd("blocks")).id("first").submit().await.unwrap();
    until(&mut events, |event| has_progressed(event, "first")).await;
    let second = engine.backup(&odd("outlives its attempt")).id("second").submit().await.unwrap();
    until(&mut events, |event| {
        matches!(event, Event::Phase { operation, phase: Phase::Queued } if operation.as_str() == "second")
    })
    .await;
    second.cancel().await.unwrap();
    assert_eq!(ended(&second).await.unwrap_err().kind(), ErrorKind::Cancelled);
    never_began(&world, "second/1");
    open(&gate(&world));
    ended(&first).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_take_is_adopted_by_the_next_attempt_over_a_restart() {
    let world = World::new();
    let item = odd("fails after its take");
    let engine = start(&world).await;
    let mut events = engine.subscribe();
    engine.backup(&item).id("late").submit().await.unwrap();
    until(&mut events, |event| matches!(event, Event::Stuck { .. })).await;
    let left = soon(engine.shutdown(Duration::ZERO)).await;
    assert_eq!(left, Shutdown::Resumable(vec![operation("late")]));

    // An attempt that began another take would fail in the same way for ever.
    let engine = start(&world).await;
    let outcome = ended(&engine.operation(&operation("late")).await.unwrap()).await.unwrap();
    let Outcome::BackedUp { stats, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((stats.read_bytes, stats.foreign_chunks), (25, 1), "it was sent once");
    assert_eq!(engine.points(&item).await.unwrap()[0].streams[0].length, 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_a_step_that_holds_its_thread() {
    let world = World::new();
    let item = odd("blocks");
    let engine = start(&world).await;
    let mut events = engine.subscribe();
    engine.backup(&item).id("stubborn").submit().await.unwrap();
    until(&mut events, |event| has_progressed(event, "stubborn")).await;
    let stopping = tokio::spawn({
        let engine = engine.clone();
        async move { engine.shutdown(Duration::ZERO).await }
    });
    // Its operation has let go by now, its thread has not: nobody else may begin there.
    let stopped = engine.operation(&operation("stubborn")).await.unwrap();
    assert_eq!(ended(&stopped).await.unwrap_err().kind(), ErrorKind::Stopped);
    let error = world.bare().start().await.unwrap_err();
    check(&error, ErrorKind::InUse, Class::User, "state.in_use");

    open(&gate(&world));
    assert_eq!(soon(stopping).await.unwrap(), Shutdown::Resumable(vec![operation("stubborn")]));
    let engine = start(&world).await;
    ended(&engine.operation(&operation("stubborn")).await.unwrap()).await.unwrap();
    assert_eq!(ids(&engine.points(&item).await.unwrap()), ["stubborn/1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_begins_only_when_the_one_before_has_let_go_of_its_thread() {
    let world = World::new();
    let item = odd("outlives its attempt");
    let engine = start(&world).await;
    let mut events = engine.subscribe();
    let backup = engine.backup(&item).id("hasty").submit().await.unwrap();
    // The second attempt is due, and does not begin.
    until(&mut events, |event| matches!(event, Event::AttemptFailed { attempt: 1, .. })).await;
    open(&gate(&world));
    ended(&backup).await.unwrap();
    assert_eq!(MOST_AT_WORK.load(Ordering::SeqCst), 1);
    assert_eq!(ids(&engine.points(&item).await.unwrap()), ["hasty/1"]);
}
