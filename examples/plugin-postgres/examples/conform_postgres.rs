//! What the conformance kit finds of a plugin whose system is a server: each play makes a backup
//! of a real one, and most of them restore it and start it.
//!
//! ```text
//! cargo run -p plugin-postgres --example conform_postgres [linked|in-process|isolated] [GROUP]...
//! ```
//!
//! It needs PostgreSQL's server programs, and takes minutes. This program is itself what becomes
//! the process of the isolated plugin. It prints a table for each mode, and exits with 1 if
//! something does not hold that must.

#![allow(clippy::unwrap_used, reason = "what the fixture needs is there, or the run is over")]

#[path = "../../support/cluster.rs"]
#[allow(dead_code, unreachable_pub, reason = "each program uses its own part")]
mod cluster;
#[path = "../tests/common/server.rs"]
mod server;

use std::{env, process::ExitCode};

use cluster::Programs;
use plugin_postgres::Postgres;
use plugin_sdk::{
    conformance::{Group, Kit, Mode, Subject},
    host::Process,
    runner::serve_if_asked,
};
use server::Server;

fn main() -> ExitCode {
    serve_if_asked();
    let Some(programs) = Programs::or_skip("the conformance kit") else {
        return ExitCode::from(2);
    };
    let asked = env::args().nth(1).map(|mode| mode.parse().expect("a mode"));
    let all = vec![Mode::Linked, Mode::InProcess, Mode::Isolated];
    let groups: Vec<Group> = env::args().skip(2).map(|g| g.parse().expect("a group")).collect();
    let mut exit_code = 0;
    for mode in asked.map_or(all, |mode| vec![mode]) {
        let kit = Kit::new(subject(mode)).fixture(Server::new(programs.clone())).plays_at_most(3);
        let kit = if groups.is_empty() { kit } else { kit.only(&groups) };
        let report = kit.owning_the_process().run();
        println!("{report}");
        exit_code = exit_code.max(report.exit_code());
    }
    ExitCode::from(exit_code)
}

fn subject(mode: Mode) -> Subject {
    // Built together with this program.
    let program = env::current_exe().expect("this program has a path");
    let built = program.ancestors().nth(2).expect("target/<profile>/examples/<program>");
    let library = built.join("deps/libplugin_postgres.so");
    match mode {
        Mode::Linked => Subject::linked::<Postgres>(),
        Mode::Isolated => Subject::isolated(library, Process::new()),
        _ => Subject::library(library),
    }
}
