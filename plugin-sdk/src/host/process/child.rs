//! The child as the operating system knows it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use super::options::Process;
use super::runner::ARGUMENT;
use crate::abi::Crash;

/// A child process and what leads to it. It is killed and reaped when this drops.
pub(super) struct Child {
    process: std::process::Child,
    reaped: bool,
    pid: Pid,
    /// Readable once the process has ended.
    pidfd: OwnedFd,
    plugin: PathBuf,
    pub(super) socket: Arc<OwnedFd>,
    pub(super) output: OwnedFd,
    pub(super) errors: OwnedFd,
}

impl Child {
    /// Starts the runner. The calling thread has to stay: the system kills the child when the
    /// thread that started it ends.
    pub(super) fn spawn(runner: &Path, plugin: &Path, options: &Process) -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let mut command = Command::new(runner);
        command
            .arg0("plugin-runner")
            .arg(ARGUMENT)
            .arg(std::process::id().to_string())
            .arg(plugin.file_name().unwrap_or(plugin.as_os_str()))
            // The connection is what the child finds as its input: no number to agree on, and
            // nothing to inherit by accident.
            .stdin(OwnedFd::from(far))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_clear()
            .process_group(0);
        for name in &options.environment {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some((user, group)) = options.user {
            command.gid(group).uid(user);
        }
        let mut process = command.spawn()?;
        let pid = Pid::from_child(&process);
        let pidfd = pidfd_open(pid, PidfdFlags::empty());
        let (output, errors) = (process.stdout.take(), process.stderr.take());
        let (Ok(pidfd), Some(output), Some(errors)) = (pidfd, output, errors) else {
            // Neither is ever missing on a system that has the calls.
            let _ = process.kill();
            let _ = process.wait();
            return Err(io::Error::other("the system has no pidfd_open"));
        };
        let (output, errors) = (OwnedFd::from(output), OwnedFd::from(errors));
        for pipe in [&output, &errors] {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let socket = Arc::new(OwnedFd::from(near));
        Ok(Self {
            process,
            reaped: false,
            pid,
            pidfd,
            plugin: plugin.to_owned(),
            socket,
            output,
            errors,
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The library that it is to load.
    pub(super) fn plugin(&self) -> &Path {
        &self.plugin
    }

    /// Readable once the process has ended.
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Kills the process and its group. It is not reaped yet, so its number is still its own.
    pub(super) fn kill(&self) {
        // The process by itself, too: it may have gone to another group, the agent's for one.
        // Nothing is left to be killed if they have ended.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = kill_process_group(self.pid, Signal::KILL);
    }

    /// Kills what is left of the group, and reaps the process.
    pub(super) fn bury(mut self) -> io::Result<ExitStatus> {
        self.kill();
        // From here on the number may be somebody else's.
        self.reaped = true;
        self.process.wait()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.process.wait();
        }
    }
}

/// What a status says to whoever waited for an answer.
pub(super) fn crash(status: io::Result<ExitStatus>) -> Crash {
    match status {
        Ok(status) => match (status.signal(), status.code()) {
            (Some(signal), _) => Crash::Signal(signal),
            (None, code) => Crash::Exited(code.unwrap_or_default()),
        },
        // Somebody else in this program has reaped it.
        Err(_) => Crash::Exited(-1),
    }
}
