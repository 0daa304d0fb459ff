//! Typed, durable state machines.
//!
//! A machine's states are types, and the states that may follow a state are a type too: a
//! transition that was not declared does not compile. The graph (names, docs, edges, policies) is
//! constant data that [`check!`] validates while the compiler runs. What a machine does is
//! journaled one transition at a time, so that a run survives the death of its process and
//! continues from the state that it had reached; code is never replayed.
//!
//! **Promise.** A transition is durable before the next step starts. Effects run at least once,
//! under a key that never changes. A run ends exactly once.
//!
//! ```
//! use fsm_core::{Context, Machine, State, Step, check, go};
//! use serde::{Deserialize, Serialize};
//!
//! struct Turnstile;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Locked { coins: u32 }
//! #[derive(Serialize, Deserialize)]
//! struct Open { coins: u32 }
//!
//! impl Machine for Turnstile {
//!     const NAME: &'static str = "turnstile";
//!     type Host = ();
//!     type Initial = Locked;
//!     type States = (Locked, Open);
//! }
//! check!(Turnstile);
//!
//! impl State<Turnstile> for Locked {
//!     const NAME: &'static str = "locked";
//!     type Next = (Open,);
//!     async fn run(self, _: &Turnstile, _: &mut Context<'_, Turnstile>) -> Step<Self> {
//!         go(Open { coins: self.coins + 1 })
//!     }
//! }
//! impl State<Turnstile> for Open {
//!     const NAME: &'static str = "open";
//!     type Next = ();
//! }
//! ```
//!
//! | to | see |
//! | --- | --- |
//! | describe a machine | [`Machine`], [`State`], [`go`], [`Retry`], [`check!`] |
//! | draw it | [`Graph`] |
//! | run it durably | [`Runtime`], [`Journal`], [`MemoryJournal`], [`sqlite`] (feature `sqlite`) |
//! | put a boundary between machine and runtime | [`AnyMachine`], [`Erased`], [`StepCall`], [`Outcome`] |
//!
//! The crate depends on no async runtime: time and tasks come in through [`Environment`], which
//! [`TokioEnvironment`] (feature `tokio`) is for programs that run tokio.
//! The types of `rusqlite` appear in the signatures of [`sqlite`] and nowhere else.

#![forbid(unsafe_code)]

mod cancellation;
mod check;
mod child;
mod context;
mod data;
mod effect;
mod environment;
mod erased;
mod fault;
mod graph;
mod journal;
mod machine;
mod memory;
mod policy;
mod record;
mod retention;
mod run_id;
mod runtime;
mod signal;
mod snapshot;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod step;
mod successors;
mod summary;
pub mod testing;
mod time;
#[cfg(feature = "tokio")]
mod tokio;
mod wait;

#[cfg(feature = "tokio")]
pub use self::tokio::TokioEnvironment;
pub use cancellation::{Cancellation, Requested};
pub use check::validate;
pub use child::{Child, Spawn};
pub use context::{Context, Port, Progress};
pub use data::Data;
pub use effect::Effect;
pub use environment::Environment;
pub use erased::{AnyMachine, EffectLog, Erased, Hosted, Outcome, StepCall, StepKind, Verdict};
pub use fault::{Class, Fault};
pub use graph::{Graph, GraphError, StateInfo};
pub use journal::{Journal, JournalError, JournalErrorKind, Loaded, Page};
pub use machine::{Cancel, Ending, Machine, State};
pub use memory::MemoryJournal;
pub use policy::Retry;
pub use record::{Body, Carried, Record};
pub use retention::{Pruned, Retention};
pub use run_id::{InvalidRunId, RunId};
pub use runtime::{
    End, Observer, Recovered, RunEvent, RunHandle, Runtime, RuntimeBuilder, RuntimeError,
    RuntimeErrorKind, Watch, Watched,
};
pub use signal::{Pending, Signal};
pub use snapshot::{RunSnapshot, Status};
pub use step::{Go, Step, go, go_at};
pub use successors::{At, Has, States};
pub use summary::{RunSummary, Standing};
pub use time::Timestamp;
pub use wait::{Wait, WaitInfo};
