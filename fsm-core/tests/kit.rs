//! The testing kit catches machines that are wrong, each for the right reason.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use fsm_core::{
    Cancel, Context, Ending, Erased, Fault, Hosted, Machine, Retry, State, Step, check, go,
    testing::{Trial, TrialError, TrialErrorKind, TrialReport},
};
use serde::{Deserialize, Serialize};

/// The outside world: what happened there, by key, and how often.
#[derive(Clone, Default)]
struct World {
    happened: Arc<Mutex<BTreeMap<String, u32>>>,
    frozen: Arc<AtomicBool>,
}

impl World {
    fn happens(&self, what: &str) -> Result<u32, Fault> {
        *self.happened.lock().unwrap().entry(what.to_owned()).or_default() += 1;
        Ok(1)
    }

    /// What happened, however often.
    fn keys(&self) -> Vec<String> {
        self.happened.lock().unwrap().keys().cloned().collect()
    }

    fn counts(&self) -> BTreeMap<String, u32> {
        self.happened.lock().unwrap().clone()
    }

    fn is_thawed(&self) -> Result<(), String> {
        if self.frozen.load(Ordering::SeqCst) { Err("left frozen".to_owned()) } else { Ok(()) }
    }
}

/// Whether the machine has the mistake that the test is about.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
enum Mistake {
    #[default]
    None,
    /// The key changes with the attempt.
    NewKey,
    /// The world is called outside of `effect`.
    NoEffect,
    /// What was done is counted in memory.
    InMemory,
    /// Nothing thaws after a cancel.
    NoThaw,
    /// What may have run is run again.
    Twice,
    /// It never comes to its end.
    Endless,
    /// It hangs.
    Hangs,
    /// The result differs from process to process.
    OtherResult,
    /// The result differs from time to time.
    Moody,
}

static MOOD: AtomicU32 = AtomicU32::new(0);

/// Copies three chunks of something that it freezes.
#[derive(Default)]
struct Copier {
    /// Chunks copied by this process.
    copied: AtomicU32,
}

impl Machine for Copier {
    const NAME: &'static str = "copier";
    type Host = World;
    type Initial = Freeze;
    type States = (Freeze, Copy, Thaw, Undo, Done, Failed);
}
check!(Copier);

#[derive(Default, Serialize, Deserialize)]
struct Freeze {
    mistake: Mistake,
}
#[derive(Serialize, Deserialize)]
struct Copy {
    mistake: Mistake,
    chunk: u32,
}
#[derive(Serialize, Deserialize)]
struct Thaw {
    chunks: u32,
}
#[derive(Serialize, Deserialize)]
struct Undo;
#[derive(Serialize, Deserialize)]
struct Done {
    chunks: u32,
}
#[derive(Serialize, Deserialize)]
struct Failed;

impl State<Copier> for Freeze {
    const NAME: &'static str = "freeze";
    type Next = (Copy, Undo);

    async fn run(self, _: &Copier, cx: &mut Context<'_, Copier>) -> Step<Self> {
        let world = cx.host().clone();
        cx.once("freeze", async |effect| {
            // Not idempotent: the world counts how often it is frozen.
            if self.mistake != Mistake::Twice
                && effect.maybe_ran
                && world.keys().contains(&effect.key)
            {
                return Ok(1);
            }
            world.frozen.store(true, Ordering::SeqCst);
            world.happens(&effect.key)
        })
        .await?;
        go(Copy { mistake: self.mistake, chunk: 0 })
    }

    fn on_exhausted(self, _: Fault) -> Step<Self> {
        go(Undo)
    }

    fn on_cancel(self) -> Step<Self> {
        go(Undo)
    }
}

impl State<Copier> for Copy {
    const NAME: &'static str = "copy";
    const RETRY: Retry = Retry::times(3);
    type Next = (Copy, Thaw, Undo);

    async fn run(self, copier: &Copier, cx: &mut Context<'_, Copier>) -> Step<Self> {
        let world = cx.host().clone();
        let name = match self.mistake {
            Mistake::NewKey => format!("chunk-{}", cx.attempt()),
            _ => "chunk".to_owned(),
        };
        if self.mistake == Mistake::NoEffect {
            world.happens("a chunk was copied")?;
        }
        cx.effect(&name, async |_| Ok(1)).await?;
        let copied = copier.copied.fetch_add(1, Ordering::SeqCst) + 1;
        let chunk = self.chunk + 1;
        let all = match self.mistake {
            Mistake::InMemory => copied >= 3,
            Mistake::Endless => false,
            _ => chunk == 3,
        };
        if self.mistake == Mistake::Hangs && chunk == 2 {
            futures::future::pending::<()>().await;
        }
        let chunks = match self.mistake {
            Mistake::OtherResult => copied,
            Mistake::Moody => MOOD.fetch_add(1, Ordering::SeqCst),
            _ => 3,
        };
        if all { go(Thaw { chunks }) } else { go(Copy { chunk, ..self }) }
    }

    fn on_exhausted(self, _: Fault) -> Step<Self> {
        go(Undo)
    }

    fn on_cancel(self) -> Step<Self> {
        if self.mistake == Mistake::NoThaw { Err(Fault::cancelled()) } else { go(Undo) }
    }
}

impl State<Copier> for Thaw {
    const NAME: &'static str = "thaw";
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Done, Undo);

    async fn run(self, _: &Copier, cx: &mut Context<'_, Copier>) -> Step<Self> {
        thaw(cx).await?;
        go(Done { chunks: self.chunks })
    }

    fn on_exhausted(self, _: Fault) -> Step<Self> {
        go(Undo)
    }
}

impl State<Copier> for Undo {
    const NAME: &'static str = "undo";
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Failed,);

    async fn run(self, _: &Copier, cx: &mut Context<'_, Copier>) -> Step<Self> {
        thaw(cx).await?;
        go(Failed)
    }
}

async fn thaw(cx: &mut Context<'_, Copier>) -> Result<u32, Fault> {
    let world = cx.host().clone();
    let thaw = async |_| {
        world.frozen.store(false, Ordering::SeqCst);
        Ok(1)
    };
    cx.effect("thaw", thaw).await
}

impl State<Copier> for Done {
    const NAME: &'static str = "done";
    type Next = ();
}

impl State<Copier> for Failed {
    const NAME: &'static str = "failed";
    const ENDING: Ending = Ending::Failed;
    type Next = ();
}

fn trial(mistake: Mistake) -> Trial<World> {
    Trial::new("copier", &Freeze { mistake })
        .world(World::default)
        .machine(|world| Hosted::new(Copier::default(), world.clone()))
        .observe(World::counts)
        .always(World::is_thawed)
}

/// A tool of the kit.
type Tool = fn(&Trial<World>) -> Result<TrialReport, TrialError>;

/// `tool` catches `mistake` as `kind`, and says so with `words`; what it found it finds again.
#[track_caller]
fn check(mistake: Mistake, tool: Tool, kind: TrialErrorKind, words: &str) {
    tool(&trial(Mistake::None)).unwrap();
    let trial = trial(mistake);
    let error = tool(&trial).expect_err("the mistake is not caught");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(words), "`{words}` is not in: {error}");
    let again = trial.replay(error.schedule()).unwrap_err();
    assert_eq!(again.to_string(), error.to_string());
}

#[test]
fn a_key_that_changes_with_the_attempt_is_caught() {
    let words = "not as undisturbed: the effects that `trial` recorded";
    check(Mistake::NewKey, Trial::fail_every_step, TrialErrorKind::Different, words);
}

#[test]
fn a_call_of_the_world_outside_of_an_effect_is_caught() {
    let words = "not as undisturbed: what is observed in the end";
    check(Mistake::NoEffect, Trial::crash_everywhere, TrialErrorKind::Different, words);
    check(Mistake::NoEffect, Trial::repeat_every_effect, TrialErrorKind::Different, words);
}

#[test]
fn a_counter_in_memory_is_caught() {
    let words = "not as undisturbed: the states that `trial` entered";
    check(Mistake::InMemory, Trial::crash_everywhere, TrialErrorKind::Different, words);
}

#[test]
fn a_result_that_depends_on_the_process_is_caught() {
    let words = "not as undisturbed: the end of `trial`";
    check(Mistake::OtherResult, Trial::crash_everywhere, TrialErrorKind::Different, words);
}

#[test]
fn a_thaw_that_a_cancel_skips_is_caught() {
    let words = "left frozen";
    check(Mistake::NoThaw, Trial::cancel_every_step, TrialErrorKind::Broken, words);
}

#[test]
fn what_holds_throughout_is_asked_at_each_death_too() {
    let trial = trial(Mistake::None).throughout(World::is_thawed);
    trial.undisturbed().unwrap();
    let error = trial.crash_everywhere().expect_err("a process dies while the world is frozen");
    assert_eq!(error.kind(), TrialErrorKind::Broken, "{error}");
    assert!(error.to_string().contains("left frozen"), "{error}");
}

#[test]
fn an_effect_that_is_run_again_although_it_may_have_run_is_caught() {
    let words = "not as undisturbed: what is observed in the end";
    check(Mistake::Twice, Trial::crash_everywhere, TrialErrorKind::Different, words);
    check(Mistake::Twice, Trial::repeat_every_effect, TrialErrorKind::Different, words);
}

#[test]
fn a_run_without_end_is_an_error_and_no_hang() {
    let error = trial(Mistake::Endless).undisturbed().unwrap_err();
    assert_eq!(error.kind(), TrialErrorKind::Endless, "{error}");
    let error = trial(Mistake::Hangs).crash_everywhere().unwrap_err();
    assert_eq!(error.kind(), TrialErrorKind::Standstill, "{error}");
    assert!(error.to_string().contains("`trial` is active in `copy`, entry 3"), "{error}");
}

#[test]
fn a_run_that_differs_from_itself_is_not_blamed_on_what_disturbs_it() {
    let error = trial(Mistake::Moody).crash_everywhere().unwrap_err();
    assert!(error.to_string().contains("when:     nothing disturbs it"), "{error}");
}

#[test]
fn a_trial_that_cannot_be_played_says_why() {
    let error = Trial::new("nobody", &()).undisturbed().unwrap_err();
    assert!(error.to_string().contains("no such machine is registered"), "{error}");
    let error = trial(Mistake::None).replay("write 3 sideways").unwrap_err();
    assert_eq!(error.kind(), TrialErrorKind::Setup, "{error}");
}

#[test]
fn a_sample_is_drawn_from_all_schedules_and_says_so() {
    let all = trial(Mistake::None).crash_everywhere().unwrap();
    assert_eq!(all.schedules(), all.possible());
    let some = trial(Mistake::None).at_most(10).crash_everywhere().unwrap();
    assert_eq!(some.schedules(), 20, "ten with one death, and ten with two");
    assert!(some.possible() > 20);
    assert!(some.to_string().starts_with("copier ends completed in `done`: 20 of "), "{some}");
    let other = trial(Mistake::None).at_most(10).seed(1).crash_everywhere().unwrap();
    assert_eq!(other.schedules(), 20);
}

/// Looks at the world after an interruption.
struct Careful;

impl Machine for Careful {
    const NAME: &'static str = "careful";
    type Host = World;
    type Initial = Work;
    type States = (Work, Look, Finished);
}
check!(Careful);

#[derive(Serialize, Deserialize)]
struct Work {
    left: u32,
}
#[derive(Serialize, Deserialize)]
struct Look {
    left: u32,
}
#[derive(Serialize, Deserialize)]
struct Finished;

impl State<Careful> for Work {
    const NAME: &'static str = "work";
    type Next = (Work, Look, Finished);

    async fn run(self, _: &Careful, cx: &mut Context<'_, Careful>) -> Step<Self> {
        let (world, left) = (cx.host().clone(), self.left);
        let work = format!("work {left}");
        cx.effect(
            "work",
            async |_| if world.keys().contains(&work) { Ok(1) } else { world.happens(&work) },
        )
        .await?;
        if left > 1 { go(Work { left: left - 1 }) } else { go(Finished) }
    }

    fn on_interrupted(self) -> Option<Step<Self>> {
        Some(go(Look { left: self.left }))
    }
}

impl State<Careful> for Look {
    const NAME: &'static str = "look";
    type Next = (Work,);

    async fn run(self, _: &Careful, cx: &mut Context<'_, Careful>) -> Step<Self> {
        cx.effect("look", async |_| Ok(1)).await?;
        go(Work { left: self.left })
    }
}

impl State<Careful> for Finished {
    const NAME: &'static str = "finished";
    type Next = ();
}

fn careful() -> Trial<World> {
    Trial::new(<Careful as Erased<World>>::graph(&Careful).machine, &Work { left: 3 })
        .world(World::default)
        .machine(|world| Hosted::new(Careful, world.clone()))
        .observe(World::counts)
}

#[test]
fn states_that_look_after_an_interruption_may_be_allowed() {
    let error = careful().crash_everywhere().unwrap_err();
    assert!(error.to_string().contains("the states that `trial` entered"), "{error}");
    let report = careful().allow_states(&["look"]).everything().unwrap();
    assert!(report.coverage()[0].is_complete(), "{}", report.coverage()[0]);
    careful().compare_ends_only().crash_everywhere().unwrap();
    let error = careful().allow_states(&["another"]).crash_everywhere().unwrap_err();
    assert!(error.to_string().contains("the states that were entered"), "{error}");
}
