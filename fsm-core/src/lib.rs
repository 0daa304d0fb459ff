//! Typed, durable state machines.
//!
//! A machine's states are types, and the states that may follow a state are a type too: a
//! transition that was not declared does not compile. The graph (names, docs, edges, policies) is
//! constant data that [`check!`] validates while the compiler runs. What a machine does is
//! journaled one transition at a time, so that a run survives the death of its process and
//! continues from the state that it had reached; code is never replayed.
//!
//! **Promise.** A transition is durable before the next step starts. A run ends exactly once, and
//! what was asked of it (start, signal, cancel) is durable when the call returns. A run that waits,
//! for a time, a signal, a child or an operator, is a row and no task. One that cannot be continued
//! is set aside, visibly, and stops no other.
//!
//! **Not promised.** Effects on the outside world run *at least* once, under a key that never
//! changes: a process may die between doing a thing and writing it down. One journal is used by one
//! process at a time.
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
//! In a program: open the store, register every machine, [`recover`](Runtime::recover), and only then
//! start what is wanted, under ids that say what it is; [`stop`](Runtime::stop) before the end. The
//! example `agent` is such a `main`, over SQLite and tokio.
//!
//! | to | see |
//! | --- | --- |
//! | describe a machine | [`Machine`], [`State`], [`go`], [`check!`]; [how to write one that lasts](docs::authoring) |
//! | change the outside world | [`Context::effect`], [`Context::once`]; services in [`Machine::Host`] |
//! | try again, give up | [`Fault`], [`Retry`], [`State::on_exhausted`], [`State::on_interrupted`] |
//! | wait for a time | [`go_at`], [`Wait::at_most`]; for the whole run [`Runtime::start_by`] |
//! | wait for somebody outside | [`Signal`], [`State::WAIT`], [`Context::take`], [`Runtime::tell`] |
//! | divide the work | [`Context::spawn`], [`Wait::for_children`], [`Context::children`] |
//! | stop, and undo | [`Runtime::cancel`], [`State::on_cancel`], [`Cancel`], [`Context::cancellation`] |
//! | run it durably | [`Runtime`], [`Hosted`], [`MemoryJournal`], `sqlite` (feature `sqlite`) |
//! | run it on an executor | [`Environment`], `TokioEnvironment` (feature `tokio`), [`testing::ManualEnvironment`] |
//! | go on after a restart | [`Runtime::recover`], [`Runtime::attach`] |
//! | change it while runs are under way | [`Machine::VERSION`], [`Machine::migrate`], [`Runtime::quarantined`] |
//! | operate it | [`Runtime::pause`], [`Runtime::resume`], [`Runtime::redrive`], [`Runtime::abandon`] |
//! | see what runs do | [`Runtime::inspect`], [`Runtime::list`], [`Runtime::history`], [`Runtime::watch`], [`Observer`] |
//! | draw it | [`Graph::to_mermaid`], [`Graph::to_dot`], [`Graph::to_text`] |
//! | test it: every crash, fault and cancel | [`testing::Trial`], [`testing::ManualEnvironment`], [`Context::alone`] |
//! | forget what is long over | [`Runtime::prune`], [`Retention`] |
//! | keep a machine from using all threads | [`RuntimeBuilder::concurrency`] |
//! | start a run in your own transaction | [`Runtime::first_record`], [`Runtime::launch`], [`Runtime::revoke`] |
//! | write a journal of your own | [`Journal`], [`RunSnapshot::fold`], [`testing::journal_suite`] |
//! | put a boundary between machine and runtime | [`AnyMachine`], [`Erased`], [`StepCall`], [`Outcome`] |
//!
//! # Executors
//!
//! Time, tasks and chance come in through the four methods of [`Environment`]. Nothing presupposes
//! an async runtime; this one is made of threads:
//!
//! ```
//! use std::{future::Future, hash::{BuildHasher, Hasher, RandomState}, pin::Pin, thread, time::{Duration, SystemTime}};
//! use fsm_core::{Environment, Timestamp};
//!
//! type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
//!
//! /// A thread for each task, and one for each timer.
//! #[derive(Debug)]
//! struct Threads;
//!
//! impl Environment for Threads {
//!     fn now(&self) -> Timestamp {
//!         let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
//!         Timestamp::from_unix_ms(now.as_millis() as u64)
//!     }
//!
//!     fn sleep_until(&self, at: Timestamp) -> Task {
//!         // To wake early is allowed; to miss that somebody has set the clock is not.
//!         let left = at.since(self.now()).min(Duration::from_secs(60));
//!         let (ring, bell) = futures::channel::oneshot::channel();
//!         thread::spawn(move || (thread::sleep(left), ring.send(())));
//!         Box::pin(async { drop(bell.await) })
//!     }
//!
//!     fn spawn(&self, task: Task) {
//!         thread::spawn(|| futures::executor::block_on(task));
//!     }
//!
//!     fn random(&self) -> u64 {
//!         RandomState::new().build_hasher().finish()
//!     }
//! }
//! # use fsm_core::{Context, Data, Hosted, Machine, MemoryJournal, Runtime, State, Step, check, go, go_at};
//! # use serde::{Deserialize, Serialize};
//! # struct Egg;
//! # #[derive(Serialize, Deserialize)] struct Raw {}
//! # #[derive(Serialize, Deserialize)] struct Boiled {}
//! # #[derive(Serialize, Deserialize)] struct Peeled {}
//! # impl Machine for Egg {
//! #     const NAME: &'static str = "egg";
//! #     type Host = (); type Initial = Raw; type States = (Raw, Boiled, Peeled);
//! # }
//! # check!(Egg);
//! # impl State<Egg> for Raw {
//! #     const NAME: &'static str = "raw"; type Next = (Boiled,);
//! #     async fn run(self, _: &Egg, cx: &mut Context<'_, Egg>) -> Step<Self> {
//! #         go_at(cx.now() + Duration::from_millis(20), Boiled {})
//! #     }
//! # }
//! # impl State<Egg> for Boiled {
//! #     const NAME: &'static str = "boiled"; type Next = (Peeled,);
//! #     async fn run(self, _: &Egg, _: &mut Context<'_, Egg>) -> Step<Self> { go(Peeled {}) }
//! # }
//! # impl State<Egg> for Peeled { const NAME: &'static str = "peeled"; type Next = (); }
//! # let runtime = Runtime::builder(MemoryJournal::new(), Threads).build();
//! # runtime.register(Hosted::new(Egg, ()), "example")?;
//! # let end = futures::executor::block_on(async {
//! #     let run = runtime.begin::<Egg>("egg".parse()?, &Raw {}).await?;
//! #     Ok::<_, Box<dyn std::error::Error>>(run.end().await?)
//! # })?;
//! # assert_eq!(end.state, "peeled");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Types of other crates
//!
//! `BoxFuture` and `Stream` of `futures` appear in the traits and in [`Watch`]; the former is a
//! name for a pinned box. Those of `rusqlite` appear in `sqlite`, and tokio's `Handle` in
//! `TokioEnvironment`, and nowhere else.

#![forbid(unsafe_code)]

mod cancellation;
mod check;
mod child;
mod context;
mod data;
pub mod docs;
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

// The README's code is compiled, and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
