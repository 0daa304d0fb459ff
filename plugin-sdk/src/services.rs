//! What a step may ask of its host.

#[cfg(feature = "host")]
use std::sync::Arc;

use bytes::Bytes;
use fsm_core::{Fault, Timestamp};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

#[cfg(feature = "host")]
use crate::abi::{Cancellation, HostCalls};
use crate::secrets;
use crate::{
    IncomingCall, ItemId, OperationId, PointId, Receipt, Secret, TakeId, Taken,
    abi::{CallError, Chunk, HostHandle, LentBuffer, Object, SinkError, SinkHandle, SourceHandle},
    message::{self, SealCall, SourceOpen, StreamOpen, TakeBegin, TakeBegun, TakeFinish, call},
};

/// The host services of one step: streams, points, sealing.
///
/// Machines of plugins name this type as their [`Host`](fsm_core::Machine::Host) and reach it
/// through [`Context::host`](fsm_core::Context::host). Every service refuses a step that is no
/// longer current.
#[derive(Clone, Debug)]
pub struct Host {
    handle: HostHandle,
    operation: OperationId,
    item: ItemId,
}

/// A take as a step finds it.
#[derive(Debug)]
pub enum Take {
    /// Nothing is there yet: write its streams.
    Begun(OpenTake),
    /// An earlier attempt at this step finished it, and was interrupted before its next state
    /// was durable: adopt it whole.
    Finished(FinishedTake),
}

/// A take whose streams are complete: they are sealed together, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FinishedTake {
    /// When it was begun.
    pub begun_at: Timestamp,
    /// Its streams.
    pub receipts: Vec<Receipt>,
    /// What was learned while they were produced; see [`OpenTake::finish_with`]. Null if nothing.
    pub facts: Value,
}

/// A take whose streams can be written. Dropped unfinished, it leaves nothing that counts.
#[derive(Debug)]
pub struct OpenTake {
    host: Host,
    id: TakeId,
    begun_at: Timestamp,
}

/// A stream that is being written.
#[derive(Debug)]
pub struct Sink {
    /// `None` once the host has closed the stream and said why.
    handle: Option<SinkHandle>,
    stream: String,
}

/// A stream of a recovery point.
#[derive(Debug)]
pub struct Source {
    handle: SourceHandle,
    stream: String,
}

impl Host {
    pub(crate) fn new(handle: HostHandle, operation: OperationId, item: ItemId) -> Self {
        Host { handle, operation, item }
    }

    /// A host whose services are `calls`, for a test that runs a plugin's machines without an
    /// engine: under `fsm_core::testing::Trial`, say, as `Hosted::new(Machine, host)`.
    ///
    /// A call is answered by whoever polls the step; no thread is involved. The host serves for as
    /// long as it lives, whereas that of an engine's request refuses once the request has ended: a
    /// test makes a new one for each process that it plays.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use plugin_sdk::{
    ///     Fault, Host, ItemId, OperationId, Take,
    ///     abi::{BoxFuture, HostCalls, Reply},
    ///     message,
    /// };
    /// use std::sync::Arc;
    ///
    /// struct Closed;
    /// impl HostCalls for Closed {
    ///     fn call(&self, op: &str, _: Bytes) -> BoxFuture<Reply> {
    ///         let fault = Fault::retryable("host.closed", format!("no `{op}` today"));
    ///         Box::pin(std::future::ready(Reply::error(message::encode_fault(&fault))))
    ///     }
    /// }
    ///
    /// let item = ItemId::new("greeting", "local", "hello")?;
    /// let host = Host::served_by(Arc::new(Closed), OperationId::new("tonight"), item);
    /// let refused = futures::executor::block_on(host.take("text")).unwrap_err();
    /// assert_eq!(refused.code(), "host.closed");
    /// # Ok::<(), plugin_sdk::InvalidItemId>(())
    /// ```
    #[cfg(feature = "host")]
    #[must_use]
    pub fn served_by(calls: Arc<dyn HostCalls>, operation: OperationId, item: ItemId) -> Self {
        Host::new(HostHandle::serve(calls, Cancellation::new()), operation, item)
    }

    /// The operation that the run belongs to.
    pub fn operation(&self) -> &OperationId {
        &self.operation
    }

    /// The item that the run works on.
    pub fn item(&self) -> &ItemId {
        &self.item
    }

    /// Begins a take, durably, before anything is asked of the outside world; or finds the one
    /// that an earlier attempt at this step finished. `name` is unique in the run.
    ///
    /// # Errors
    ///
    /// The host's fault.
    ///
    /// # Cancel safety
    ///
    /// The take may have been begun although the future was dropped; beginning it again is right.
    pub async fn take(&self, name: &str) -> Result<Take, Fault> {
        let begin = TakeBegin { name: name.to_owned() };
        let TakeBegun { take: id, begun_at, finished, facts } =
            self.ask(call::TAKE_BEGIN, &begin).await?;
        Ok(match finished {
            Some(receipts) => Take::Finished(FinishedTake { begun_at, receipts, facts }),
            None => Take::Begun(OpenTake { host: self.clone(), id, begun_at }),
        })
    }

    /// Gets the secret `name`, one of those that the workload's manifest declares
    /// ([`Manifest::secret`](crate::Manifest::secret)).
    ///
    /// Ask for it in the step that needs it, and let it go there: a state's data are written down,
    /// so a secret must never be part of them.
    ///
    /// # Errors
    ///
    /// The host's fault: `secret.undeclared` if the manifest does not ask for it, `secret.missing`
    /// if the host has none of that name.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives nothing up.
    pub async fn secret(&self, name: &str) -> Result<Secret, Fault> {
        secrets::ask(&self.handle, name).await
    }

    /// Opens the stream `stream` of the recovery point `point` of this item.
    ///
    /// # Errors
    ///
    /// The host's fault: the point is not part of this restore, say, or damaged.
    pub async fn source(&self, point: &PointId, stream: &str) -> Result<Source, Fault> {
        let open = SourceOpen { point: point.clone(), stream: stream.to_owned() };
        match self.send(call::SOURCE_OPEN, &open).await? {
            (_, Some(Object::Source(handle))) => Ok(Source { handle, stream: stream.to_owned() }),
            _ => Err(Fault::bug("host.object", "the host answered without a source")),
        }
    }

    /// Takes the call that the operation was made of over from the host; once.
    ///
    /// # Errors
    ///
    /// A [`Permanent`](fsm_core::Class::Permanent) fault with code `call.lost` if there is none to
    /// be had: the caller has hung up, an earlier attempt at a step took the call, it was lost with
    /// the agent's process, or the operation was not made of a call.
    ///
    /// # Cancel safety
    ///
    /// A call that was on its way to a future that is dropped is closed.
    pub async fn call(&self) -> Result<Taken, Fault> {
        self.taken(call::INGRESS_CALL).await
    }

    /// Takes the next call that is attached to this run's operation over from the host, waiting
    /// until there is one. A step waits here for the program that it has made its system start.
    /// Nothing ends the wait but a call and the end of the step, so race it against the request to
    /// stop ([`Context::cancellation`](fsm_core::Context::cancellation)), and against the program's
    /// own end if that can be seen.
    ///
    /// # Errors
    ///
    /// The host's fault.
    ///
    /// # Cancel safety
    ///
    /// A dropped future takes no call, so it can be raced against whatever else may happen. Where
    /// the plugin has a process of its own, a call that was on its way to it is closed.
    pub async fn next_call(&self) -> Result<Taken, Fault> {
        self.taken(call::INGRESS_NEXT).await
    }

    async fn taken(&self, op: &str) -> Result<Taken, Fault> {
        match self.send(op, &()).await? {
            (call, Some(Object::Descriptor(connection))) => {
                let call: IncomingCall = message::decode(&call)?;
                Ok(Taken::new(call, connection))
            }
            _ => Err(Fault::bug("host.object", "the host answered without a connection")),
        }
    }

    /// Makes a recovery point of receipts, durably. Under the key of an earlier call of this run
    /// it finds the point of that call.
    ///
    /// # Errors
    ///
    /// The host's fault: [`Fenced`](fsm_core::Class::Fenced) if another agent has taken the item
    /// over.
    pub async fn seal(&self, seal: &SealCall) -> Result<PointId, Fault> {
        self.ask(call::SEAL, seal).await
    }

    /// Calls the host and reads its reply.
    pub(crate) async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        op: &str,
        body: &Q,
    ) -> Result<A, Fault> {
        let (reply, _) = self.send(op, body).await?;
        message::decode(&reply)
    }

    async fn send<Q: Serialize>(
        &self,
        op: &str,
        body: &Q,
    ) -> Result<(Bytes, Option<Object>), Fault> {
        let answer = self.handle.call(op, message::encode(body)?);
        let reply = answer.await.map_err(|fault| host_fault(op, &fault))?;
        match reply.result {
            Ok(body) => Ok((body, reply.object)),
            Err(error) => Err(message::decode_fault(&error)),
        }
    }
}

fn host_fault(op: &str, fault: &crate::abi::TaskFault) -> Fault {
    match fault {
        crate::abi::TaskFault::Revoked => {
            Fault::interrupted(format!("the host no longer serves this step (`{op}`)"))
        }
        fault => {
            Fault::bug("host.call", format!("the host's `{op}` gave no answer")).caused_by(fault)
        }
    }
}

impl OpenTake {
    /// The take's id: known to the host, and safe to use in the outside world.
    pub fn id(&self) -> &TakeId {
        &self.id
    }

    /// When it was begun, by the host's clock.
    pub fn begun_at(&self) -> Timestamp {
        self.begun_at
    }

    /// Opens a stream; several may be open at once. `name` is unique in the take.
    ///
    /// # Errors
    ///
    /// The host's fault.
    pub async fn stream(&self, name: &str) -> Result<Sink, Fault> {
        let open = StreamOpen { take: self.id.clone(), stream: name.to_owned() };
        match self.host.send(call::STREAM_OPEN, &open).await? {
            (_, Some(Object::Sink(handle))) => {
                Ok(Sink { handle: Some(handle), stream: name.to_owned() })
            }
            _ => Err(Fault::bug("host.object", "the host answered without a sink")),
        }
    }

    /// Finishes the take: its streams are complete, and belong together from now on.
    ///
    /// # Errors
    ///
    /// The host's fault: a stream of it failed, or was not finished.
    pub async fn finish(self) -> Result<FinishedTake, Fault> {
        self.finish_with(Value::Null).await
    }

    /// As [`finish`](OpenTake::finish), with what was learned while the streams were produced
    /// (where the database's log stood at their end, say). Whoever adopts the take finds it in
    /// [`FinishedTake::facts`]: the streams themselves cannot be read before they are sealed.
    ///
    /// # Errors
    ///
    /// As [`finish`](OpenTake::finish).
    pub async fn finish_with(self, facts: Value) -> Result<FinishedTake, Fault> {
        let OpenTake { host, id, begun_at } = self;
        let finish = TakeFinish { take: id, facts: facts.clone() };
        let receipts = host.ask(call::TAKE_FINISH, &finish).await?;
        Ok(FinishedTake { begun_at, receipts, facts })
    }
}

impl Sink {
    /// Borrows a buffer of at least `min_len` bytes from the host, waiting until one is free:
    /// that wait is the back pressure. What is filled in there is never copied on its way.
    ///
    /// # Errors
    ///
    /// The host's fault if it could not store the stream.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future borrows nothing.
    pub async fn buffer(&mut self, min_len: usize) -> Result<LentBuffer, Fault> {
        let Some(handle) = &mut self.handle else { return Err(self.gone()) };
        match handle.buffer(min_len).await {
            Ok(buffer) => Ok(buffer),
            Err(error) => Err(self.why_closed(&error).await),
        }
    }

    /// Sends a chunk: a lent buffer after [`freeze`](LentBuffer::freeze), or bytes of one's own.
    ///
    /// # Errors
    ///
    /// The host's fault if it could not store the stream.
    pub async fn send(&mut self, chunk: impl Into<Chunk>) -> Result<(), Fault> {
        let Some(handle) = &mut self.handle else { return Err(self.gone()) };
        match handle.send(chunk).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.why_closed(&error).await),
        }
    }

    /// Ends the stream, and waits until every byte of it survives a power cut.
    ///
    /// # Errors
    ///
    /// The host's fault: why the stream could not be stored.
    pub async fn finish(mut self) -> Result<Receipt, Fault> {
        let Some(handle) = self.handle.take() else { return Err(self.gone()) };
        finish(handle).await
    }

    /// The host closes a stream that it could not store; the answer to `finish` says why.
    async fn why_closed(&mut self, error: &SinkError) -> Fault {
        if *error == SinkError::Closed
            && let Some(handle) = self.handle.take()
        {
            return match finish(handle).await {
                Err(fault) => fault,
                // Of less than was sent.
                Ok(_) => message::cut_short(),
            };
        }
        let message = format!("the stream `{}` takes no such chunk", self.stream);
        Fault::bug("stream.refused", message).caused_by(error)
    }

    fn gone(&self) -> Fault {
        let message = format!("the stream `{}` was closed before", self.stream);
        Fault::bug("stream.closed", message)
    }
}

async fn finish(handle: SinkHandle) -> Result<Receipt, Fault> {
    match handle.finish().await {
        Ok(receipt) => message::decode(&receipt),
        Err(CallError::Refused(error)) => Err(message::decode_fault(&error)),
        Err(CallError::Fault(fault)) => Err(host_fault("stream.finish", &fault)),
    }
}

impl Source {
    /// Bytes in the stream.
    pub fn length(&self) -> u64 {
        self.handle.len()
    }

    /// Reads up to `length` bytes from `offset` on; fewer only at the end.
    ///
    /// # Errors
    ///
    /// The host's fault: [`Permanent`](fsm_core::Class::Permanent) if the archive is damaged
    /// there.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, Fault> {
        match self.handle.read_at(offset, length as u64).await {
            Ok(bytes) => Ok(bytes),
            Err(CallError::Refused(error)) => Err(message::decode_fault(&error)),
            Err(CallError::Fault(fault)) => {
                Err(host_fault(&format!("source.read `{}`", self.stream), &fault))
            }
        }
    }
}
