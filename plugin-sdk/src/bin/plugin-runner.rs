//! The process of an isolated plugin: started by an agent, and of no use to anybody else.

use std::process::ExitCode;

fn main() -> ExitCode {
    plugin_sdk::runner::serve_if_asked();
    eprintln!("plugin-runner is started by an agent, to run a plugin apart from itself");
    ExitCode::from(64)
}
