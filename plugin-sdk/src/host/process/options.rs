//! How a child is started, and what it may use.

use std::ffi::OsString;
use std::time::Duration;

use super::runner::Runner;

/// How an isolated plugin's processes are started, and what each of them may use.
///
/// ```
/// use std::time::Duration;
/// use plugin_sdk::host::Process;
///
/// let process = Process::new().memory_bytes(1 << 30).cancel_grace(Duration::from_secs(10));
/// ```
#[derive(Clone, Debug)]
#[must_use = "these are options: give them to a library"]
pub struct Process {
    pub(super) runner: Runner,
    pub(super) memory_bytes: Option<u64>,
    pub(super) files: Option<u64>,
    pub(super) user: Option<(u32, u32)>,
    pub(super) environment: Vec<OsString>,
    pub(super) start_grace: Duration,
    pub(super) cancel_grace: Duration,
    pub(super) abandon_grace: Duration,
    pub(super) idle: Duration,
    pub(super) crashes: u32,
}

/// What a program and its libraries expect to find; none of it is a secret.
const ENVIRONMENT: [&str; 8] =
    ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "RUST_BACKTRACE"];

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

impl Process {
    /// The runner is found by itself; 4 GiB of memory, 1024 files, the agent's own user; a minute
    /// to end after a cancel, five seconds after being abandoned; given up after five crashes in
    /// a row.
    pub fn new() -> Self {
        Self {
            runner: Runner::found(),
            memory_bytes: Some(4 << 30),
            files: Some(1024),
            user: None,
            environment: ENVIRONMENT.iter().map(OsString::from).collect(),
            start_grace: Duration::from_secs(60),
            cancel_grace: Duration::from_secs(60),
            abandon_grace: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            crashes: 5,
        }
    }

    /// The program that becomes the child.
    pub fn runner(mut self, runner: Runner) -> Self {
        self.runner = runner;
        self
    }

    /// How many bytes of addresses a child may map (`RLIMIT_AS`). An allocation beyond that
    /// fails, which usually ends the child.
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = Some(bytes);
        self
    }

    /// How many files a child may have open (`RLIMIT_NOFILE`).
    pub fn files(mut self, files: u64) -> Self {
        self.files = Some(files);
        self
    }

    /// Children run as this user and group, without supplementary groups. The agent must be
    /// allowed to change to them, which root is.
    pub fn user(mut self, user: u32, group: u32) -> Self {
        self.user = Some((user, group));
        self
    }

    /// Lets children see this variable of the agent's environment, too. They see `PATH`, `HOME`,
    /// `LANG`, `LC_ALL`, `TZ`, `TMPDIR`, `LD_LIBRARY_PATH` and `RUST_BACKTRACE` in any case.
    pub fn environment(mut self, variable: impl Into<OsString>) -> Self {
        self.environment.push(variable.into());
        self
    }

    /// How long a child may take to load the library and to make an instance before it is killed.
    pub fn start_grace(mut self, grace: Duration) -> Self {
        self.start_grace = grace;
        self
    }

    /// How long a request may go on after it was cancelled, before its process is killed.
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.cancel_grace = grace;
        self
    }

    /// How long anything of a request may be left after its answer, or after it was abandoned,
    /// before its process is killed.
    pub fn abandon_grace(mut self, grace: Duration) -> Self {
        self.abandon_grace = grace;
        self
    }

    /// How long the process of requests that belong to no run is kept without a request.
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// After how many crashes in a row, without an answer in between, a run's requests are
    /// refused ([`Crash::GivenUp`](crate::abi::Crash::GivenUp)).
    pub fn crashes(mut self, crashes: u32) -> Self {
        self.crashes = crashes.max(1);
        self
    }
}
