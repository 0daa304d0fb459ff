//! A request of an isolated plugin: what it asks of its host, and its task.
//!
//! **How.** What the plugin asks for is answered on the thread that attends to its process, as it
//! is answered on the plugin's own threads when it is in this one. The task only waits.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::link::{Link, Pending};
use super::options::Process;
use super::remote::Record;
use super::stream::{Event, Stream, Turn};
use crate::abi::{
    BoxFuture, HostCalls, Object, Reply, SourceHandle, TaskFault, contain, contain_quietly,
};
use crate::host::instance::Work;
use crate::host::log::CallSpan;
use crate::wire::{Handed, READ_BYTES_MAX, SharedMemory, ToChild, ToHost, WireError, pack};

/// The answer to a call, still to come.
pub(super) type Answered = BoxFuture<Result<Reply, TaskFault>>;

/// No plugin waits for so many answers at once.
const CALLS_MAX: usize = 4096;
/// Nor are the documents of those calls larger together.
const CALLS_BYTES_MAX: usize = 64 << 20;
/// Nor does it have so many streams and sources open.
const OBJECTS_MAX: usize = 1024;

/// The parent's part in a request: the calls, streams and sources that the plugin has of it.
pub(super) struct Service {
    request: u64,
    host: Arc<dyn HostCalls>,
    calls: BTreeMap<u64, Waiting>,
    /// How large the documents of the calls are.
    calls_bytes: usize,
    streams: BTreeMap<u64, Stream>,
    sources: BTreeMap<u64, SourceHandle>,
    next_object: u64,
}

/// A call that is not answered yet.
struct Waiting {
    /// How large its document is, which its answer may need to the end.
    bytes: usize,
    answer: Answered,
}

/// How far the calls were answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// As far as that goes now.
    All,
    /// Until the child has more to read than it has read lately; the others have to wait for that.
    HeldBack,
}

impl Service {
    pub(super) fn new(request: u64, host: Arc<dyn HostCalls>) -> Self {
        let (calls, calls_bytes, streams, sources) = Default::default();
        Self { request, host, calls, calls_bytes, streams, sources, next_object: 1 }
    }

    /// Takes what the plugin asks for.
    pub(super) fn hear(&mut self, message: ToHost, payload: Bytes) -> Result<(), WireError> {
        match message {
            ToHost::Call { call, op, .. } => {
                let bytes = payload.len();
                let answer = match contain(|| self.host.call(&op, payload)) {
                    Ok(reply) => Box::pin(async move { Ok(reply.await) }) as Answered,
                    Err(panic) => Box::pin(async move { Err(TaskFault::Panicked(panic)) }),
                };
                self.wait_for(call, bytes, answer)?;
            }
            ToHost::Drop { call, .. } => self.forget(call),
            ToHost::Sent { sink, .. } => {
                // What it is said for: the thread looks at the streams, this one among them.
                self.stream(sink)?;
            }
            ToHost::Finish { call, sink, .. } => match self.stream(sink)? {
                Some(stream) => stream.finish(call)?,
                None => {
                    self.wait_for(call, 0, Box::pin(async { Err(TaskFault::Finished) }))?;
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
                self.wait_for(call, 0, answer)?;
            }
            ToHost::DropSource { source, .. } => {
                let source = self.sources.remove(&source);
                contain_quietly("dropping a source", || drop(source));
            }
            // Those are not the request's.
            ToHost::Done { .. }
            | ToHost::Loaded { .. }
            | ToHost::Refused(_)
            | ToHost::Ready { .. }
            | ToHost::Asked { .. }
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

    fn wait_for(&mut self, call: u64, bytes: usize, answer: Answered) -> Result<(), WireError> {
        // A document is never longer than a frame.
        self.calls_bytes += bytes;
        if self.calls.len() >= CALLS_MAX || self.calls_bytes > CALLS_BYTES_MAX {
            return Err(WireError::Unexpected("more calls than a host answers at once"));
        }
        match self.calls.insert(call, Waiting { bytes, answer }) {
            None => Ok(()),
            Some(_) => Err(WireError::Unexpected("two calls of one number")),
        }
    }

    fn forget(&mut self, call: u64) {
        let forgotten = self.calls.remove(&call);
        self.calls_bytes -= forgotten.as_ref().map_or(0, |waiting| waiting.bytes);
        contain_quietly("dropping a call", || drop(forgotten));
    }

    /// Moves streams and answers calls, as far as that goes now.
    pub(super) fn serve(&mut self, link: &Link, cx: &mut Context<'_>) -> Result<Served, WireError> {
        let (request, mut finishing) = (self.request, Vec::new());
        let mut more = false;
        for (sink, stream) in &mut self.streams {
            let (sink, mut turn) = (*sink, Turn::default());
            while let Poll::Ready(event) = stream.poll_event(&mut turn, cx) {
                let message = match event? {
                    Event::Taken => ToChild::Taken { request, sink },
                    Event::Closed => ToChild::Closed { request, sink },
                    Event::Finish(call, answer) => {
                        finishing.push((sink, call, answer));
                        break;
                    }
                    Event::Enough => {
                        more = true;
                        break;
                    }
                };
                link.say(&message, Bytes::new(), None)?;
            }
        }
        if more {
            cx.waker().wake_by_ref();
        }
        for (sink, call, answer) in finishing {
            self.streams.remove(&sink);
            self.wait_for(call, 0, answer)?;
        }
        self.answer(link, cx)
    }

    /// Answers calls as long as the child reads the answers. It can ask in a few bytes for more
    /// than there is memory.
    fn answer(&mut self, link: &Link, cx: &mut Context<'_>) -> Result<Served, WireError> {
        let mut from = Bound::Unbounded;
        while let Some((call, waiting)) = self.calls.range_mut((from, Bound::Unbounded)).next() {
            if !link.has_room() {
                return Ok(Served::HeldBack);
            }
            let call = *call;
            from = Bound::Excluded(call);
            let answer = match contain(|| waiting.answer.as_mut().poll(cx)) {
                Ok(Poll::Pending) => continue,
                Ok(Poll::Ready(answer)) => answer,
                Err(panic) => Err(TaskFault::Panicked(panic)),
            };
            self.forget(call);
            self.tell(link, call, answer)?;
        }
        Ok(Served::All)
    }

    /// Tells the child the answer to a call.
    fn tell(
        &mut self,
        link: &Link,
        call: u64,
        answer: Result<Reply, TaskFault>,
    ) -> Result<(), WireError> {
        let (status, body, object) = pack(answer);
        let (handed, descriptor) = match object.map(|object| self.hand_over(object)).transpose() {
            Ok(None) => (None, None),
            Ok(Some((handed, descriptor))) => (Some(handed), descriptor),
            Err(why) => return self.tell(link, call, Err(TaskFault::Panicked(why))),
        };
        let message = ToChild::Answer { call, status, handed };
        match link.say(&message, body, descriptor) {
            // The host's doing, not the plugin's.
            Err(WireError::Length { payload, .. }) => {
                let text = format!("the host's answer of {payload} bytes is longer than any");
                self.tell(link, call, Err(TaskFault::Panicked(text)))
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
                let (memory, other) = SharedMemory::new()
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
}

impl Drop for Service {
    fn drop(&mut self) {
        let held = (
            std::mem::take(&mut self.calls),
            std::mem::take(&mut self.streams),
            std::mem::take(&mut self.sources),
        );
        contain_quietly("ending a request", || drop(held));
    }
}

/// A request under way in a child, as its task sees it.
pub(super) struct RemoteWork {
    link: Arc<Link>,
    options: Arc<Process>,
    /// What the outcome means for the next request.
    record: Arc<Record>,
    request: u64,
    reply: Arc<Pending>,
    /// `None` once the request has ended.
    span: Option<CallSpan>,
}

impl RemoteWork {
    pub(super) fn new(
        link: Arc<Link>,
        options: Arc<Process>,
        record: Arc<Record>,
        (request, reply): (u64, Arc<Pending>),
        span: CallSpan,
    ) -> Self {
        Self { link, options, record, request, reply, span: Some(span) }
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
        if self.span.is_none() {
            return Poll::Ready(Err(TaskFault::Finished));
        }
        let answer = ready!(self.reply.poll(cx));
        self.span = None;
        self.record.note(&self.link, &answer);
        Poll::Ready(answer)
    }
}

impl Drop for RemoteWork {
    fn drop(&mut self) {
        self.link.abandon(self.request, self.options.abandon_grace);
    }
}
