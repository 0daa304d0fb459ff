//! Admission control: atomic claims, class rules, priorities and byte rates.
//!
//! An operation that wants to work asks an [`Admission`] first. It says what it needs in a
//! [`Request`]: *exclusions* ("a `data` backup of this database") and *capacities* ("one of
//! the node's streams"). It gets a [`Permit`] for all of them together, or it waits and
//! holds nothing. When the permit is dropped, whoever waits for it is next.
//!
//! What may run beside what is data: a workload declares a [`Policy`], the host sets
//! [`Limits`]. How fast bytes may move is decided by a [`ByteRate`].
//!
//! # What it promises
//!
//! - **All or nothing.** A waiter holds nothing, so requests cannot deadlock on each other.
//! - **Safe by default.** Classes without a rule conflict; a policy can tighten the host's
//!   limits, never loosen them.
//! - **Nobody starves.** Conflicting requests start in the order of arrival and priority. A
//!   large request is passed by smaller ones a bounded number of times.
//! - **Nothing is lost.** A permit is given back exactly once; a dropped future leaves
//!   nothing behind; each waiter is looked at whenever what it waits for has changed.
//! - **Nothing is hidden.** A [`Snapshot`] names for every waiter what it waits for and who
//!   stands in the way.
//! - **Nothing is presupposed.** No runtime, no threads, no timers, no `unsafe` code. Time
//!   comes from a [`Clock`], and the same events at the same times are decided the same way.
//!
//! # What may surprise
//!
//! - **A grant is a hand-off.** A permit is held from the moment it is granted, even while the
//!   future that waited for it is not polled. [`Admission::tick`] takes it back after a while
//!   ([`Limits::claim_within`]); nobody else calls that.
//! - **Whoever holds a permit cannot wait for another one** under the same owner
//!   ([`AcquireErrorKind::WouldNest`]), unless the request is part of the operation
//!   ([`Request::lent_by`], [`Request::borrowing_from`]) or takes up again what the permit
//!   [gave back](Permit::reacquire).
//! - **A request that was overtaken too often sets units aside** at every limit that it needs,
//!   so those may look idle; the [`Snapshot`] shows it as pinned.
//! - **A rejection is decided once**, when the request arrives. Who waits is not rejected
//!   later, also not by a [replaced](Admission::replace) policy.
//! - **Equal requests share one permit**, and only one of them is to do the work
//!   ([`Permit::coalesced_into`]).
//! - **A larger request than there is capacity** runs alone if the limit was shrunk, and is an
//!   error if it never had as much.
//! - **Nothing happens by itself.** Deadlines, revocations and adaptive limits ([`Governor`])
//!   wait for somebody to call.
//!
//! # A backup and a restore of one database
//!
//! ```
//! use throttle::{Admission, Class, Limits, ManualClock, Policy, Request, Resource, Rule, Scope};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Policy::new()
//!     .class(Class::new("data").alias("full"))
//!     .class(Class::new("log"))
//!     .class(Class::new("restore"))
//!     .rule(Scope::Item, "data/log", Rule::Allow);
//! let admission = Admission::new(Limits::new().node("streams", 4), ManualClock::new());
//! admission.register("sqlite", policy.compile()?)?;
//!
//! let orders = || Resource::item("sqlite/main/orders.db");
//! let ask = |owner: &str, class: &str| {
//!     Request::new(owner).exclusion("sqlite", orders(), class).capacity(
//!         Resource::node(),
//!         "streams",
//!         1,
//!     )
//! };
//!
//! let full = admission.try_acquire(ask("nightly", "full"))?;
//! let log = admission.try_acquire(ask("frequent", "log"))?;
//! let refused = admission.try_acquire(ask("urgent", "restore")).unwrap_err();
//! assert_eq!(refused.to_string(), "request of urgent would have to wait for nightly");
//!
//! drop((full, log));
//! admission.try_acquire(ask("urgent", "restore"))?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod acquire;
mod acquire_error;
mod adaptive;
mod admission;
mod clock;
mod core;
mod drain;
mod explain;
mod limits;
mod manual_clock;
mod metrics;
mod permit;
mod policy;
mod prepared;
mod priority;
mod rate;
mod reacquire;
mod request;
mod request_id;
mod resource;
mod shared;
mod snapshot;
mod sync;
mod ticket;
mod waiting;
mod wakers;

pub use acquire::Acquire;
pub use acquire_error::{AcquireError, AcquireErrorKind, Conflict};
pub use adaptive::{
    Bearable, ChunkLatency, Controller, Governor, ManualPressure, Pressure, PressureStall,
    StallFile,
};
pub use admission::Admission;
pub use clock::{Clock, Instant, SystemClock};
pub use drain::Drain;
pub use limits::Limits;
pub use manual_clock::ManualClock;
pub use metrics::{Bounds, Counts, Histogram, Metrics, OvertakeBounds, Subject, WaitBounds};
pub use permit::Permit;
pub use policy::{
    Class, CompiledPolicy, Conditional, EngineVersion, Policy, PolicyError, PolicyErrorKind, Rule,
};
pub use prepared::Prepared;
pub use priority::Priority;
pub use rate::{AcquireBytes, ByteRate, Rate, Sleep, Sleeping};
pub use reacquire::Reacquire;
pub use request::{Claim, Request};
pub use request_id::RequestId;
pub use resource::{Resource, Scope};
pub use snapshot::{Blocker, Holding, LimitUse, Relation, Snapshot, Standing, Waiting};
