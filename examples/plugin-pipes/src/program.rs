//! The program that a system starts, and that calls.
//!
//! It opens the pipes as whoever started it, passes them on, and keeps none. It exits with 0 if all
//! is well, with 1 if it is not, with 2 if it was not understood; in each case it says why.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
};

use crate::talk::{Hello, Passed, Talk, ToProgram, Want};

/// Names the operation that the program was started for.
pub const OPERATION: &str = "PIPES_OPERATION";

const USAGE: &str = "usage: pipes save SOCKET ITEM NAME=PATH...\n       \
                     pipes restore SOCKET ITEM POINT NAME=PATH...";

struct Asked {
    socket: PathBuf,
    hello: Hello,
    paths: Vec<PathBuf>,
}

/// Runs the program with these arguments; its exit code.
pub fn run(
    arguments: impl Iterator<Item = OsString>,
    operation: Option<String>,
    out: &mut dyn Write,
) -> u8 {
    let Some(asked) = read(arguments, operation) else {
        // Whoever does not read it does not need it.
        let _ = writeln!(out, "{USAGE}");
        return 2;
    };
    let (said, code) = match call(asked, out) {
        Ok(point) => (format!("point {point}"), 0),
        Err(error) => (format!("failed: {error}"), 1),
    };
    match writeln!(out, "{said}") {
        Ok(()) => code,
        Err(_) => 1,
    }
}

fn read(mut arguments: impl Iterator<Item = OsString>, operation: Option<String>) -> Option<Asked> {
    let mut next = || arguments.next()?.into_string().ok();
    let (verb, socket, item) = (next()?, next()?, next()?);
    let want = match verb.as_str() {
        "save" => Want::Save,
        "restore" => Want::Restore(next()?),
        _ => return None,
    };
    let (mut pipes, mut paths) = (Vec::new(), Vec::new());
    for pipe in arguments {
        let pipe = pipe.into_string().ok()?;
        let (name, path) = pipe.split_once('=')?;
        pipes.push(name.to_owned());
        paths.push(PathBuf::from(path));
    }
    if pipes.is_empty() {
        return None;
    }
    Some(Asked { socket: socket.into(), hello: Hello { want, item, pipes, operation }, paths })
}

/// Has it done, and says what became of each pipe; the point.
fn call(asked: Asked, out: &mut dyn Write) -> io::Result<String> {
    let Asked { socket, hello, paths } = asked;
    let mut talk = Talk::over(UnixStream::connect(socket)?)?.patiently()?;
    talk.say(&hello)?;
    loop {
        match talk.hear::<ToProgram>()?.0 {
            ToProgram::Go => {
                for (pipe, path) in hello.pipes.iter().zip(&paths) {
                    let opened = match hello.want {
                        Want::Save => File::open(path),
                        Want::Restore(_) => File::options().write(true).open(path),
                    };
                    let passed = Passed { pipe: pipe.clone() };
                    // Closed here once it is passed: its other end is to see the end.
                    talk.pass(&passed, opened?.as_fd())?;
                }
            }
            ToProgram::Done { pipe, bytes } => writeln!(out, "done {pipe} {bytes}")?,
            ToProgram::End { point } => return Ok(point),
            ToProgram::Failed { why } => return Err(io::Error::other(why)),
        }
    }
}
