//! An operator asks why nothing moves.
//!
//! The node has four streams. A full backup of `orders` takes three of them. A restore of
//! `orders` has to wait until that is done, and so has the log backup that was due after
//! the restore was asked for. A full backup of `stock` needs two streams, of which one is
//! left. The lane for verification was closed for the night.
//!
//! [`Admission::snapshot`] knows all of that. Here it is put into words.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use futures::FutureExt;
use throttle::{
    Acquire, Admission, Claim, Class, Limits, ManualClock, Policy, Relation, Request, Resource,
    Rule, Scope, Snapshot, Waiting,
};

fn main() -> Result<(), Box<dyn Error>> {
    print!("{}", story()?);
    Ok(())
}

/// What the operator reads.
pub(crate) fn story() -> Result<String, Box<dyn Error>> {
    let clock = ManualClock::new();
    let limits = Limits::new().node("streams", 4).node("streams.verify", 0);
    let admission = Admission::new(limits, clock.clone());
    admission.register("sqlite", policy().compile()?)?;

    let full = admission.try_acquire(work("full of orders", "data", "orders", 3))?;
    clock.advance(Duration::from_secs(25 * 60));
    let restore = line_up(&admission, work("restore of orders", "restore", "orders", 1));
    clock.advance(Duration::from_secs(5 * 60));
    let log = line_up(&admission, work("log of orders", "log", "orders", 1));
    let stock = line_up(&admission, work("full of stock", "data", "stock", 2));
    let verify = Request::new("verification").capacity(Resource::node(), "streams.verify", 1);
    let verify = line_up(&admission, verify);
    clock.advance(Duration::from_secs(60));

    let mut told = explain(&admission.snapshot())?;
    drop(full);
    writeln!(told, "\nthe full backup of orders is done\n")?;
    told += &explain(&admission.snapshot())?;
    drop((restore, log, stock, verify));
    Ok(told)
}

fn policy() -> Policy {
    Policy::new()
        .class(Class::new("data"))
        .class(Class::new("log"))
        .class(Class::new("restore"))
        .rule(Scope::Item, "data/log", Rule::Allow)
}

fn work(owner: &str, class: &str, database: &str, streams: u32) -> Request {
    Request::new(owner)
        .exclusion("sqlite", Resource::item(format!("sqlite/main/{database}")), class)
        .capacity(Resource::node(), "streams", streams)
}

/// Takes a place in line; the future would say when it is over.
fn line_up(admission: &Admission, request: Request) -> Acquire {
    let mut future = admission.acquire(request);
    assert!((&mut future).now_or_never().is_none(), "nothing is free for it yet");
    future
}

/// The whole picture in words.
fn explain(snapshot: &Snapshot) -> Result<String, std::fmt::Error> {
    let mut told = String::new();
    for holder in &snapshot.holders {
        writeln!(told, "{} has been at work for {}", holder.owner, minutes(holder.age))?;
    }
    for limit in &snapshot.limits {
        let (name, whose) = (&limit.limit, &limit.resource);
        writeln!(told, "{} of {} {name} of the {whose} are used", limit.used, limit.capacity)?;
    }
    for waiter in &snapshot.waiters {
        writeln!(told, "{} has waited {} for {}", waiter.owner, minutes(waiter.age), why(waiter))?;
    }
    Ok(told)
}

fn why(waiter: &Waiting) -> String {
    let wanted = match &waiter.waits_for {
        Claim::Exclusion { resource, class, .. } => format!("{class} work on {resource}"),
        Claim::Capacity { limit, units, .. } => format!("{units} of the {limit}"),
        other => format!("{other:?}"),
    };
    let blockers = waiter.blockers.iter().map(|blocker| match blocker.relation {
        Relation::Holds => format!("{} has it", blocker.owner),
        Relation::IsAhead => format!("{} comes first", blocker.owner),
        _ => blocker.owner.clone(),
    });
    let blockers: Vec<_> = blockers.collect();
    match blockers.is_empty() {
        true => format!("{wanted}: the lane is closed"),
        false => format!("{wanted}: {}", blockers.join(", ")),
    }
}

fn minutes(age: Duration) -> String {
    format!("{} min", age.as_secs() / 60)
}
