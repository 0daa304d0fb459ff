//! The machine of a backup that the agent begins: it runs a command, which is to make the system
//! call.

use std::{
    io,
    pin::pin,
    process::{ExitStatus, Stdio},
};

use futures::{
    channel::oneshot,
    future::{Either, select},
};
use plugin_sdk::{Context, Fault, Host, Machine, Sealed, State, Step, Take, Taken, check, go};
use serde::{Deserialize, Serialize};

use crate::{flow::Program, program::OPERATION, save::seal};

/// Runs the configured command, and saves what it makes the system pass.
#[derive(Clone, Copy, Debug)]
pub struct Command;

impl Machine for Command {
    const NAME: &'static str = "command";
    type Host = Host;
    type Initial = Await;
    type States = (Await, Sealed);
}
check!(Command);

/// Runs the command, and serves the call that comes of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Await {
    pub(crate) command: Vec<String>,
}

impl State<Command> for Await {
    const NAME: &'static str = "await";
    const DOC: &'static str = "Make the system call, save what it passes, and say so.";
    type Next = (Sealed,);

    async fn run(self, _: &Command, cx: &mut Context<'_, Command>) -> Step<Self> {
        let host = cx.host().clone();
        let (take, program) = match host.take("pipes").await? {
            Take::Finished(take) => (take, None),
            Take::Begun(take) => {
                let ended = start(&self.command, host.operation().as_str())?;
                let mut program = Program::receive(called(&host, ended, cx).await?)?;
                program.save(&take, cx).await?;
                (take.finish().await?, Some(program))
            }
        };
        go(Sealed { point: seal(&host, take, program).await? })
    }
}

/// The call that the command leads to. A command that ends well may have left the system to call
/// by itself; one that fails has not.
async fn called(
    host: &Host,
    mut ended: oneshot::Receiver<io::Result<ExitStatus>>,
    cx: &Context<'_, Command>,
) -> Result<Taken, Fault> {
    let mut called = pin!(host.next_call());
    let mut stop = pin!(cx.cancellation().requested());
    match select(&mut called, select(&mut ended, &mut stop)).await {
        Either::Left((taken, _)) => return taken,
        Either::Right((Either::Right(_), _)) => return Err(Fault::cancelled()),
        Either::Right((Either::Left((Ok(Ok(status)), _)), _)) if !status.success() => {
            let message = format!("the command called nobody, and ended with {status}");
            return Err(Fault::permanent("pipes.command", message)
                .advise("see what the command says when an operator runs it"));
        }
        Either::Right((Either::Left(_), _)) => {}
    }
    match select(called, stop).await {
        Either::Left((taken, _)) => taken,
        Either::Right(_) => Err(Fault::cancelled()),
    }
}

/// Starts the command, and a thread that reaps it.
fn start(
    command: &[String],
    operation: &str,
) -> Result<oneshot::Receiver<io::Result<ExitStatus>>, Fault> {
    let (program, arguments) = command.split_first().ok_or_else(|| {
        Fault::user("pipes.no_command", "there is no command that makes the system call")
            .advise("configure one, or let the system call by itself")
    })?;
    let started = std::process::Command::new(program)
        .args(arguments)
        .env(OPERATION, operation)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let mut child = started.map_err(|error| {
        let message = format!("the command {program} cannot be run");
        Fault::user("pipes.command", message).advise("correct the configuration").caused_by(&error)
    })?;
    let (tell, told) = oneshot::channel();
    let reaping = std::thread::Builder::new().name("pipes-command".to_owned());
    reaping.spawn(move || {
        // Perhaps nobody waits for it any more.
        let _ = tell.send(child.wait());
    })?;
    Ok(told)
}
