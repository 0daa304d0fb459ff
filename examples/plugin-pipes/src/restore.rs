//! The machine of a program that wants back what was saved.

use plugin_sdk::{Context, Host, Machine, PointId, State, Step, check, go};
use serde::{Deserialize, Serialize};

use crate::{
    flow::{Program, gone},
    talk::ToProgram,
};

/// Gives back what a program has called for.
#[derive(Clone, Copy, Debug)]
pub struct Restore;

impl Machine for Restore {
    const NAME: &'static str = "restore";
    type Host = Host;
    type Initial = GiveBack;
    type States = (GiveBack, Restored);
}
check!(Restore);

/// Takes the call and its pipes, and writes into them what was saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GiveBack {
    pub(crate) point: PointId,
}

/// The end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restored {}

impl State<Restore> for GiveBack {
    const NAME: &'static str = "give-back";
    const DOC: &'static str = "Write what was saved into the program's pipes, and say so.";
    type Next = (Restored,);

    async fn run(self, _: &Restore, cx: &mut Context<'_, Restore>) -> Step<Self> {
        let mut program = Program::receive(cx.host().call().await?)?;
        program.give_back(&self.point, cx).await?;
        let end = ToProgram::End { point: self.point.as_str().to_owned() };
        program.talk.say(&end).map_err(gone)?;
        go(Restored {})
    }
}

impl State<Restore> for Restored {
    const NAME: &'static str = "restored";
    const DOC: &'static str = "The program has what it wanted.";
    type Next = ();
}
