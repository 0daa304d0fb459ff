//! The machine `parcel`: what becomes of a teapot that has left the shop.

use fsm_core::{Context, Ending, Machine, RunId, State, Step, check, go, go_at};
use serde::{Deserialize, Serialize};

use super::shop::{DAY, Shop};

pub(crate) struct Parcels;

impl Machine for Parcels {
    const NAME: &'static str = "parcel";
    const DOC: &'static str = "Bring a teapot to its address.";
    type Host = Shop;
    type Initial = Pack;
    type States = (Pack, OnTheRoad, Arrived, Returned);
}
check!(Parcels);

#[derive(Serialize, Deserialize)]
pub(crate) struct Pack {
    pub(crate) order: RunId,
    pub(crate) address: String,
}

impl State<Parcels> for Pack {
    const NAME: &'static str = "pack";
    type Next = (OnTheRoad,);

    async fn run(self, _: &Parcels, cx: &mut Context<'_, Parcels>) -> Step<Self> {
        let shop = cx.host();
        cx.effect("label", async |effect| {
            shop.see_to(&self.order, effect.key, "the parcel leaves")
        })
        .await?;
        go_at(cx.now() + 2 * DAY, OnTheRoad { order: self.order, address: self.address })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct OnTheRoad {
    order: RunId,
    address: String,
}

impl State<Parcels> for OnTheRoad {
    const NAME: &'static str = "on_the_road";
    type Next = (Arrived, Returned);

    async fn run(self, _: &Parcels, cx: &mut Context<'_, Parcels>) -> Step<Self> {
        let (shop, is_there) = (cx.host(), self.address != "0 Nowhere");
        let what = if is_there { "the parcel arrives" } else { "the parcel comes back" };
        cx.effect("door", async |effect| shop.see_to(&self.order, effect.key, what)).await?;
        if is_there { go(Arrived {}) } else { go(Returned {}) }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Arrived {}

impl State<Parcels> for Arrived {
    const NAME: &'static str = "arrived";
    type Next = ();
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Returned {}

impl State<Parcels> for Returned {
    const NAME: &'static str = "returned";
    const ENDING: Ending = Ending::Failed;
    type Next = ();
}
