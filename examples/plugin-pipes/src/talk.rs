//! What program and plugin say to each other: JSON, each message after its length, some of them
//! with a descriptor.
//!
//! The program begins with a [`Hello`]. Once a step has the call it says [`ToProgram::Go`]; then
//! the program passes its pipes, one with each [`Passed`], in the order in which it named them, and
//! closes its own ends. The plugin says what became of each, and last how it ended.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// No message is longer.
const BYTES_MAX: u32 = 64 << 10;
/// Neither side takes this long to say what is its turn.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a program wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Save, or restore.
    pub want: Want,
    /// Of which item, by its name.
    pub item: String,
    /// The names of its pipes.
    pub pipes: Vec<String>,
    /// The operation that the program was started for, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// What comes out of the pipes is to be saved.
    Save,
    /// What was saved as this point is to be written into them.
    Restore(String),
}

/// A pipe; the message carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Its name.
    pub pipe: String,
}

/// What the plugin says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToProgram {
    /// The pipes may come.
    Go,
    /// All that came out of, or was to go into, a pipe is where it should be.
    Done {
        /// The pipe's name.
        pipe: String,
        /// How many bytes.
        bytes: u64,
    },
    /// All is well: this is the point.
    End {
        /// The point.
        point: String,
    },
    /// It came to nothing.
    Failed {
        /// Why.
        why: String,
    },
}

/// A conversation, as either side has it.
#[derive(Debug)]
pub struct Talk {
    stream: UnixStream,
    descriptors: VecDeque<OwnedFd>,
}

impl Talk {
    /// The conversation over `stream`.
    ///
    /// # Errors
    ///
    /// The socket's error.
    pub fn over(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Talk { stream, descriptors: VecDeque::new() })
    }

    /// Lets the other side take as long as it likes: it waits for its turn, say.
    ///
    /// # Errors
    ///
    /// The socket's error.
    pub fn patiently(self) -> io::Result<Self> {
        self.stream.set_read_timeout(None)?;
        Ok(self)
    }

    /// Says `message`.
    ///
    /// # Errors
    ///
    /// The socket's error.
    pub fn say<M: Serialize>(&mut self, message: &M) -> io::Result<()> {
        self.stream.write_all(&framed(message)?)
    }

    /// Says `message`, with a descriptor.
    ///
    /// # Errors
    ///
    /// The socket's error.
    pub fn pass<M: Serialize>(
        &mut self,
        message: &M,
        descriptor: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let frame = framed(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let passed = [descriptor];
        if !control.push(SendAncillaryMessage::ScmRights(&passed)) {
            return Err(io::Error::other("there is no room for a descriptor"));
        }
        let parts = [IoSlice::new(&frame)];
        let sent = sendmsg(&self.stream, &parts, &mut control, SendFlags::NOSIGNAL)?;
        // The descriptor went with the first byte.
        self.stream.write_all(&frame[sent..])
    }

    /// Hears the next message, and the descriptor that came with it.
    ///
    /// # Errors
    ///
    /// The socket's error; [`io::ErrorKind::InvalidData`] if it is no such message.
    pub fn hear<M: DeserializeOwned>(&mut self) -> io::Result<(M, Option<OwnedFd>)> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message longer than any"));
        }
        let mut message = vec![0; length as usize];
        self.fill(&mut message)?;
        let message = serde_json::from_slice(&message)?;
        // What did not come with it belongs to nothing.
        let descriptor = self.descriptors.pop_front();
        self.descriptors.clear();
        Ok((message, descriptor))
    }

    fn fill(&mut self, mut room: &mut [u8]) -> io::Result<()> {
        while !room.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = {
                let mut parts = [IoSliceMut::new(room)];
                let flags = RecvFlags::CMSG_CLOEXEC;
                rustix::io::retry_on_intr(|| {
                    recvmsg(&self.stream, &mut parts, &mut control, flags)
                })?
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(passed) = message {
                    self.descriptors.extend(passed);
                }
            }
            if received.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            room = &mut room[received.bytes..];
        }
        Ok(())
    }

    /// The connection, to see whether the other side is there.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left.
    pub fn watch(&self) -> io::Result<OwnedFd> {
        self.stream.as_fd().try_clone_to_owned()
    }
}

/// `message` after its length.
///
/// # Errors
///
/// If it is longer than any.
pub fn framed<M: Serialize>(message: &M) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("a message longer than any"))?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(&body);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use std::io::Read;

    use super::*;

    #[test]
    fn each_message_has_the_descriptor_that_came_with_it() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (Talk::over(near).unwrap(), Talk::over(far).unwrap());
        let (mut reader, mut writer) = io::pipe().unwrap();
        let passed = |pipe: &str| Passed { pipe: pipe.to_owned() };
        near.say(&passed("a")).unwrap();
        near.pass(&passed("b"), reader.as_fd()).unwrap();
        near.say(&passed("c")).unwrap();
        let (a, none) = far.hear::<Passed>().unwrap();
        let (b, some) = far.hear::<Passed>().unwrap();
        let (c, neither) = far.hear::<Passed>().unwrap();
        assert_eq!([a.pipe, b.pipe, c.pipe], ["a", "b", "c"]);
        assert!(none.is_none() && neither.is_none());
        reader = io::PipeReader::from(some.unwrap());
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut heard = String::new();
        reader.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "through");
    }

    #[test]
    fn rubbish_is_an_error() {
        for said in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x02{]", b"\0\0\0\x09{}", b"\0"] {
            let (mut near, far) = UnixStream::pair().unwrap();
            near.write_all(said).unwrap();
            drop(near);
            assert!(Talk::over(far).unwrap().hear::<ToProgram>().is_err(), "{said:02x?}");
        }
    }
}
