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
//!
//! `--mode isolated` checks the library in processes of its own, as an agent runs what it does not
//! know, and `--mode all` both there and here. This program is itself what becomes such a process.

use std::{env, path::Path, process::ExitCode, time::Duration};

use plugin_sdk::{
    conformance::{CommandFixture, Group, Kit, Mode, Report, Subject},
    host::Process,
    runner::serve_if_asked,
};

const USAGE: &str = "usage: conform LIBRARY [--fixture FILE] [--mode in-process|isolated|all] \
                     [--only GROUP]... [--plays NUMBER] [--grace SECONDS] [--json]";

fn main() -> ExitCode {
    serve_if_asked();
    match Wanted::read(env::args().skip(1)).and_then(|wanted| wanted.conform()) {
        Ok(reports) => ExitCode::from(reports.iter().map(Report::exit_code).max().unwrap_or(0)),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// What the arguments say.
struct Wanted {
    library: String,
    fixture: Option<String>,
    modes: Vec<Mode>,
    only: Vec<Group>,
    plays: Option<usize>,
    grace: Option<Duration>,
    json: bool,
}

impl Wanted {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut library, mut fixture, mut only, mut json) = (None, None, Vec::new(), false);
        let (mut modes, mut plays, mut grace) = (vec![Mode::InProcess], None, None);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--fixture" => fixture = Some(value()?),
                "--mode" => modes = self::modes(&value()?)?,
                "--only" => only.push(value()?.parse::<Group>()?),
                "--plays" => plays = Some(number(&value()?)?),
                "--grace" => grace = Some(Duration::from_secs(number(&value()?)? as u64)),
                "--json" => json = true,
                option if option.starts_with('-') => {
                    return Err(format!("unknown option {option}\n{USAGE}"));
                }
                _ if library.is_none() => library = Some(argument),
                _ => return Err(USAGE.to_owned()),
            }
        }
        let library = library.ok_or(USAGE)?;
        Ok(Wanted { library, fixture, modes, only, plays, grace, json })
    }

    /// Checks the library in each mode, and prints what came of it: a table each as soon as it is
    /// there, or JSON in the end, a list if it is several.
    fn conform(&self) -> Result<Vec<Report>, String> {
        let mut reports = Vec::new();
        for mode in &self.modes {
            let report = self.kit(*mode)?.run();
            if !self.json {
                println!("{report}");
            }
            reports.push(report);
        }
        let json = match &reports[..] {
            [report] => serde_json::to_string_pretty(report),
            several => serde_json::to_string_pretty(several),
        };
        if self.json {
            println!("{}", json.map_err(|error| error.to_string())?);
        }
        Ok(reports)
    }

    fn kit(&self, mode: Mode) -> Result<Kit, String> {
        let subject = match mode {
            Mode::InProcess => Subject::library(&self.library),
            Mode::Isolated => Subject::isolated(&self.library, Process::new()),
            other => return Err(format!("a library does not run {other}")),
        };
        let mut kit = Kit::new(subject).owning_the_process();
        if let Some(fixture) = &self.fixture {
            let read = CommandFixture::read(Path::new(fixture));
            kit = kit.fixture(read.map_err(|error| format!("{fixture}: {error}"))?);
        }
        if !self.only.is_empty() {
            kit = kit.only(&self.only);
        }
        if let Some(plays) = self.plays {
            kit = kit.plays_at_most(plays);
        }
        if let Some(grace) = self.grace {
            kit = kit.grace(grace);
        }
        Ok(kit)
    }
}

/// The modes of this name. Isolated first: what ends a process ends this one last.
fn modes(name: &str) -> Result<Vec<Mode>, String> {
    match name {
        "all" => Ok(vec![Mode::Isolated, Mode::InProcess]),
        name => Ok(vec![name.parse()?]),
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}
