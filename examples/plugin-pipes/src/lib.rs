//! A sample plugin: saves what programs pass it through pipes, and gives it back.
//!
//! Some systems do not let themselves be backed up: they start a program of their vendor's, hand it
//! pipes, and write into them. This is the least that works in that manner. The program is `pipes`;
//! it calls the agent, passes its pipes on, and has nothing more to do with the bytes:
//!
//! ```text
//! pipes save    /run/mercury/pipes/door.sock orders data=/tmp/fifo-1 log=/tmp/fifo-2
//! pipes restore /run/mercury/pipes/door.sock orders call-1767225600000-5bd1e995/1 data=/tmp/fifo-3
//! ```
//!
//! A call becomes an operation of its own. Or the agent begins: then the plugin runs the command of
//! its configuration, which is to make the system start `pipes`, and the calls that come of it are
//! attached to that operation.
//!
//! | module | is |
//! | --- | --- |
//! | [`talk`] | what program and plugin say to each other, with descriptors |
//! | [`program`] | the program |
//! | `workload` | where a call belongs |
//! | `save`, `command`, `restore` | the machines |
//! | `flow` | bytes from a pipe to a stream, and back |

#![forbid(unsafe_code)]

mod command;
mod flow;
mod restore;
mod save;
mod workload;

pub mod program;
pub mod talk;

pub use command::{Await, Command};
pub use restore::{GiveBack, Restore, Restored};
pub use save::{Receive, Save};
pub use workload::Pipes;

plugin_sdk::export!(Pipes);
