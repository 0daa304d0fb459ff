//! A machine whose states are tried often, or not for long.

use std::time::Duration;

use fsm_core::{Context, Machine, Retry, State, Step, check, go};
use serde::{Deserialize, Serialize};

use super::{medium::Medium, process::Process, world::World};

impl Process {
    /// As `full`, with this machine too.
    pub(crate) fn punctual(medium: &Medium, world: &World) -> Self {
        Process::full(medium, world).with(Punctual, world)
    }

    /// The next process, which takes up every run of this one.
    pub(crate) fn restarted(self, medium: &Medium, world: &World) -> Self {
        let process = Process::full_at(medium, self.die(), world).with(Punctual, world);
        process.block_on(process.runtime.recover()).unwrap();
        process
    }
}

/// A machine that is tried often, or not for long.
pub(crate) struct Punctual;

impl Machine for Punctual {
    const NAME: &'static str = "punctual";
    type Host = World;
    type Initial = Punctuality;
    type States = (Punctuality, Patient, Hasty, There);
}
check!(Punctual);

#[derive(Serialize, Deserialize)]
pub(crate) enum Punctuality {
    Patient,
    Hasty,
    Tells,
}

impl State<Punctual> for Punctuality {
    const NAME: &'static str = "punctuality";
    type Next = (Patient, Hasty, There);

    async fn run(self, _: &Punctual, cx: &mut Context<'_, Punctual>) -> Step<Self> {
        match self {
            Punctuality::Patient => go(Patient),
            Punctuality::Hasty => go(Hasty),
            Punctuality::Tells => {
                cx.host().say(cx.deadline().map_or_else(String::new, |at| at.to_string()));
                go(There)
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Patient;

impl State<Punctual> for Patient {
    const NAME: &'static str = "patient";
    const RETRY: Retry = Retry::times(5).backoff(Duration::from_secs(10), 2.0);
    type Next = (There,);

    async fn run(self, _: &Punctual, cx: &mut Context<'_, Punctual>) -> Step<Self> {
        cx.host().say(format!("patient {}", cx.attempt()));
        cx.host().act(cx).await?;
        go(There)
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Hasty;

impl State<Punctual> for Hasty {
    const NAME: &'static str = "hasty";
    const RETRY: Retry =
        Retry::times(5).backoff(Duration::from_secs(1), 1.0).total_timeout(Duration::from_secs(60));
    type Next = (There,);

    async fn run(self, _: &Punctual, cx: &mut Context<'_, Punctual>) -> Step<Self> {
        cx.host().say(format!("hasty {}", cx.attempt()));
        cx.host().act(cx).await?;
        go(There)
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct There;

impl State<Punctual> for There {
    const NAME: &'static str = "there";
    type Next = ();
}
