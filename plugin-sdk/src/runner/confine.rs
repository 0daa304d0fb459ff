//! What a child does to itself before it loads anything.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal};

use crate::wire::Hello;

/// The exit code of a child that could not begin.
pub(super) const REFUSED: i32 = 70;

/// Ties this process to its parent, closes what it inherited, and takes the connection.
pub(super) fn confine(parent: Option<i32>) -> io::Result<OwnedFd> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before that took effect.
    if parent.is_none() || getppid().map(Pid::as_raw_pid) != parent {
        return Err(io::Error::other("it was not started by an agent, or the agent is gone"));
    }
    close_inherited()?;
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
    // Whoever reads from the standard input reads nothing, and not the conversation.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(socket)
}

/// Closes every descriptor but the standard three. A program's libraries may have opened some
/// without asking for them to be closed on exec.
fn close_inherited() -> io::Result<()> {
    let mut inherited = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        inherited.extend(number.filter(|number| *number > 2));
    }
    // The one by which the list was read is on it, and is closed by now.
    inherited.retain(|number| std::fs::exists(format!("/proc/self/fd/{number}")).unwrap_or(true));
    for number in inherited {
        // SAFETY: it is open, and this runs first in `main`, so that nothing in this program owns
        // a descriptor yet.
        unsafe { rustix::io::close(number) };
    }
    Ok(())
}

/// Sets the limits that the parent wants, and takes care that the agent outlives this process when
/// memory is short.
pub(super) fn limit(hello: &Hello) -> io::Result<()> {
    let limits = [
        (Resource::Core, Some(0)),
        (Resource::As, hello.memory_bytes),
        (Resource::Nofile, hello.files),
    ];
    for (resource, most) in limits {
        let Some(most) = most else { continue };
        let present = rustix::process::getrlimit(resource);
        let most = present.maximum.map_or(most, |maximum| most.min(maximum));
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    // Not in every container is this file there.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    Ok(())
}
