//! The process of an isolated plugin: the child's side.
//!
//! A program that says so in its `main` can be started again as the process of a plugin that it
//! isolates, so that nothing else has to be installed:
//!
//! ```no_run
//! // The first line of `main`, before a runtime is started:
//! plugin_sdk::runner::serve_if_asked();
//! ```
//!
//! **Promise.** The child holds nothing of its parent's but one connection: no other descriptor,
//! none of its environment but what was asked for, no core dump. It ends when its parent ends,
//! however that happens.
//!
//! **How.** It confines itself (`confine`), then loads the library as any host does, and serves
//! requests from the connection (`serve`). What the plugin asks of its host goes to the parent
//! (`calls`); a stream's buffers are slots of a memory that both see (`sink`).

mod calls;
mod confine;
mod connection;
mod serve;
mod sink;
mod source;

use std::ffi::OsStr;

use crate::host::{ARGUMENT, this_program_serves};

/// Serves as the process of a plugin if this process was started for that, and does not return
/// then. Otherwise it notes that this program can be started again for that, and returns.
///
/// The first line of `main`: what a program does before, it does in each of its plugins'
/// processes, too, and what it has opened by then is closed under it. Under `#[tokio::main]` a
/// runtime is there already; let such a function be called by an ordinary `main`.
pub fn serve_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() != Some(OsStr::new(ARGUMENT)) {
        this_program_serves();
        return;
    }
    let parent = arguments.next().and_then(|parent| parent.to_str()?.parse().ok());
    let code = match confine::confine(parent) {
        Ok(socket) => serve::serve(socket),
        Err(error) => {
            eprintln!("the process of a plugin cannot begin: {error}");
            confine::REFUSED
        }
    };
    std::process::exit(code)
}
