//! The outside of the test machines, and the machines: `Job` has every kind of edge, and its
//! input chooses which of them it takes.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fsm_core::{
    Cancel, Context, Effect, Ending, Fault, Machine, Retry, State, Step, check, go, go_at,
};
use serde::{Deserialize, Serialize};

/// What a step does. A step without an instruction moves on.
pub(crate) enum Act {
    Fault(Fault),
    Panic,
    /// Waits for ever.
    Hang,
    /// Waits until it is asked to stop, and stops.
    Heed,
    /// Waits until it is asked to stop, and moves on.
    MoveOnWhenAsked,
    /// Never ready for a while, then moves on.
    Wait(u32),
    /// Waits until the test lets it go, then moves on.
    Held,
    /// Waits until the test lets it go, then fails.
    HeldThenFault(Fault),
}

#[derive(Clone, Default)]
pub(crate) struct World {
    acts: Arc<Mutex<VecDeque<Act>>>,
    log: Arc<Mutex<Vec<String>>>,
    is_let_go: Arc<AtomicBool>,
}

impl World {
    pub(crate) fn script(acts: impl IntoIterator<Item = Act>) -> Self {
        let world = World::default();
        world.add(acts);
        world
    }

    pub(crate) fn add(&self, acts: impl IntoIterator<Item = Act>) {
        self.acts.lock().unwrap().extend(acts);
    }

    /// Lets go of the step that is held, and of those that come after it.
    pub(crate) fn let_go(&self) {
        self.is_let_go.store(true, Ordering::SeqCst);
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn say(&self, text: impl Into<String>) {
        self.log.lock().unwrap().push(text.into());
    }

    pub(crate) fn said(&self, text: &str) -> usize {
        self.log().iter().filter(|line| *line == text).count()
    }

    async fn touch(&self, effect: Effect) -> Result<u32, Fault> {
        let maybe = if effect.maybe_ran { " again?" } else { "" };
        self.say(format!("{}{maybe}", effect.key));
        Ok(7)
    }

    pub(crate) async fn act<M: Machine>(&self, cx: &Context<'_, M>) -> Result<(), Fault> {
        let act = self.acts.lock().unwrap().pop_front();
        match act {
            None => Ok(()),
            Some(Act::Fault(fault)) => Err(fault),
            Some(Act::Panic) => panic!("as the script says"),
            Some(Act::Hang) => {
                let _noise = OnDrop(self.clone());
                futures::future::pending().await
            }
            Some(Act::Heed) => {
                cx.cancellation().requested().await;
                self.say("heeded");
                cx.check_cancelled()
            }
            Some(Act::MoveOnWhenAsked) => {
                cx.cancellation().requested().await;
                Ok(())
            }
            Some(Act::Wait(rounds)) => {
                for _ in 0..rounds {
                    super::process::breathe().await;
                }
                Ok(())
            }
            Some(Act::Held) => {
                self.held().await;
                Ok(())
            }
            Some(Act::HeldThenFault(fault)) => {
                self.held().await;
                Err(fault)
            }
        }
    }

    async fn held(&self) {
        while !self.is_let_go.load(Ordering::SeqCst) {
            super::process::breathe().await;
        }
    }
}

struct OnDrop(World);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.say("dropped");
    }
}

pub(crate) fn transient() -> Fault {
    Fault::retryable("test.transient", "it does not work just now")
}

pub(crate) struct Job;

impl Machine for Job {
    const NAME: &'static str = "job";
    type Host = World;
    type Initial = Work;
    type States = (Work, Rest, Patient, Look, Undo, Done, Failed);
}
check!(Job);

#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) effects: bool,
    pub(crate) undo_when_exhausted: bool,
    pub(crate) undo_when_cancelled: bool,
    pub(crate) look_when_interrupted: bool,
    pub(crate) rest_secs: Option<u64>,
    pub(crate) patient: bool,
}

impl State<Job> for Work {
    const NAME: &'static str = "work";
    const RETRY: Retry = Retry::times(3)
        .backoff(Duration::from_secs(10), 2.0)
        .attempt_timeout(Duration::from_secs(600));
    type Next = (Rest, Patient, Look, Undo, Done);

    async fn run(self, _: &Job, cx: &mut Context<'_, Job>) -> Step<Self> {
        let world = cx.host().clone();
        world.say(format!("work {}", cx.attempt()));
        if self.effects {
            cx.effect("plain", |effect| world.touch(effect)).await?;
            cx.once("careful", |effect| world.touch(effect)).await?;
        }
        world.act(cx).await?;
        if let Some(secs) = self.rest_secs {
            return go_at(cx.now() + Duration::from_secs(secs), Rest);
        }
        if self.patient {
            return go(Patient);
        }
        go(Done { attempts: cx.attempt() })
    }

    fn on_exhausted(self, fault: Fault) -> Step<Self> {
        if self.undo_when_exhausted {
            go(Undo { code: fault.code().to_owned() })
        } else {
            Err(fault)
        }
    }

    fn on_cancel(self) -> Step<Self> {
        if self.undo_when_cancelled {
            go(Undo { code: "cancelled".to_owned() })
        } else {
            Err(Fault::cancelled())
        }
    }

    fn on_interrupted(self) -> Option<Step<Self>> {
        self.look_when_interrupted.then(|| go(Look))
    }
}

/// Waits for its time, and then does what the script says.
#[derive(Serialize, Deserialize)]
pub(crate) struct Rest;

impl State<Job> for Rest {
    const NAME: &'static str = "rest";
    type Next = (Look, Done);

    async fn run(self, _: &Job, cx: &mut Context<'_, Job>) -> Step<Self> {
        cx.host().say("rested");
        cx.host().act(cx).await?;
        go(Done { attempts: 0 })
    }

    fn on_interrupted(self) -> Option<Step<Self>> {
        Some(go(Look))
    }
}

/// Pauses for an operator.
#[derive(Serialize, Deserialize)]
pub(crate) struct Patient;

impl State<Job> for Patient {
    const NAME: &'static str = "patient";
    const RETRY: Retry = Retry::times(2).or_pause();
    type Next = (Done,);

    async fn run(self, _: &Job, cx: &mut Context<'_, Job>) -> Step<Self> {
        cx.host().say(format!("patient {}", cx.attempt()));
        cx.host().act(cx).await?;
        go(Done { attempts: cx.attempt() })
    }
}

/// Looks at the outside world after an interruption.
#[derive(Serialize, Deserialize)]
pub(crate) struct Look;

impl State<Job> for Look {
    const NAME: &'static str = "look";
    type Next = (Done,);

    async fn run(self, _: &Job, cx: &mut Context<'_, Job>) -> Step<Self> {
        cx.host().say("look");
        go(Done { attempts: 0 })
    }
}

/// Compensates; a request to cancel waits for it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Undo {
    code: String,
}

impl State<Job> for Undo {
    const NAME: &'static str = "undo";
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Failed,);

    async fn run(self, _: &Job, cx: &mut Context<'_, Job>) -> Step<Self> {
        cx.host().say("undo");
        cx.host().act(cx).await?;
        go(Failed { code: self.code })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Done {
    attempts: u32,
}

impl State<Job> for Done {
    const NAME: &'static str = "done";
    type Next = ();
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Failed {
    code: String,
}

impl State<Job> for Failed {
    const NAME: &'static str = "failed";
    const ENDING: Ending = Ending::Failed;
    type Next = ();
}
