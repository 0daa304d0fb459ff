//! A vendor has built a plugin, in whatever language, and wants to know whether it does what an
//! agent relies on:
//!
//! ```text
//! cargo run --features conformance --example conform -- path/to/libacme.so --fixture acme.toml
//! ```
//!
//! Prints a table, or JSON with `--json`, and exits with 0 if everything holds that must, 1 if
//! something does not, 2 if it could not be tried. `docs/writing-a-plugin.md` says how to read the
//! table, and `greeting.toml` beside this file is a fixture. Without one only the library, its
//! manifest and its answers to requests that make no sense are checked.

use std::{env, path::Path, process::ExitCode, time::Duration};

use plugin_sdk::conformance::{CommandFixture, Group, Kit, Mode, Report, Subject};

const USAGE: &str = "usage: conform LIBRARY [--fixture FILE] [--mode MODE] [--only GROUP]... \
                     [--plays NUMBER] [--grace SECONDS] [--json]";

fn main() -> ExitCode {
    match conform(env::args().skip(1)) {
        Ok((report, json)) => {
            match json {
                true => println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default()),
                false => println!("{report}"),
            }
            ExitCode::from(report.exit_code())
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// Does what the arguments say; the answer is the report, and whether it is wanted as JSON.
fn conform(mut arguments: impl Iterator<Item = String>) -> Result<(Report, bool), String> {
    let (mut library, mut fixture, mut only, mut json) = (None, None, Vec::new(), false);
    let (mut mode, mut plays, mut grace) = (Mode::InProcess, None, None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--fixture" => fixture = Some(value()?),
            "--mode" => mode = value()?.parse()?,
            "--only" => only.push(value()?.parse::<Group>()?),
            "--plays" => plays = Some(number(&value()?)?),
            "--grace" => grace = Some(number(&value()?)?),
            "--json" => json = true,
            option if option.starts_with('-') => {
                return Err(format!("unknown option {option}\n{USAGE}"));
            }
            _ if library.is_none() => library = Some(argument),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let library = library.ok_or(USAGE)?;
    let mut kit = Kit::new(subject(&library, mode)?).owning_the_process();
    if let Some(fixture) = fixture {
        let read = CommandFixture::read(Path::new(&fixture));
        kit = kit.fixture(read.map_err(|error| format!("{fixture}: {error}"))?);
    }
    if !only.is_empty() {
        kit = kit.only(&only);
    }
    if let Some(plays) = plays {
        kit = kit.plays_at_most(plays);
    }
    if let Some(grace) = grace {
        kit = kit.grace(Duration::from_secs(grace as u64));
    }
    Ok((kit.run(), json))
}

fn subject(library: &str, mode: Mode) -> Result<Subject, String> {
    match mode {
        Mode::InProcess => Ok(Subject::library(library)),
        other => Err(format!("a library does not run {other}")),
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}
