//! A shop sells teapots. For each order it sets a teapot aside, waits for the customer to pay,
//! has the bank book the money, gives the customer an hour to think again, and sends the parcel.
//! Whatever was done is undone when a later step fails or the customer withdraws: the money goes
//! back, and the teapot returns to the shelf. Undoing is no magic; it is done by states like others.
//!
//! Four orders come in on one morning:
//!
//! - `order-1` is paid. The process dies while the bank books the money, and the next one finds
//!   the booking instead of asking for a second one. The teapot arrives.
//! - `order-2` is never paid. The customer is reminded after a day; after two the shop gives up.
//! - `order-3` is paid, but the address does not exist: the parcel comes back, the money goes back.
//! - `order-4` is paid, and withdrawn within the hour.
//!
//! An order is a run of the machine `order`, a parcel a run of the machine `parcel`, which the
//! order spawns and waits for. Two days pass in no time, as the clock is the program's own.

pub(crate) mod order;
pub(crate) mod parcel;
pub(crate) mod shop;

use std::{collections::BTreeSet, error::Error};

use fsm_core::{
    Body, Hosted, MemoryJournal, RunEvent, RunId, Runtime, Watch, Watched,
    testing::ManualEnvironment,
};
use futures::StreamExt;

use self::{
    order::{Orders, Payment, Reserve},
    parcel::Parcels,
    shop::{DAY, HOUR, Shop},
};

type Answer<T> = Result<T, Box<dyn Error>>;

fn main() -> Answer<()> {
    print!("{}", story()?);
    Ok(())
}

pub(crate) fn story() -> Answer<String> {
    let mut told = String::new();
    let environment = ManualEnvironment::default();
    let shop = Shop::open(&environment);
    let journal = MemoryJournal::new();

    // Four customers order. The first one pays at once, and the bank books the money; before its
    // answer arrives, the process dies.
    let mut process = Process::start(&journal, &shop)?;
    environment.block_on(async {
        let addresses = ["1 High Street", "2 High Street", "0 Nowhere", "4 High Street"];
        for (order, address) in ["order-1", "order-2", "order-3", "order-4"].iter().zip(addresses) {
            let reserve = Reserve { address: address.to_owned() };
            process.runtime.begin::<Orders>(order.parse()?, &reserve).await?;
            process.until(order, "unpaid").await?;
        }
        let booked = shop.bank_falls_silent();
        process.pay("order-1").await?;
        Answer::Ok(booked.await?)
    })?;
    drop(process);
    environment.drop_tasks();

    // The next process finds all four orders in the journal.
    let mut process = Process::start(&journal, &shop)?;
    environment.block_on(async {
        let recovered = process.runtime.recover().await?;
        told += &format!("After a crash {} orders go on.\n\n", recovered.runs);
        process.until("order-1", "ship").await?;

        let waits = process.runtime.inspect(&"order-2".parse()?).await?.ok_or("no such order")?;
        let graph = process.runtime.graph("order").ok_or("no such machine")?;
        told += &format!("Where order-2 waits:\n\n{}\n", graph.to_mermaid(Some(&waits.state)));

        // Two more pay, and one of them thinks again.
        for order in ["order-3", "order-4"] {
            process.pay(order).await?;
            process.until(order, "ship").await?;
        }
        environment.advance(HOUR / 2);
        let withdrawn = process.runtime.cancel(&"order-4".parse()?, "too small after all").await?;
        withdrawn.end().await?;

        // When their hour is over, the two other parcels leave.
        environment.advance(HOUR / 2);
        process.until("order-1/4/parcel", "on_the_road").await?;
        process.until("order-3/4/parcel", "on_the_road").await?;

        // A day after the orders came in, and two days after; then the parcels arrive, or do not.
        environment.advance(DAY - HOUR);
        process.until("order-2", "reminded").await?;
        environment.advance(DAY);
        process.until("order-2", "failed").await?;
        environment.advance(HOUR);
        process.until("order-1", "delivered").await?;
        process.until("order-3", "failed").await?;

        for order in ["order-1", "order-2", "order-3", "order-4"] {
            let run: RunId = order.parse()?;
            let end = process.runtime.attach(&run).await?.end().await?;
            let (ending, data) = (end.ending.as_str(), end.data.as_text().unwrap_or("?"));
            told += &format!("{order}: {ending}, {data}\n");
            told += &format!("  {}\n", process.path(&run).await?);
            told += &shop.diary(&run);
        }
        Answer::Ok(told + "\n" + &shop.balance())
    })
}

/// A process of the shop: machines over a journal, and what it has seen happen.
struct Process {
    runtime: Runtime,
    events: Watch,
    entered: BTreeSet<(RunId, String)>,
}

impl Process {
    fn start(journal: &MemoryJournal, shop: &Shop) -> Answer<Self> {
        let runtime = Runtime::builder(journal.clone(), shop.environment.clone()).build();
        runtime.register(Hosted::new(Orders, shop.clone()), "example")?;
        runtime.register(Hosted::new(Parcels, shop.clone()), "example")?;
        Ok(Process { events: runtime.watch(), runtime, entered: BTreeSet::new() })
    }

    /// The customer of `order` pays. However often the form is sent: its number makes it one signal.
    async fn pay(&self, order: &str) -> Answer<()> {
        let payment = Payment { account: format!("account of {order}") };
        self.runtime.tell(&order.parse()?, "form-1", &payment).await?;
        Ok(())
    }

    /// Waits until `run` has entered `state`.
    async fn until(&mut self, run: &str, state: &str) -> Answer<()> {
        let sought = (run.parse()?, state.to_owned());
        while !self.entered.contains(&sought) {
            let event = self.events.next().await.ok_or("the runtime has gone")?;
            if let Watched::Event(run, RunEvent::Entered { state, .. }) = event {
                self.entered.insert((run, state));
            }
        }
        Ok(())
    }

    /// The states that `run` went through.
    async fn path(&self, run: &RunId) -> Answer<String> {
        let history = self.runtime.history(run).await?;
        let states = history.into_iter().filter_map(|record| match record.body {
            Body::Enter { state, .. } => Some(state),
            _ => None,
        });
        Ok(states.collect::<Vec<_>>().join(" > "))
    }
}
