//! A plugin in a process of its own: the parent's side.
//!
//! **Promise.** Whatever the plugin does to its own process (a segmentation fault, `abort`,
//! `exit`, an endless loop, too much memory), its requests end with
//! [`TaskFault::Crashed`](crate::abi::TaskFault::Crashed) and nothing else of this process is
//! touched. The child is always killed and reaped, wherever it has gone, with everything that is
//! left in its process group, and it does not outlive its parent. Whatever it writes is doubted: a
//! number that does not fit ends the child, not the agent.
//!
//! **How.** A [`Remote`] starts a child when a request needs one. One thread a child
//! ([`attend`]) starts it, talks to it, watches its deadlines and buries it; the two ends of the
//! conversation meet in a [`Link`](link::Link). What a request asks of its host is answered on
//! that thread ([`work`]), and a stream's bytes go through a memory that both processes see
//! ([`stream`]).

mod attend;
mod child;
mod link;
mod options;
mod output;
mod remote;
mod runner;
mod stream;
mod work;

pub use options::Process;
pub(super) use remote::Template;
pub use runner::Runner;
#[cfg(feature = "runner")]
pub(crate) use runner::{ARGUMENT, this_program_serves};
