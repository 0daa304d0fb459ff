//! A machine that spawns others: its input says which, and what it does then.

use std::time::Duration;

use fsm_core::{
    Cancel, Child, Context, Fault, Machine, Retry, State, Step, Wait, check, go, go_at,
};
use serde::{Deserialize, Serialize};

use super::{
    desk::{Desk, Prepare},
    world::World,
};

pub(crate) struct Parent;

impl Machine for Parent {
    const NAME: &'static str = "parent";
    type Host = World;
    type Initial = Raise;
    type States = (Raise, Watch, Toil, Spare, Gathered);
}
check!(Parent);

#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Kid {
    Desk(Prepare),
    Parent(Raise),
    /// A run of a machine that is not there.
    Nobody,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Then {
    /// It waits for its children.
    Watch,
    /// It waits for them, and no request to cancel is delivered meanwhile.
    Spare,
    /// It works, and does not wait for them.
    Toil,
    /// It ends.
    End,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Raise {
    pub(crate) kids: Vec<(String, Kid)>,
    pub(crate) then: Then,
}

impl Raise {
    pub(crate) fn new(kids: &[(&str, Prepare)], then: Then) -> Self {
        let kids = kids.iter().map(|(key, plan)| ((*key).to_owned(), Kid::Desk(plan.clone())));
        Raise { kids: kids.collect(), then }
    }
}

struct Nobody;

impl Machine for Nobody {
    const NAME: &'static str = "nobody";
    type Host = World;
    type Initial = Gathered;
    type States = (Gathered,);
}

impl State<Nobody> for Gathered {
    const NAME: &'static str = "gathered";
    type Next = ();
}

impl State<Parent> for Raise {
    const NAME: &'static str = "raise";
    const RETRY: Retry = Retry::NEVER;
    type Next = (Watch, Spare, Toil, Gathered);

    async fn run(self, _: &Parent, cx: &mut Context<'_, Parent>) -> Step<Self> {
        cx.host().say("raise");
        for (key, kid) in &self.kids {
            match kid {
                Kid::Desk(plan) => cx.spawn::<Desk>(key, plan)?,
                Kid::Parent(raise) => cx.spawn::<Parent>(key, raise)?,
                Kid::Nobody => cx.spawn::<Nobody>(key, &Gathered { ends: Vec::new() })?,
            };
        }
        match self.then {
            Then::Watch => go(Watch),
            Then::Spare => go(Spare),
            Then::Toil => go_at(cx.now() + Duration::from_secs(1), Toil),
            Then::End => go(Gathered { ends: Vec::new() }),
        }
    }
}

/// How a child has ended, in one line.
fn line(child: &Child) -> Result<String, Fault> {
    let end = child.end.as_ref().ok_or_else(|| Fault::bug("child.open", "it has not ended"))?;
    let (ending, data) = (end.ending.as_str(), end.data.as_text().unwrap_or_default());
    let fault = end.fault.as_ref().map_or("-", Fault::code);
    Ok(format!("{} {ending} {data} {fault}", child.key))
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Watch;

impl State<Parent> for Watch {
    const NAME: &'static str = "watch";
    const WAIT: Wait = Wait::for_children();
    type Next = (Gathered,);

    async fn run(self, _: &Parent, cx: &mut Context<'_, Parent>) -> Step<Self> {
        go(Gathered { ends: cx.children().iter().map(line).collect::<Result<_, _>>()? })
    }

    fn on_cancel(self) -> Step<Self> {
        go(Gathered { ends: vec!["asked to stop".to_owned()] })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Spare;

impl State<Parent> for Spare {
    const NAME: &'static str = "spare";
    const WAIT: Wait = Wait::for_children();
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Gathered,);

    async fn run(self, _: &Parent, cx: &mut Context<'_, Parent>) -> Step<Self> {
        go(Gathered { ends: cx.children().iter().map(line).collect::<Result<_, _>>()? })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Toil;

impl State<Parent> for Toil {
    const NAME: &'static str = "toil";
    const RETRY: Retry = Retry::NEVER;
    type Next = (Watch,);

    async fn run(self, _: &Parent, cx: &mut Context<'_, Parent>) -> Step<Self> {
        cx.host().say("toil");
        cx.host().act(cx).await?;
        go(Watch)
    }

    fn on_cancel(self) -> Step<Self> {
        go(Watch)
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Gathered {
    pub(crate) ends: Vec<String>,
}

impl State<Parent> for Gathered {
    const NAME: &'static str = "gathered";
    type Next = ();
}
