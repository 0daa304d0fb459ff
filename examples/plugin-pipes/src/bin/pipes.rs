//! The program; see [`plugin_pipes::program`].

use std::process::ExitCode;

use plugin_pipes::program::{OPERATION, run};

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let operation = std::env::var(OPERATION).ok();
    run(arguments, operation, &mut std::io::stdout()).into()
}
