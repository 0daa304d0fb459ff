//! The parent's services, as the plugin's host in this process.

use std::panic::resume_unwind;
use std::sync::Arc;

use bytes::Bytes;

use super::connection::{Answer, Connection};
use super::sink::ChildSink;
use super::source::ChildSource;
use crate::abi::{BoxFuture, HostCalls, Object, Reply, SinkHandle, SourceHandle};
use crate::message::call;
use crate::wire::{Handed, Status, ToHost};

/// The host of one request. The parent hears when the plugin has let go of it.
pub(super) struct ParentCalls {
    pub(super) connection: Arc<Connection>,
    pub(super) request: u64,
}

impl HostCalls for ParentCalls {
    fn call(&self, op: &str, body: Bytes) -> BoxFuture<Reply> {
        let (connection, request) = (self.connection.clone(), self.request);
        let op = op.to_owned();
        let is_clock = op == call::NOW;
        let message = |call| ToHost::Call { request, call, op };
        if is_clock {
            // The one call whose answer is wanted at its first poll, as it is there at once when
            // the host is in the same process.
            return match connection.ask_now(request, message, body) {
                Some(answer) => Box::pin(async move { reply(&connection, request, answer) }),
                None => Box::pin(std::future::pending()),
            };
        }
        let asked = connection.ask(request, message, body);
        Box::pin(async move { reply(&connection, request, asked.answer().await) })
    }
}

impl Drop for ParentCalls {
    fn drop(&mut self) {
        let message = ToHost::Gone { request: self.request };
        // Without a parent there is nobody to tell.
        let _ = self.connection.say(&message, Bytes::new(), None);
    }
}

/// The reply in an answer, with what it hands over.
fn reply(connection: &Arc<Connection>, request: u64, answer: Answer) -> Reply {
    let Answer { status, body, handed, descriptor } = answer;
    let object = handed.map(|handed| match (handed, descriptor) {
        (Handed::Sink(sink), Some(memory)) => {
            match ChildSink::new(connection.clone(), request, sink, memory) {
                Ok(sink) => Object::Sink(SinkHandle::serve(sink)),
                Err(error) => fault(format!("a stream's memory cannot be mapped: {error}")),
            }
        }
        (Handed::Source { source, len }, _) => {
            let connection = connection.clone();
            Object::Source(SourceHandle::serve(ChildSource { connection, request, source, len }))
        }
        (Handed::Descriptor, Some(descriptor)) => Object::Descriptor(descriptor),
        (Handed::Sink(_) | Handed::Descriptor, None) => {
            unreachable!("a message without its descriptor is none")
        }
    });
    match status {
        Status::Ok => Reply { result: Ok(body), object },
        Status::Error => Reply { result: Err(body), object },
        Status::Panicked => fault(String::from_utf8_lossy(&body).into_owned()),
        Status::Revoked | Status::Finished => fault("the host gave no answer".to_owned()),
    }
}

/// Ends the call as a panic of the host does in one process: with its text, for the plugin.
fn fault(text: String) -> ! {
    resume_unwind(Box::new(text))
}
