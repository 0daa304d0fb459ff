//! How the run of a trial ends: what is compared of a run that fails, and what a run that fails
//! although nothing disturbs it says.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use fsm_core::{
    Context, Ending, Fault, Hosted, Machine, Retry, State, Step, check, go,
    testing::{Trial, TrialErrorKind},
};
use serde::{Deserialize, Serialize};

#[test]
fn a_run_that_fails_undisturbed_is_no_trial_unless_it_may() {
    let trial = || Trial::new("lock", &Turn::Panic).machine(|_| Hosted::new(Lock, Door::default()));
    let error = trial().crash_everywhere().unwrap_err();
    assert_eq!(error.kind(), TrialErrorKind::Setup);
    let said = error.to_string();
    assert!(said.contains("failed in `turn`") && said.contains("step.panicked"), "{said}");
    assert!(said.contains(".may_fail()"), "{said}");
    trial().may_fail().crash_everywhere().unwrap();
}

#[test]
fn a_state_that_gives_up_undisturbed_is_not_blamed_on_the_trial() {
    let trial =
        Trial::new("lock", &Turn::Stuck).machine(|_| Hosted::new(Lock, Door::default())).may_fail();
    trial.fail_every_step().unwrap();
}

#[test]
fn what_must_hold_at_the_end_may_depend_on_the_end() {
    let trial = Trial::new("lock", &Turn::Open)
        .world(Door::default)
        .machine(|door| Hosted::new(Lock, door.clone()));
    let shut_unless_completed = |door: &Door, end: &fsm_core::End| {
        let open = door.0.load(Ordering::SeqCst);
        match end.ending {
            Ending::Completed => Ok(()),
            ending if open => Err(format!("{} and the door is open", ending.as_str())),
            _ => Ok(()),
        }
    };
    trial.cancel_every_step().unwrap();
    let error = trial.always_at_end(shut_unless_completed).cancel_every_step().unwrap_err();
    assert_eq!(error.kind(), TrialErrorKind::Broken);
    assert!(error.to_string().contains("cancelled and the door is open"), "{error}");
}

#[test]
fn a_schedule_that_does_not_happen_is_an_error() {
    let trial = Trial::new("lock", &Turn::Open).machine(|_| Hosted::new(Lock, Door::default()));
    let error = trial.replay("write 9999 before").unwrap_err();
    assert_eq!(error.kind(), TrialErrorKind::Setup);
}

#[derive(Clone, Default)]
struct Door(Arc<AtomicBool>);

struct Lock;

impl Machine for Lock {
    const NAME: &'static str = "lock";
    type Host = Door;
    type Initial = Turn;
    type States = (Turn, Look, Opened);
}
check!(Lock);

#[derive(Serialize, Deserialize)]
enum Turn {
    Open,
    Stuck,
    Panic,
}

impl State<Lock> for Turn {
    const NAME: &'static str = "turn";
    const RETRY: Retry = Retry::times(2);
    type Next = (Look,);

    async fn run(self, _: &Lock, cx: &mut Context<'_, Lock>) -> Step<Self> {
        match self {
            Turn::Stuck => return Err(Fault::retryable("lock.stuck", "it does not turn")),
            Turn::Panic => std::panic::resume_unwind(Box::new("the key breaks")),
            Turn::Open => cx.host().0.store(true, Ordering::SeqCst),
        }
        go(Look)
    }
}

#[derive(Serialize, Deserialize)]
struct Look;

impl State<Lock> for Look {
    const NAME: &'static str = "look";
    type Next = (Opened,);

    async fn run(self, _: &Lock, _: &mut Context<'_, Lock>) -> Step<Self> {
        go(Opened)
    }
}

#[derive(Serialize, Deserialize)]
struct Opened;

impl State<Lock> for Opened {
    const NAME: &'static str = "opened";
    type Next = ();
}
