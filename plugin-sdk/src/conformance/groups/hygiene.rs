//! Output, secrets, threads.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Seek, Write},
    os::fd::OwnedFd,
    thread,
    time::Instant,
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::dup,
    stdio::{dup2_stdout, stdout},
};

use super::counted;
use crate::conformance::{
    bench::{Bench, Finding},
    subject::Mode,
};

/// Threads of the SDK's that wait for more work, and leave after a while.
const IDLE: &str = "plugin-job";

/// The host's threads, one for each process of an isolated plugin.
const ATTENDS: &str = "plugin-process";

/// How the process was before the kit began, and where its output goes meanwhile.
pub(super) struct Before {
    threads: BTreeSet<String>,
    /// The real standard output.
    output: OwnedFd,
    written: File,
}

impl Before {
    /// Notes how the process is, if it is the kit's own.
    pub(super) fn now(bench: &Bench) -> Option<Self> {
        bench.owns_process.then(Before::take).and_then(|before| {
            before.inspect_err(|error| tracing::warn!(%error, "output is not watched")).ok()
        })
    }

    fn take() -> io::Result<Self> {
        io::stdout().flush()?;
        let output = dup(stdout())?;
        let written = memfd_create("conformance-output", MemfdFlags::CLOEXEC)?;
        dup2_stdout(&written)?;
        Ok(Before { threads: threads(), output, written: File::from(written) })
    }

    /// What was written to standard output so far.
    fn written(&self) -> io::Result<String> {
        io::stdout().flush()?;
        let mut file = self.written.try_clone()?;
        file.rewind()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        // Without it there is no output for anybody to miss.
        let _ = io::stdout().flush();
        let _ = dup2_stdout(&self.output);
    }
}

/// The names of this process's threads, with their ids.
fn threads() -> BTreeSet<String> {
    let entries = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(format!("{} {}", name.trim(), entry.file_name().to_string_lossy()))
    });
    named.collect()
}

pub(super) fn check(bench: &mut Bench, before: Option<&Before>) {
    let others = || Finding::NotTried("the process is not the kit's own".to_owned());
    let output = before.map_or_else(others, |before| output(bench, before));
    bench.must("standard_output", output);
    let (logged, written) = secrets(bench);
    bench.must("no_secret_in_the_log", logged);
    bench.must("no_secret_written_down", written);
    let left = before.map_or_else(others, |before| match bench.subject.mode() {
        Mode::Isolated => processes_left(bench).into(),
        _ => left(before).into(),
    });
    bench.should("threads", left);
}

fn output(bench: &Bench, before: &Before) -> Finding {
    let written = match bench.subject.mode() {
        // The host has what its processes print in its log.
        Mode::Isolated => match bench.log.lines() {
            Some(_) => Ok(bench.log.printed().join("\n")),
            None => return Finding::NotTried("others have this process's log".to_owned()),
        },
        _ => before.written(),
    };
    match written.map(|written| written.lines().next().map(str::to_owned)) {
        Ok(None) => Finding::Holds("nothing".to_owned()),
        Ok(Some(line)) => Finding::Broken(format!("it writes to standard output: {line}")),
        Err(error) => Finding::Broken(error.to_string()),
    }
}

fn secrets(bench: &Bench) -> (Finding, Finding) {
    let secrets = bench.fixture().map(|fixture| fixture.secrets()).unwrap_or_default();
    if secrets.is_empty() {
        let none = || Finding::NotTried("the fixture names no secret".to_owned());
        return (none(), none());
    }
    let logged = match bench.log.lines() {
        None => Finding::NotTried("others have this process's log".to_owned()),
        Some(lines) => match bench.log.found().first() {
            None => Finding::Holds(format!("{lines} records")),
            Some(line) => {
                Finding::Broken(format!("a secret is in the log: {}", masked(line, &secrets)))
            }
        },
    };
    let written = match bench.written_down(&secrets) {
        None => Finding::Holds("none in requests' answers, records, faults and notes".to_owned()),
        Some(_) => {
            Finding::Broken("a secret is in an answer, a record, a fault or a note".to_owned())
        }
    };
    (logged, written)
}

fn masked(line: &str, secrets: &[String]) -> String {
    secrets.iter().fold(line.to_owned(), |line, secret| line.replace(secret.as_str(), "***"))
}

/// An isolated plugin's threads end with its processes, which end when no instance is left.
fn processes_left(bench: &Bench) -> Result<String, String> {
    bench.rest();
    let attended = || threads().iter().filter(|thread| thread.starts_with(ATTENDS)).count();
    let began = Instant::now();
    while attended() > 0 {
        if began.elapsed() > bench.patience {
            return Err(format!(
                "{} go on when no instance is left",
                counted(attended(), "process")
            ));
        }
        thread::yield_now();
    }
    Ok("none of its processes is left".to_owned())
}

fn left(before: &Before) -> Result<String, String> {
    let now = threads();
    let new: Vec<_> = now.difference(&before.threads).collect();
    let strangers: Vec<_> = new.iter().filter(|thread| !thread.starts_with(IDLE)).collect();
    match strangers.first() {
        None => Ok(format!("{} idle", new.len())),
        Some(thread) => {
            let name = thread.rsplit_once(' ').map_or(thread.as_str(), |(name, _)| name);
            Err(format!("{} go on when no instance is left: {name}", strangers.len()))
        }
    }
}
