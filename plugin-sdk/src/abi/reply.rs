//! What a task ends with.

use std::fmt;

use abi_stable::StableAbi;
use bytes::Bytes;

use super::bytes::AbiBytes;
use super::descriptor::{AbiDescriptor, OwnedDescriptor};
use super::sink::{AbiSink, SinkHandle};
use super::source::{AbiSource, SourceHandle};

/// How a task ended, in an answer that crosses.
pub(super) mod status {
    /// The body is the reply.
    pub(in crate::abi) const OK: u8 = 0;
    /// The body is the error.
    pub(in crate::abi) const ERROR: u8 = 1;
    /// The request was no longer current when it was answered; no body.
    pub(in crate::abi) const REVOKED: u8 = 2;
    /// The task had given its answer before; no body.
    pub(in crate::abi) const FINISHED: u8 = 3;
}

/// A reply as it crosses.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct AbiReply {
    pub(super) status: u8,
    pub(super) body: AbiBytes,
    pub(super) object: AbiObject,
}

/// What a reply hands over beside its body.
#[repr(C, u8)]
#[derive(StableAbi, Debug)]
pub enum AbiObject {
    /// Nothing.
    None,
    /// A place to send bytes to.
    Sink(AbiSink),
    /// A place to read bytes from.
    Source(AbiSource),
    /// An open file, pipe or connection.
    Descriptor(AbiDescriptor),
}

/// The answer to a request, in either direction.
#[derive(Debug)]
pub struct Reply {
    /// The reply's document, or the error's. This layer does not look inside.
    pub result: Result<Bytes, Bytes>,
    /// What is handed over with it.
    pub object: Option<Object>,
}

/// A live thing that a reply hands over.
#[derive(Debug)]
#[non_exhaustive]
pub enum Object {
    /// A place to send bytes to.
    Sink(SinkHandle),
    /// A place to read bytes from.
    Source(SourceHandle),
    /// An open file, pipe or connection.
    Descriptor(OwnedDescriptor),
}

impl Reply {
    /// A reply that is a document and nothing else.
    #[must_use]
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self { result: Ok(body.into()), object: None }
    }

    /// A refusal; `error` is its document.
    #[must_use]
    pub fn error(error: impl Into<Bytes>) -> Self {
        Self { result: Err(error.into()), object: None }
    }

    /// The same reply, handing `object` over.
    #[must_use]
    pub fn with(mut self, object: Object) -> Self {
        self.object = Some(object);
        self
    }
}

/// Why a task gave no reply at all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskFault {
    /// The other side panicked; the panic was contained. The text is the panic's.
    Panicked(String),
    /// The request that the call belongs to has ended or was abandoned.
    Revoked,
    /// The task was polled after it had given its answer.
    Finished,
    /// The plugin's own process is gone, or was never there; nothing is known of what it did.
    Crashed(Crash),
}

/// How the process of an isolated plugin ended before it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Crash {
    /// A signal killed it: 11 for an access that is none, 6 for `abort`, 9 for whoever kills.
    Signal(i32),
    /// It ended by itself, with this code.
    Exited(i32),
    /// It was killed because it did not stop, or did not begin, in time.
    TimedOut,
    /// It was killed because it said what no runner says.
    Protocol(String),
    /// It could not be started, or the plugin in it could not; the text says why.
    NotStarted(String),
    /// No process is started any more: this many ended in a row, the last one like this.
    GivenUp {
        /// How many.
        crashes: u32,
        /// How the last one ended.
        last: Box<Crash>,
    },
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => write!(f, "its process was killed by signal {signal}"),
            Self::Exited(code) => write!(f, "its process ended by itself with code {code}"),
            Self::TimedOut => f.write_str("its process was killed, as it did not stop in time"),
            Self::Protocol(what) => write!(f, "its process was killed, as it sent {what}"),
            Self::NotStarted(why) => write!(f, "its process could not be started: {why}"),
            Self::GivenUp { crashes, last } => {
                write!(f, "it was given up after {crashes} crashes in a row, the last: {last}")
            }
        }
    }
}

impl fmt::Display for TaskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(text) => write!(f, "the other side panicked: {text}"),
            Self::Revoked => f.write_str("the request is no longer current"),
            Self::Finished => f.write_str("the task has already given its answer"),
            Self::Crashed(crash) => write!(f, "the plugin has crashed: {crash}"),
        }
    }
}

impl std::error::Error for TaskFault {}

/// Why a call that answers with bytes failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// The other side refused; this is its error document.
    Refused(Bytes),
    /// There was no answer.
    Fault(TaskFault),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(_) => f.write_str("the other side refused the call"),
            Self::Fault(_) => f.write_str("the call was not answered"),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(_) => None,
            Self::Fault(fault) => Some(fault),
        }
    }
}

/// The body of an answer from which only bytes are wanted.
pub(super) fn body(answer: Result<Reply, TaskFault>) -> Result<Bytes, CallError> {
    answer.map_err(CallError::Fault)?.result.map_err(CallError::Refused)
}

/// The answer that carries bytes, or the lack of them.
pub(crate) fn answer(bytes: Result<Bytes, CallError>) -> Result<Reply, TaskFault> {
    match bytes {
        Ok(body) => Ok(Reply::ok(body)),
        Err(CallError::Refused(error)) => Ok(Reply::error(error)),
        Err(CallError::Fault(fault)) => Err(fault),
    }
}

impl AbiReply {
    /// What crosses for `answer`; a panic does not travel as a reply.
    pub(super) fn from_answer(answer: Result<Reply, TaskFault>) -> Result<Self, String> {
        let (status, body, object) = match answer {
            Ok(Reply { result: Ok(body), object }) => (status::OK, body, object),
            Ok(Reply { result: Err(body), object }) => (status::ERROR, body, object),
            // Only a host's task crashes, and it does not answer a plugin.
            Err(TaskFault::Revoked | TaskFault::Crashed(_)) => {
                (status::REVOKED, Bytes::new(), None)
            }
            Err(TaskFault::Finished) => (status::FINISHED, Bytes::new(), None),
            Err(TaskFault::Panicked(text)) => return Err(text),
        };
        let object = match object {
            None => AbiObject::None,
            Some(Object::Sink(sink)) => AbiObject::Sink(sink.into_abi()),
            Some(Object::Source(source)) => AbiObject::Source(source.into_abi()),
            Some(Object::Descriptor(owned)) => AbiObject::Descriptor(owned.into()),
        };
        Ok(Self { status, body: body.into(), object })
    }

    /// The answer that crossed. A status of a later minor version counts as an error.
    pub(super) fn into_answer(self) -> Result<Reply, TaskFault> {
        let body = self.body.into_bytes();
        let result = match self.status {
            status::OK => Ok(body),
            status::REVOKED => return Err(TaskFault::Revoked),
            status::FINISHED => return Err(TaskFault::Finished),
            _ => Err(body),
        };
        let object = match self.object {
            AbiObject::None => None,
            AbiObject::Sink(sink) => Some(Object::Sink(SinkHandle::from_abi(sink))),
            AbiObject::Source(source) => Some(Object::Source(SourceHandle::from_abi(source))),
            AbiObject::Descriptor(raw) => Some(Object::Descriptor(raw.into_owned())),
        };
        Ok(Reply { result, object })
    }
}
