//! The machine `order`: the way forward, and the way back.

use fsm_core::{
    Cancel, Context, Ending, Fault, Machine, Retry, Signal, State, Step, Wait, check, go, go_at,
};
use serde::{Deserialize, Serialize};

use super::{
    parcel::{Pack, Parcels},
    shop::{DAY, HOUR, Shop},
};

/// What a customer sends to pay.
#[derive(Serialize, Deserialize)]
pub(crate) struct Payment {
    pub(crate) account: String,
}

impl Signal for Payment {
    const NAME: &'static str = "payment";
}

/// Why an order is undone.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    SoldOut,
    NotPaid,
    NotBooked,
    NotDelivered,
    Withdrawn,
}

pub(crate) struct Orders;

impl Machine for Orders {
    const NAME: &'static str = "order";
    const DOC: &'static str = "Sell one teapot.";
    type Host = Shop;
    type Initial = Reserve;
    #[rustfmt::skip] // The way forward, then the way back.
    type States = (
        Reserve, Unpaid, Reminded, Charge, Ship, Shipping, Delivered,
        Refund, Release, Withdrawn, Failed,
    );
}
check!(Orders);

#[derive(Serialize, Deserialize)]
pub(crate) struct Reserve {
    pub(crate) address: String,
}

impl State<Orders> for Reserve {
    const NAME: &'static str = "reserve";
    const DOC: &'static str = "Set a teapot aside.";
    type Next = (Unpaid, Release);

    async fn run(self, _: &Orders, cx: &mut Context<'_, Orders>) -> Step<Self> {
        let (shop, order) = (cx.host(), cx.run().clone());
        // The shop knows the key: setting aside again under the same one changes nothing.
        cx.effect("teapot", async |effect| shop.set_aside(&order, effect.key)).await?;
        go(Unpaid { address: self.address })
    }

    fn on_exhausted(self, _: Fault) -> Step<Self> {
        go(Release { why: Why::SoldOut })
    }

    fn on_cancel(self) -> Step<Self> {
        go(Release { why: Why::Withdrawn })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Unpaid {
    address: String,
}

impl State<Orders> for Unpaid {
    const NAME: &'static str = "unpaid";
    const DOC: &'static str = "Wait a day for the payment, then remind the customer.";
    const WAIT: Wait = Wait::for_signals(&[Payment::NAME]).at_most(DAY);
    type Next = (Charge, Reminded, Release);

    async fn run(self, _: &Orders, cx: &mut Context<'_, Orders>) -> Step<Self> {
        if let Some(Payment { account }) = cx.take()? {
            return go(Charge { address: self.address, account });
        }
        let (shop, order) = (cx.host(), cx.run().clone());
        cx.effect("reminder", async |effect| shop.see_to(&order, effect.key, "a reminder is sent"))
            .await?;
        go(Reminded { address: self.address })
    }

    fn on_exhausted(self, _: Fault) -> Step<Self> {
        go(Release { why: Why::NotPaid })
    }

    fn on_cancel(self) -> Step<Self> {
        go(Release { why: Why::Withdrawn })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Reminded {
    address: String,
}

impl State<Orders> for Reminded {
    const NAME: &'static str = "reminded";
    const DOC: &'static str = "Wait a last day for the payment.";
    const WAIT: Wait = Unpaid::WAIT;
    type Next = (Charge, Release);

    async fn run(self, _: &Orders, cx: &mut Context<'_, Orders>) -> Step<Self> {
        match cx.take()? {
            Some(Payment { account }) => go(Charge { address: self.address, account }),
            None => go(Release { why: Why::NotPaid }),
        }
    }

    fn on_exhausted(self, _: Fault) -> Step<Self> {
        go(Release { why: Why::NotPaid })
    }

    fn on_cancel(self) -> Step<Self> {
        go(Release { why: Why::Withdrawn })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Charge {
    address: String,
    account: String,
}

impl State<Orders> for Charge {
    const NAME: &'static str = "charge";
    const DOC: &'static str = "Have the bank book the money; then leave the customer an hour.";
    const RETRY: Retry = Retry::times(3).attempt_timeout(HOUR);
    type Next = (Ship, Refund);

    async fn run(self, _: &Orders, cx: &mut Context<'_, Orders>) -> Step<Self> {
        let (shop, order) = (cx.host(), cx.run().clone());
        // The bank books whatever it is asked for, also twice. But it can be asked what it has
        // booked, and under which reference.
        cx.once("money", async |effect| {
            if effect.maybe_ran && shop.finds_booking(&order, &effect.key)? {
                return Ok(());
            }
            shop.book(&order, effect.key, &self.account).await
        })
        .await?;
        go_at(cx.now() + HOUR, Ship { address: self.address })
    }

    // Nobody knows whether the money was booked. To pay back what was is right in either case.
    fn on_exhausted(self, _: Fault) -> Step<Self> {
        go(Refund { why: Why::NotBooked })
    }

    fn on_cancel(self) -> Step<Self> {
        go(Refund { why: Why::Withdrawn })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Ship {
    address: String,
}

impl State<Orders> for Ship {
    const NAME: &'static str = "ship";
    const DOC: &'static str = "Send the parcel.";
    type Next = (Shipping, Refund);

    async fn run(self, _: &Orders, cx: &mut Context<'_, Orders>) -> Step<Self> {
        let pack = Pack { order: cx.run().clone(), address: self.address };
        // The parcel comes into being with the transition, or not at all.
        cx.spawn::<Parcels>("parcel", &pack)?;
        go(Shipping {})
    }

    fn on_exhausted(self, _: Fault) -> Step<Self> {
        go(Refund { why: Why::NotDelivered })
    }

    fn on_cancel(self) -> Step<Self> {
        go(Refund { why: Why::Withdrawn })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Shipping {}

impl State<Orders> for Shipping {
    const NAME: &'static str = "shipping";
    const DOC: &'static str = "Wait for the parcel to arrive; it cannot be called back.";
    const WAIT: Wait = Wait::for_children();
    // What became of the parcel is known, so a failure here must not decide whose the money is:
    // the run pauses until somebody has mended what is wrong.
    const RETRY: Retry = Retry::times(10).or_pause_always();
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Delivered, Refund);

    async fn run(self, _: &Orders, cx: &mut Context<'_, Orders>) -> Step<Self> {
        let mut ends = cx.children().iter().filter_map(|parcel| parcel.end.as_ref());
        if ends.all(|end| end.ending == Ending::Completed) {
            go(Delivered {})
        } else {
            go(Refund { why: Why::NotDelivered })
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Delivered {}

impl State<Orders> for Delivered {
    const NAME: &'static str = "delivered";
    const DOC: &'static str = "The customer has the teapot, and the shop the money.";
    type Next = ();
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Refund {
    why: Why,
}

impl State<Orders> for Refund {
    const NAME: &'static str = "refund";
    const DOC: &'static str = "Pay back what was booked.";
    // Nobody gives up before the money is back: whether the bank cannot be reached or refuses, the
    // run pauses here, and `resume` continues it.
    const RETRY: Retry = Retry::times(10).or_pause_always();
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Release,);

    async fn run(self, _: &Orders, cx: &mut Context<'_, Orders>) -> Step<Self> {
        let (shop, order) = (cx.host(), cx.run().clone());
        cx.effect("money", async |effect| shop.pay_back(&order, effect.key)).await?;
        go(Release { why: self.why })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Release {
    why: Why,
}

impl State<Orders> for Release {
    const NAME: &'static str = "release";
    const DOC: &'static str = "Put the teapot back.";
    const RETRY: Retry = Retry::times(10).or_pause_always();
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Withdrawn, Failed);

    async fn run(self, _: &Orders, cx: &mut Context<'_, Orders>) -> Step<Self> {
        let (shop, order) = (cx.host(), cx.run().clone());
        cx.effect("teapot", async |effect| shop.put_back(&order, effect.key)).await?;
        if self.why == Why::Withdrawn { go(Withdrawn {}) } else { go(Failed { why: self.why }) }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Withdrawn {}

impl State<Orders> for Withdrawn {
    const NAME: &'static str = "withdrawn";
    const DOC: &'static str = "The customer did not want it, and owes nothing.";
    const ENDING: Ending = Ending::Cancelled;
    type Next = ();
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Failed {
    why: Why,
}

impl State<Orders> for Failed {
    const NAME: &'static str = "failed";
    const DOC: &'static str = "Nothing was sold.";
    const ENDING: Ending = Ending::Failed;
    type Next = ();
}
