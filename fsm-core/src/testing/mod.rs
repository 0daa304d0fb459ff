//! What a test of a machine needs: everything that can go wrong, one thing after the other.
//!
//! **Promise.** A [`Trial`] that passes has killed the process at each write of the journal, or
//! repeated each step, or failed it for once, and after each of these the run has come to the same
//! end, by the same states, with the same effects under the same keys. Or it has failed each step
//! for good, or cancelled it, and what must always hold did. One that fails says what
//! differs, in which schedule, and how to play that schedule again.
//!
//! A printer that must not print an invoice twice:
//!
//! ```
//! use std::{collections::BTreeSet, sync::{Arc, Mutex}};
//! use fsm_core::{Context, Hosted, Machine, State, Step, check, go, testing::Trial};
//! use serde::{Deserialize, Serialize};
//!
//! /// The outside world: the sheets in the tray, by the key under which they were printed.
//! #[derive(Clone, Default)]
//! struct Printer(Arc<Mutex<BTreeSet<String>>>);
//!
//! struct Invoices;
//! #[derive(Serialize, Deserialize)]
//! struct Print { sheets: u32 }
//! #[derive(Serialize, Deserialize)]
//! struct Done;
//!
//! impl Machine for Invoices {
//!     const NAME: &'static str = "invoices";
//!     type Host = Printer;
//!     type Initial = Print;
//!     type States = (Print, Done);
//! }
//! check!(Invoices);
//!
//! impl State<Invoices> for Print {
//!     const NAME: &'static str = "print";
//!     type Next = (Print, Done);
//!     async fn run(self, _: &Invoices, cx: &mut Context<'_, Invoices>) -> Step<Self> {
//!         let tray = Arc::clone(&cx.host().0);
//!         cx.effect("sheet", async |sheet| Ok(tray.lock().unwrap().insert(sheet.key))).await?;
//!         if self.sheets > 1 { go(Print { sheets: self.sheets - 1 }) } else { go(Done) }
//!     }
//! }
//! impl State<Invoices> for Done {
//!     const NAME: &'static str = "done";
//!     type Next = ();
//! }
//!
//! let trial = Trial::new("invoices", &Print { sheets: 2 })
//!     .world(Printer::default)
//!     .machine(|printer| Hosted::new(Invoices, printer.clone()))
//!     .observe(|printer| printer.0.lock().unwrap().clone());
//!
//! let report = trial.crash_everywhere()?;
//! assert!(report.deaths() > 100);
//! // 84 schedules, 156 deaths, 60 steps run again, 60 effects run again under their key, 0 lost
//! println!("{report}");
//! trial.repeat_every_effect()?;
//! # Ok::<(), fsm_core::testing::TrialError>(())
//! ```
//!
//! | to test | see |
//! | --- | --- |
//! | a machine | [`Trial`], [`EdgeCoverage`] |
//! | what happens over time, or at once | [`ManualEnvironment`], [`for_each_seed`] |
//! | a journal | [`journal_suite`], [`Medium`] |
//! | what a failing journal does | [`Intercepted`] |
//!
//! **What a trial can see.** Time passes only when everything stands still, so a step's work must
//! be done when its future is polled, or wait for the journal: a step that waits for another thread
//! looks to the trial as if it hung, and there is no reactor of tokio. Timers, sockets and the like
//! belong behind the machine's [`Host`](crate::Machine::Host).

mod coverage;
mod draw;
mod environment;
mod error;
mod executor;
mod intercepted;
mod meddler;
mod medium;
mod play;
mod process;
mod report;
mod schedule;
mod seeds;
mod suite;
mod trace;
mod trial;

pub use coverage::EdgeCoverage;
pub use environment::ManualEnvironment;
pub use error::{TrialError, TrialErrorKind};
pub use intercepted::Intercepted;
pub use medium::{Damage, Medium};
pub use report::TrialReport;
pub use seeds::for_each_seed;
pub use suite::{SuiteFailure, SuiteReport, journal_suite};
pub use trial::Trial;
