//! Whoever has written a plugin wants to know whether it does what an agent relies on, wherever the
//! agent runs it: linked, in its own process, in others.
//!
//! ```text
//! cargo run -p plugin-sqlite --example conform_sqlite [linked|in-process|isolated]
//! ```
//!
//! The fixture that says what is backed up is the tests' own. This program is itself what becomes
//! the process of the isolated plugin, so nothing else has to be installed. It prints a table for
//! each mode, and exits with 1 if something does not hold that must.

#![allow(clippy::unwrap_used, reason = "what the fixture needs is there, or the run is over")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/databases.rs"]
mod databases;
#[path = "../tests/common/stage.rs"]
#[allow(dead_code, reason = "each program uses a part")]
mod stage;

use std::{env, process::ExitCode};

use databases::Databases;
use plugin_sdk::{
    conformance::{Kit, Mode, Subject},
    host::Process,
    runner::serve_if_asked,
};
use plugin_sqlite::Sqlite;

fn main() -> ExitCode {
    serve_if_asked();
    let asked = env::args().nth(1).map(|mode| mode.parse().expect("a mode"));
    let all = vec![Mode::Linked, Mode::InProcess, Mode::Isolated];
    let modes = asked.map_or(all, |mode| vec![mode]);
    let mut exit_code = 0;
    for mode in modes {
        let kit = Kit::new(subject(mode)).fixture(Databases::new()).owning_the_process();
        let report = kit.run();
        println!("{report}");
        exit_code = exit_code.max(report.exit_code());
    }
    ExitCode::from(exit_code)
}

fn subject(mode: Mode) -> Subject {
    // Built together with this program.
    let program = env::current_exe().expect("this program has a path");
    let built = program.ancestors().nth(2).expect("target/<profile>/examples/<program>");
    let library = built.join("deps/libplugin_sqlite.so");
    match mode {
        Mode::Linked => Subject::linked::<Sqlite>(),
        Mode::Isolated => Subject::isolated(library, Process::new()),
        _ => Subject::library(library),
    }
}
