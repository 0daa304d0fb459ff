//! The messages. Every number in them that comes from the child is the parent's to doubt.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::abi::{Object, Reply, TaskFault};

/// What the parent says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "m")]
pub(crate) enum ToChild {
    /// The first message. Carries the library if `library` says so.
    Hello(Hello),
    /// Make the instance. Payload: the configuration.
    Init,
    /// Serve a request. Payload: its document.
    Start {
        request: u64,
        /// The most detailed level that the host's log wants, 0 for none.
        level: u8,
    },
    /// Ask the plugin to end the request.
    Cancel { request: u64 },
    /// Drop the request.
    Abandon { request: u64 },
    /// The answer to a call. Payload: the body. Carries a descriptor if a thing is handed over
    /// that has one.
    Answer { call: u64, status: Status, handed: Option<Handed> },
    /// Slots of a stream were taken, and the child waits for them.
    Taken { request: u64, sink: u64 },
    /// A stream takes nothing any more.
    Closed { request: u64, sink: u64 },
}

/// What the child says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "m")]
pub(crate) enum ToHost {
    /// The library is loaded. Payload: the manifest, if it was asked for.
    Loaded { manifest: Status },
    /// The library is not loaded, and the child ends.
    Refused(Refusal),
    /// There is an instance, or not. Payload: the error.
    Ready { status: Status },
    /// The answer to a request. Payload: the body. Carries a descriptor if it hands one over.
    Done { request: u64, status: Status, descriptor: bool },
    /// The plugin was asked to end the request.
    Asked { request: u64 },
    /// Nothing of the request is left.
    Gone { request: u64 },
    /// A call of the host. Payload: the document.
    Call { request: u64, call: u64, op: String },
    /// Nobody waits for the answer to a call.
    Drop { request: u64, call: u64 },
    /// Slots of a stream were sent, and the parent waits for them.
    Sent { request: u64, sink: u64 },
    /// A stream is complete; the answer is its receipt.
    Finish { request: u64, call: u64, sink: u64 },
    /// A stream was given up.
    DropSink { request: u64, sink: u64 },
    /// Read from a source.
    Read { request: u64, call: u64, source: u64, offset: u64, len: u64 },
    /// A source is not needed any more.
    DropSource { request: u64, source: u64 },
    /// A record of the log.
    Log(LogRecord),
}

/// What a child has to know before it loads anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    /// The library, by its canonical path.
    pub(crate) path: String,
    /// Whether the message carries the library as a descriptor.
    pub(crate) library: bool,
    /// Whether the manifest is wanted.
    pub(crate) manifest: bool,
    /// The most detailed level that the host's log wants, 0 for none.
    pub(crate) level: u8,
    /// The most memory that it may map.
    pub(crate) memory_bytes: Option<u64>,
    /// The most files that it may have open.
    pub(crate) files: Option<u64>,
}

/// Why a child could not load the library; see [`LoadErrorKind`](crate::host::LoadErrorKind).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) kind: String,
    /// What the error says of the file.
    pub(crate) what: String,
    /// What it comes from.
    pub(crate) cause: Option<String>,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Ok,
    Error,
    /// The payload is the text of the panic.
    Panicked,
    Revoked,
    Finished,
}

/// What an answer hands over to the child. Numbers are the request's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Handed {
    /// A stream, with its memory as a descriptor.
    Sink(u64),
    Source {
        source: u64,
        len: u64,
    },
    Descriptor,
}

/// A record of the log, with texts of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    pub(crate) kind: u8,
    pub(crate) level: u8,
    pub(crate) line: u32,
    pub(crate) span: u64,
    pub(crate) parent: u64,
    pub(crate) call: u64,
    pub(crate) name: String,
    pub(crate) target: String,
    pub(crate) file: String,
    pub(crate) message: String,
    pub(crate) fields: String,
}

/// A message that may carry a descriptor.
pub(super) trait Message: Serialize + serde::de::DeserializeOwned {
    fn carries_descriptor(&self) -> bool;
}

impl Message for ToChild {
    fn carries_descriptor(&self) -> bool {
        match self {
            Self::Hello(hello) => hello.library,
            Self::Answer { handed, .. } => {
                matches!(handed, Some(Handed::Sink(_) | Handed::Descriptor))
            }
            _ => false,
        }
    }
}

impl Message for ToHost {
    fn carries_descriptor(&self) -> bool {
        matches!(self, Self::Done { descriptor: true, .. })
    }
}

/// An answer in parts.
pub(crate) fn pack(answer: Result<Reply, TaskFault>) -> (Status, Bytes, Option<Object>) {
    match answer {
        Ok(Reply { result: Ok(body), object }) => (Status::Ok, body, object),
        Ok(Reply { result: Err(body), object }) => (Status::Error, body, object),
        Err(TaskFault::Panicked(text)) => (Status::Panicked, text.into(), None),
        Err(TaskFault::Finished) => (Status::Finished, Bytes::new(), None),
        Err(_) => (Status::Revoked, Bytes::new(), None),
    }
}

/// The answer that [`pack`] took apart.
pub(crate) fn unpack(
    status: Status,
    body: Bytes,
    object: Option<Object>,
) -> Result<Reply, TaskFault> {
    match status {
        Status::Ok => Ok(Reply { result: Ok(body), object }),
        Status::Error => Ok(Reply { result: Err(body), object }),
        Status::Panicked => Err(TaskFault::Panicked(String::from_utf8_lossy(&body).into_owned())),
        Status::Revoked => Err(TaskFault::Revoked),
        Status::Finished => Err(TaskFault::Finished),
    }
}
