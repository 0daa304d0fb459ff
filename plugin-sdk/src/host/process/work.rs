//! A request of an isolated plugin, as its task: whoever polls it answers what the plugin asks.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::link::{Inbox, Link};
use super::options::Process;
use super::remote::Record;
use super::stream::{Event, Memory, Stream};
use crate::abi::{
    BoxFuture, Crash, HostCalls, Object, Reply, SourceHandle, TaskFault, contain, contain_quietly,
};
use crate::host::instance::Work;
use crate::host::log::CallSpan;
use crate::wire::{Handed, Incoming, READ_BYTES_MAX, ToChild, ToHost, WireError, pack, unpack};

/// The answer to a call, still to come.
pub(super) type Answered = BoxFuture<Result<Reply, TaskFault>>;

/// No plugin waits for so many answers at once.
const CALLS_MAX: usize = 4096;
/// Nor does it have so many streams and sources open.
const OBJECTS_MAX: usize = 1024;

/// A request under way in a child.
pub(super) struct RemoteWork {
    link: Arc<Link>,
    options: Arc<Process>,
    /// What the outcome means for the next request.
    record: Arc<Record>,
    request: u64,
    inbox: Arc<Inbox>,
    /// `None` once the request has ended.
    host: Option<Arc<dyn HostCalls>>,
    span: Option<CallSpan>,
    calls: BTreeMap<u64, Answered>,
    streams: BTreeMap<u64, Stream>,
    sources: BTreeMap<u64, SourceHandle>,
    next_object: u64,
    answer: Option<Result<Reply, TaskFault>>,
}

impl RemoteWork {
    pub(super) fn new(
        link: Arc<Link>,
        options: Arc<Process>,
        record: Arc<Record>,
        (request, inbox): (u64, Arc<Inbox>),
        host: Arc<dyn HostCalls>,
        span: CallSpan,
    ) -> Self {
        let (calls, streams, sources) = Default::default();
        Self {
            link,
            options,
            record,
            request,
            inbox,
            host: Some(host),
            span: Some(span),
            calls,
            streams,
            sources,
            next_object: 1,
            answer: None,
        }
    }

    /// What the child has said since the last poll.
    fn arrived(&mut self, cx: &mut Context<'_>) -> Vec<Incoming<ToHost>> {
        let mut arrived = self.inbox.lock();
        arrived.waker = Some(cx.waker().clone());
        let messages: Vec<_> = std::mem::take(&mut arrived.messages).into();
        if let Some(end) = arrived.end.take() {
            self.answer = Some(end);
        }
        drop(arrived);
        if !messages.is_empty() {
            // The attending thread may be waiting for room.
            self.link.ring();
        }
        messages
    }

    fn hear(&mut self, incoming: Incoming<ToHost>) -> Result<(), WireError> {
        let Incoming { message, payload, descriptor } = incoming;
        match message {
            ToHost::Done { status, .. } => {
                let object = descriptor.map(Object::Descriptor);
                self.answer = Some(unpack(status, payload, object));
            }
            ToHost::Call { call, op, .. } => {
                let Some(host) = &self.host else { return Ok(()) };
                let answer = match contain(|| host.call(&op, payload)) {
                    Ok(reply) => Box::pin(async move { Ok(reply.await) }) as Answered,
                    Err(panic) => Box::pin(async move { Err(TaskFault::Panicked(panic)) }),
                };
                self.wait_for(call, answer)?;
            }
            ToHost::Drop { call, .. } => self.forget(call),
            ToHost::Chunk { sink, slot, len, .. } => {
                if let Some(stream) = self.stream(sink)? {
                    stream.chunk(slot, len)?;
                }
            }
            ToHost::Finish { call, sink, .. } => match self.stream(sink)? {
                Some(stream) => stream.finish(call)?,
                None => {
                    self.wait_for(call, Box::pin(async { Err(TaskFault::Finished) }))?;
                }
            },
            ToHost::DropSink { sink, .. } => {
                self.stream(sink)?;
                let stream = self.streams.remove(&sink);
                contain_quietly("dropping a stream", || drop(stream));
            }
            ToHost::Read { call, source, offset, len, .. } => {
                if len > READ_BYTES_MAX {
                    return Err(WireError::Unexpected("a read longer than any"));
                }
                let Some(source) = self.sources.get(&source) else {
                    return Err(WireError::Unexpected("a source that it was not given"));
                };
                let reading = source.read_at(offset, len);
                let answer = Box::pin(async move { crate::abi::answer(reading.await) });
                self.wait_for(call, answer)?;
            }
            ToHost::DropSource { source, .. } => {
                let source = self.sources.remove(&source);
                contain_quietly("dropping a source", || drop(source));
            }
            // Those are the attending thread's.
            ToHost::Loaded { .. }
            | ToHost::Refused(_)
            | ToHost::Ready { .. }
            | ToHost::Gone { .. }
            | ToHost::Log(_) => {}
        }
        Ok(())
    }

    /// A stream that was handed out; `None` if it is there no more.
    fn stream(&mut self, sink: u64) -> Result<Option<&mut Stream>, WireError> {
        if sink >= self.next_object {
            return Err(WireError::Unexpected("a stream that it was not given"));
        }
        Ok(self.streams.get_mut(&sink))
    }

    fn wait_for(&mut self, call: u64, answer: Answered) -> Result<(), WireError> {
        if self.calls.len() >= CALLS_MAX {
            return Err(WireError::Unexpected("more calls than a host answers at once"));
        }
        match self.calls.insert(call, answer) {
            None => Ok(()),
            Some(_) => Err(WireError::Unexpected("two calls of one number")),
        }
    }

    fn forget(&mut self, call: u64) {
        let forgotten = self.calls.remove(&call);
        contain_quietly("dropping a call", || drop(forgotten));
    }

    /// Moves streams and answers calls, as far as that goes now.
    fn serve(&mut self, cx: &mut Context<'_>) -> Result<(), WireError> {
        let mut finishing = Vec::new();
        for (sink, stream) in &mut self.streams {
            let sink = *sink;
            while let Poll::Ready(event) = stream.poll_event(cx) {
                let message = match event {
                    Event::Taken(slot) => ToChild::Taken { sink, slot },
                    Event::Closed => ToChild::Closed { sink },
                    Event::Finish(call, answer) => {
                        finishing.push((sink, call, answer));
                        break;
                    }
                };
                self.link.say(&message, Bytes::new(), None)?;
            }
        }
        for (sink, call, answer) in finishing {
            self.streams.remove(&sink);
            self.wait_for(call, answer)?;
        }
        let mut answered = Vec::new();
        for (call, answer) in &mut self.calls {
            match contain(|| answer.as_mut().poll(cx)) {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(answer)) => answered.push((*call, answer)),
                Err(panic) => answered.push((*call, Err(TaskFault::Panicked(panic)))),
            }
        }
        for (call, answer) in answered {
            self.forget(call);
            self.tell(call, answer)?;
        }
        Ok(())
    }

    /// Tells the child the answer to a call.
    fn tell(&mut self, call: u64, answer: Result<Reply, TaskFault>) -> Result<(), WireError> {
        let (status, body, object) = pack(answer);
        let (handed, descriptor) = match object.map(|object| self.hand_over(object)).transpose() {
            Ok(None) => (None, None),
            Ok(Some((handed, descriptor))) => (Some(handed), descriptor),
            Err(why) => return self.tell(call, Err(TaskFault::Panicked(why))),
        };
        let message = ToChild::Answer { call, status, handed };
        match self.link.say(&message, body, descriptor) {
            // The host's doing, not the plugin's.
            Err(WireError::Length { payload, .. }) => {
                let text = format!("the host's answer of {payload} bytes is longer than any");
                self.tell(call, Err(TaskFault::Panicked(text)))
            }
            said => said,
        }
    }

    fn hand_over(&mut self, object: Object) -> Result<(Handed, Option<OwnedFd>), String> {
        if self.streams.len() + self.sources.len() >= OBJECTS_MAX {
            return Err("the plugin has more streams open than a host gives".to_owned());
        }
        let number = self.next_object;
        self.next_object += 1;
        match object {
            Object::Sink(sink) => {
                let (memory, other) = Memory::new()
                    .map_err(|error| format!("there is no memory for a stream: {error}"))?;
                self.streams.insert(number, Stream::new(sink, memory));
                Ok((Handed::Sink(number), Some(other)))
            }
            Object::Source(source) => {
                let len = source.len();
                self.sources.insert(number, source);
                Ok((Handed::Source { source: number, len }, None))
            }
            Object::Descriptor(owned) => Ok((Handed::Descriptor, Some(owned))),
        }
    }

    /// What was promised to this request is void from now on.
    fn end(&mut self, answered: bool) {
        let Some(host) = self.host.take() else { return };
        self.span = None;
        let held = (
            std::mem::take(&mut self.calls),
            std::mem::take(&mut self.streams),
            std::mem::take(&mut self.sources),
        );
        contain_quietly("ending a request", || drop(held));
        self.link.leave(self.request, host, answered, self.options.abandon_grace);
    }
}

impl Work for RemoteWork {
    fn cancel(&self) {
        self.link.cancel(self.request, self.options.cancel_grace);
    }
}

impl Future for RemoteWork {
    type Output = Result<Reply, TaskFault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.host.is_none() {
            return Poll::Ready(Err(TaskFault::Finished));
        }
        let mut broken = None;
        for incoming in this.arrived(cx) {
            let is_answer = matches!(incoming.message, ToHost::Done { .. });
            if this.answer.is_some() && !is_answer {
                // What a dead child asked for, nobody waits for.
                continue;
            }
            if let Err(error) = this.hear(incoming) {
                broken = Some(error);
                break;
            }
        }
        if broken.is_none() && this.answer.is_none() {
            broken = this.serve(cx).err();
        }
        if let Some(error) = broken {
            let crash = Crash::Protocol(error.to_string());
            this.link.condemn(crash.clone());
            this.answer = Some(Err(TaskFault::Crashed(crash)));
        }
        let Some(answer) = this.answer.take() else { return Poll::Pending };
        this.record.note(&this.link, &answer);
        this.end(true);
        Poll::Ready(answer)
    }
}

impl Drop for RemoteWork {
    fn drop(&mut self) {
        self.end(false);
    }
}
