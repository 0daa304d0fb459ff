//! What a durable step costs: fsm-core on SQLite beside duroxide, doing the same work.
//!
//! A workflow is five steps, one after the other, each of which does nothing. Each contender is a
//! program of its own, because the two bring different versions of the one `sqlite3` that a
//! program can be linked with; rounds go in turn. Every run says how its connections sync, read
//! back from SQLite, and a run that syncs otherwise than the table says is an error. How often
//! the file is synced is counted once more from outside, by `strace`.

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde::Deserialize;

const STEPS: u32 = 5;
const ROUNDS: usize = 5;
/// A run that fails is no measurement, and is done again so many times.
const TRIES: u32 = 10;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let duroxide = build_duroxide()?;
    let fsm_core = PathBuf::from(env!("CARGO_BIN_EXE_durable-fsm-core"));
    let contenders = [
        Contender { name: "duroxide, set to FULL", program: &duroxide, mode: &["full"], level: 2 },
        Contender {
            name: "duroxide as it comes: NORMAL, no sync a commit",
            program: &duroxide,
            mode: &["as-it-comes"],
            level: 1,
        },
        Contender { name: "fsm-core: FULL", program: &fsm_core, mode: &[], level: 2 },
    ];
    // Whoever only wants to know that the benchmark works does not wait for figures.
    let rounds = if std::env::args().any(|argument| argument == "--test") { 1 } else { ROUNDS };
    compare("One workflow at a time", &contenders, Load { workflows: 40, at_once: 1 }, rounds)?;
    compare("8 workflows at a time", &contenders, Load { workflows: 24, at_once: 8 }, rounds)?;
    compare("200 workflows at once", &contenders, Load { workflows: 200, at_once: 200 }, rounds)
}

/// How many workflows, and how many of them at a time.
#[derive(Clone, Copy)]
struct Load {
    workflows: u32,
    at_once: u32,
}

impl Load {
    fn steps(self) -> f64 {
        f64::from(self.workflows * STEPS)
    }
}

struct Contender<'p> {
    name: &'static str,
    program: &'p Path,
    mode: &'static [&'static str],
    /// What `PRAGMA synchronous` must answer.
    level: u8,
}

/// What a contender's program prints.
#[derive(Deserialize)]
struct Report {
    seconds: f64,
    synchronous: u8,
}

/// What a contender has shown so far.
#[derive(Default)]
struct Shown {
    steps_per_second: Vec<f64>,
    failed: u32,
}

/// Runs all contenders in turn and prints their medians, as multiples of the first one's.
fn compare(title: &str, contenders: &[Contender<'_>], load: Load, rounds: usize) -> Result<()> {
    let mut shown: Vec<Shown> = contenders.iter().map(|_| Shown::default()).collect();
    for _ in 0..rounds {
        for (contender, shown) in contenders.iter().zip(&mut shown) {
            let report = contender.run(load, shown)?;
            shown.steps_per_second.push(load.steps() / report.seconds);
        }
    }
    println!("\n{title} ({} in all, {STEPS} steps each)\n", load.workflows);
    println!("| contender | synchronous | steps/s | ratio | syncs | a step | failed runs |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut first = None;
    for (contender, shown) in contenders.iter().zip(&mut shown) {
        shown.steps_per_second.sort_by(f64::total_cmp);
        let median = shown.steps_per_second[rounds / 2];
        let ratio = median / *first.get_or_insert(median);
        let syncs = match contender.syncs_of_work(load) {
            Ok(syncs) => format!("{syncs:.0} | {:.3}", syncs / load.steps()),
            Err(error) => format!("not counted: {error} | -"),
        };
        let (name, level, failed) = (contender.name, contender.level, shown.failed);
        println!("| {name} | {level} | {median:.0} | {ratio:.2} | {syncs} | {failed} |");
    }
    Ok(())
}

impl Contender<'_> {
    /// What `command` prints when it is told where and how much.
    fn command(&self, mut command: Command, directory: &Path, load: Load) -> Result<Output> {
        command.arg(directory);
        command.args([load.workflows, load.at_once].map(|number| number.to_string()));
        Ok(command.args(self.mode).output()?)
    }

    fn run(&self, load: Load, shown: &mut Shown) -> Result<Report> {
        let mut last = String::new();
        for _ in 0..TRIES {
            let directory = directory()?;
            let output = self.command(Command::new(self.program), directory.path(), load)?;
            if output.status.success() {
                return self.report(&output);
            }
            shown.failed += 1;
            last = String::from_utf8_lossy(&output.stderr).into_owned();
        }
        Err(format!("{} failed {TRIES} times, at last: {last}", self.name).into())
    }

    fn report(&self, output: &Output) -> Result<Report> {
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Report = serde_json::from_str(text.lines().last().unwrap_or_default())?;
        if report.synchronous != self.level {
            let found = report.synchronous;
            return Err(format!("{}: `PRAGMA synchronous` says {found}", self.name).into());
        }
        Ok(report)
    }

    /// Calls of `fsync` and `fdatasync`, without those of opening and closing.
    fn syncs_of_work(&self, load: Load) -> Result<f64> {
        let idle = self.syncs(Load { workflows: 0, ..load })?;
        let busy = self.syncs(load)?;
        // A checkpoint less at the end is no work done.
        Ok((busy - idle).max(0.0))
    }

    fn syncs(&self, load: Load) -> Result<f64> {
        let mut last = String::new();
        for _ in 0..TRIES {
            let directory = directory()?;
            let counts = directory.path().join("strace");
            let mut strace = Command::new("strace");
            strace.args(["-f", "-c", "-e", "trace=fsync,fdatasync", "-o"]).arg(&counts);
            strace.arg(self.program);
            let output = self.command(strace, directory.path(), load)?;
            if output.status.success() {
                self.report(&output)?;
                return Ok(calls(&std::fs::read_to_string(&counts)?));
            }
            last = String::from_utf8_lossy(&output.stderr).into_owned();
        }
        Err(last.into())
    }
}

/// The calls in a table of `strace -c`: the fourth column, where the last is a call's name.
fn calls(table: &str) -> f64 {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let syncs = rows.filter(|row| matches!(row.last(), Some(&("fsync" | "fdatasync"))));
    syncs.filter_map(|row| row.get(3)?.parse::<f64>().ok()).sum()
}

/// A place beside what was built: a temporary directory of the system may be in memory, where a
/// sync costs nothing.
fn directory() -> Result<tempfile::TempDir> {
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// Builds the other program, and answers where it is.
fn build_duroxide() -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("duroxide/Cargo.toml");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--quiet", "--message-format=json"]);
    let output = cargo.arg("--manifest-path").arg(manifest).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let messages = String::from_utf8(output.stdout)?;
    let built = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    built
        .filter_map(|message| message.executable)
        .next_back()
        .ok_or_else(|| "nothing was built".into())
}
