//! Bytes from a pipe to a stream, and back. No pipe keeps a step that was asked to stop, nor does
//! one whose program has gone.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    pin::pin,
};

use futures::future::{Either, select, try_join_all};
use plugin_sdk::{
    Blocking, Context, Fault, Host, Machine, OpenTake, PointId, Sink, Source, Taken, blocking,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};

use crate::talk::{Hello, Passed, Talk, ToProgram};

/// So much is read at once.
const CHUNK_BYTES: usize = 1 << 20;
/// How long nobody looks whether the program is still there.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// A program that has passed its pipes.
pub(crate) struct Program {
    pub(crate) talk: Talk,
    pipes: Vec<Pipe>,
}

/// A pipe of a program's.
struct Pipe {
    name: String,
    pipe: OwnedFd,
    program: OwnedFd,
}

impl Program {
    /// Takes the pipes of a program whose call a step has.
    pub(crate) fn receive(taken: Taken) -> Result<Self, Fault> {
        let hello: Hello = serde_json::from_slice(&taken.call.first)
            .map_err(|error| Fault::bug("pipes.hello", "it was read before").caused_by(&error))?;
        let mut talk = Talk::over(UnixStream::from(taken.connection)).map_err(gone)?;
        talk.say(&ToProgram::Go).map_err(gone)?;
        let mut pipes = Vec::new();
        for name in hello.pipes {
            let (passed, pipe) = talk.hear::<Passed>().map_err(gone)?;
            let pipe = pipe.filter(|_| passed.pipe == name).ok_or_else(|| {
                let message = format!("the program did not pass the pipe `{name}`");
                Fault::permanent("pipes.not_passed", message)
            })?;
            // The program has given it away: nobody else reads it, or writes to it.
            let flags = rustix::fs::fcntl_getfl(&pipe).map_err(io::Error::from)?;
            rustix::fs::fcntl_setfl(&pipe, flags | OFlags::NONBLOCK).map_err(io::Error::from)?;
            pipes.push(Pipe { name, pipe, program: talk.watch()? });
        }
        Ok(Program { talk, pipes })
    }

    /// Saves what comes out of all pipes, each as a stream of its name.
    pub(crate) async fn save<M: Machine<Host = Host>>(
        &mut self,
        take: &OpenTake,
        cx: &Context<'_, M>,
    ) -> Result<(), Fault> {
        let mut copies = Vec::new();
        for pipe in std::mem::take(&mut self.pipes) {
            let sink = take.stream(&pipe.name).await?;
            copies.push(blocking(move |cx| pipe.save(cx, sink)));
        }
        self.report(unless_cancelled(cx, try_join_all(copies)).await?)
    }

    /// Writes streams of `point` into all pipes.
    pub(crate) async fn give_back<M: Machine<Host = Host>>(
        &mut self,
        point: &PointId,
        cx: &Context<'_, M>,
    ) -> Result<(), Fault> {
        let mut copies = Vec::new();
        for pipe in std::mem::take(&mut self.pipes) {
            let source = cx.host().source(point, &pipe.name).await?;
            copies.push(blocking(move |cx| pipe.give_back(cx, &source)));
        }
        self.report(unless_cancelled(cx, try_join_all(copies)).await?)
    }

    fn report(&mut self, done: Vec<(String, u64)>) -> Result<(), Fault> {
        for (pipe, bytes) in done {
            self.talk.say(&ToProgram::Done { pipe, bytes }).map_err(gone)?;
        }
        Ok(())
    }
}

async fn unless_cancelled<M: Machine<Host = Host>, T>(
    cx: &Context<'_, M>,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match select(pin!(work), cx.cancellation().requested()).await {
        Either::Left((done, _)) => done,
        // The copies look up, and see that nobody waits for them.
        Either::Right(_) => Err(Fault::cancelled()),
    }
}

impl Pipe {
    fn save(self, cx: &Blocking, mut sink: Sink) -> Result<(String, u64), Fault> {
        let mut bytes = 0;
        loop {
            let mut buffer = cx.wait(sink.buffer(CHUNK_BYTES))?;
            self.wait(cx, PollFlags::IN)?;
            let read = match rustix::io::read(&self.pipe, &mut buffer[..CHUNK_BYTES]) {
                Ok(0) => break,
                Ok(read) => read,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(io::Error::from(error).into()),
            };
            bytes += read as u64;
            cx.wait(sink.send(buffer.freeze(read)))?;
        }
        cx.wait(sink.finish())?;
        Ok((self.name, bytes))
    }

    fn give_back(self, cx: &Blocking, source: &Source) -> Result<(String, u64), Fault> {
        let mut offset = 0;
        while offset < source.length() {
            let chunk = cx.wait(source.read_at(offset, CHUNK_BYTES))?;
            let mut left = &chunk[..];
            while !left.is_empty() {
                self.wait(cx, PollFlags::OUT)?;
                match rustix::io::write(&self.pipe, left) {
                    Ok(written) => left = &left[written..],
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(io::Error::from(error).into()),
                }
            }
            offset += chunk.len() as u64;
        }
        // Whoever reads it sees the end, as nobody else has this end any more.
        Ok((self.name, offset))
    }

    /// Waits until the pipe is ready.
    fn wait(&self, cx: &Blocking, wanted: PollFlags) -> Result<(), Fault> {
        loop {
            let program = self.program.as_fd();
            let mut look = [
                PollFd::new(&self.pipe, wanted),
                PollFd::from_borrowed_fd(program, PollFlags::empty()),
            ];
            match poll(&mut look, Some(&LOOK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            if cx.is_abandoned() {
                return Err(Fault::cancelled());
            }
            if !look[1].revents().is_empty() {
                return Err(Fault::permanent("pipes.gone", "the program has gone"));
            }
            if !look[0].revents().is_empty() {
                return Ok(());
            }
        }
    }
}

/// The program is not there, or does not say what it should: that does not become better.
pub(crate) fn gone(error: io::Error) -> Fault {
    let message = "the program did not say what it should";
    Fault::permanent("pipes.gone", message).caused_by(&error)
}
