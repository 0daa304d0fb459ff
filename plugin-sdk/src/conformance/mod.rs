//! The conformance kit: proves that a plugin does what a host relies on.
//!
//! A [`Kit`] is a host for tests. It drives the plugin's machines through `fsm-core`'s runtime with
//! a journal and an [archive](MemoryArchive) in memory and a clock of its own, and disturbs them:
//! the process dies at each call of a step, each service fails, each run is asked to stop
//! everywhere. After each play it looks at the item through the author's [`Fixture`]: is the content
//! the same, is anything left?
//!
//! ```no_run
//! # use plugin_sdk::conformance::{Fixture, Kit, Subject};
//! # fn fixture() -> Box<dyn FnOnce(Kit) -> Kit> { unimplemented!() }
//! # fn with(kit: Kit) -> Kit { fixture()(kit) }
//! let kit = Kit::new(Subject::library("/path/to/libacme.so"));
//! # let kit = with(kit); // .fixture(AcmeFixture::new())
//! let report = kit.run();
//! println!("{report}");
//! assert!(report.passed());
//! ```
//!
//! **Promise.** A [`Report`] that [passed](Report::passed) has tried what it says, and nothing
//! of it was broken. What could not be tried is in it, with the reason. Checks are of two
//! [grades](Grade): what must hold, and what should.
//!
//! **Where the plugin runs.** The same checks run whether the plugin is [linked](Subject::linked),
//! [loaded](Subject::library) or [isolated](Subject::isolated). Isolated, each process of a play is
//! a process, and one that dies is killed: nothing of the plugin's is dropped or tidied up.
//!
//! **What it cannot see.** A step that never awaits cannot be killed in the kit's own process; it
//! is waited for. How the plugin's own system behaves when power is lost is not tried.

mod archive;
mod bench;
mod commands;
mod desk;
mod fixture;
mod floor;
mod groups;
mod kit;
mod patience;
mod play;
mod report;
mod streams;
mod subject;
mod watch_log;
mod watched;

pub use archive::{MemoryArchive, StoredPoint};
pub use commands::CommandFixture;
pub use fixture::{Fixture, FixtureError};
pub use kit::Kit;
pub use report::{Check, Grade, Group, Report, Verdict};
pub use subject::{Mode, Subject};
