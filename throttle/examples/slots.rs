//! Two databases are to be backed up, and the node has one slot for it.
//!
//! `orders` comes first and gets the slot. `stock` waits, and the admission can say for
//! what. Its log backup does not wait: logs have a lane of their own. Once `orders` is
//! done, `stock` has its turn.

use std::error::Error;
use std::fmt::Write;

use futures::executor::block_on;
use throttle::{Admission, Class, Limits, ManualClock, Policy, Request, Resource, Rule, Scope};

fn main() -> Result<(), Box<dyn Error>> {
    print!("{}", story()?);
    Ok(())
}

/// What happens, line by line.
pub(crate) fn story() -> Result<String, Box<dyn Error>> {
    let mut told = String::new();
    let limits = Limits::new().node("streams", 1).node("streams.log", 1);
    let admission = Admission::new(limits, ManualClock::new());
    let policy = Policy::new().class(Class::new("data")).class(Class::new("log")).rule(
        Scope::Item,
        "data/log",
        Rule::Allow,
    );
    admission.register("sqlite", policy.compile()?)?;

    let orders = admission.try_acquire(backup("orders", "data", "streams"))?;
    writeln!(told, "{} has the slot", orders.owner())?;

    let refused = admission.try_acquire(backup("stock", "data", "streams"));
    writeln!(told, "{}", refused.err().ok_or("there is one slot only")?)?;

    let log = admission.try_acquire(backup("stock", "log", "streams.log"))?;
    writeln!(told, "{} saves its log meanwhile", log.owner())?;

    drop(orders);
    let stock = block_on(admission.acquire(backup("stock", "data", "streams")))?;
    writeln!(told, "{} has the slot", stock.owner())?;
    Ok(told)
}

fn backup(database: &str, class: &str, lane: &str) -> Request {
    Request::new(database)
        .exclusion("sqlite", Resource::item(format!("sqlite/main/{database}")), class)
        .capacity(Resource::node(), lane, 1)
}
