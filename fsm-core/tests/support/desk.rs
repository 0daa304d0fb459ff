//! A machine that waits for what it is told: its input chooses how.

use std::time::Duration;

use fsm_core::{Cancel, Context, Fault, Machine, Retry, Signal, State, Step, Wait, check, go};
use serde::{Deserialize, Serialize};

use super::world::World;

#[derive(Serialize, Deserialize)]
pub(crate) struct Order(pub(crate) u32);

impl Signal for Order {
    const NAME: &'static str = "order";
}

/// Nobody takes it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Gossip;

impl Signal for Gossip {
    const NAME: &'static str = "gossip";
}

pub(crate) struct Desk;

impl Machine for Desk {
    const NAME: &'static str = "desk";
    type Host = World;
    type Initial = Prepare;
    type States = (Prepare, Await, Timed, Hold, Looked, Served);
}
check!(Desk);

/// What becomes of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Prepare {
    /// It serves so many orders, one a step.
    Serve {
        orders: usize,
    },
    /// As `Serve` one; an interruption while it does leads to `looked`.
    Watchful,
    /// It waits a minute for an order.
    Timed,
    /// It waits for an order, and no request to cancel is delivered until it comes.
    Hold,
    Fail,
    /// It is served before it begins.
    Nothing,
}

impl State<Desk> for Prepare {
    const NAME: &'static str = "prepare";
    const RETRY: Retry = Retry::NEVER;
    type Next = (Await, Timed, Hold, Served);

    async fn run(self, _: &Desk, cx: &mut Context<'_, Desk>) -> Step<Self> {
        cx.host().say("prepare");
        cx.host().act(cx).await?;
        match self {
            Prepare::Serve { orders } => go(Await { orders, served: Vec::new(), watchful: false }),
            Prepare::Watchful => go(Await { orders: 1, served: Vec::new(), watchful: true }),
            Prepare::Timed => go(Timed),
            Prepare::Hold => go(Hold),
            Prepare::Fail => Err(Fault::permanent("desk.shut", "the desk is shut")),
            Prepare::Nothing => go(Served { orders: Vec::new() }),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Await {
    orders: usize,
    served: Vec<u32>,
    watchful: bool,
}

impl State<Desk> for Await {
    const NAME: &'static str = "await";
    const WAIT: Wait = Wait::for_signals(&["order", "rush"]);
    const RETRY: Retry = Retry::times(5).backoff(Duration::from_secs(10), 2.0);
    type Next = (Await, Looked, Served);

    async fn run(mut self, _: &Desk, cx: &mut Context<'_, Desk>) -> Step<Self> {
        let Some(Order(number)) = cx.take()? else {
            return Err(Fault::bug("desk.empty", "there is no order"));
        };
        cx.host().say(format!("order {number}"));
        cx.host().act(cx).await?;
        self.served.push(number);
        if self.served.len() < self.orders { go(self) } else { go(Served { orders: self.served }) }
    }

    fn on_interrupted(self) -> Option<Step<Self>> {
        self.watchful.then(|| go(Looked))
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Timed;

impl State<Desk> for Timed {
    const NAME: &'static str = "timed";
    const WAIT: Wait = Wait::for_signals(&["order"]).at_most(Duration::from_secs(60));
    type Next = (Served,);

    async fn run(self, _: &Desk, cx: &mut Context<'_, Desk>) -> Step<Self> {
        let order: Option<Order> = cx.take()?;
        cx.host().say(order.as_ref().map_or("nobody came", |_| "somebody came"));
        go(Served { orders: order.into_iter().map(|Order(number)| number).collect() })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Hold;

impl State<Desk> for Hold {
    const NAME: &'static str = "hold";
    const WAIT: Wait = Wait::for_signals(&["order"]);
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Served,);

    async fn run(self, _: &Desk, _: &mut Context<'_, Desk>) -> Step<Self> {
        go(Served { orders: Vec::new() })
    }
}

/// Something was interrupted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Looked;

impl State<Desk> for Looked {
    const NAME: &'static str = "looked";
    type Next = ();
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Served {
    pub(crate) orders: Vec<u32>,
}

impl State<Desk> for Served {
    const NAME: &'static str = "served";
    type Next = ();
}
