//! Streams between a plugin and the archive.
//!
//! **How.** A stream owns a few buffers. The plugin fills one, the host takes it through the byte
//! rate into the archive, and the buffer comes back when the archive has done with it: no chunk is
//! copied on that way, and a plugin that is faster than the archive waits for a buffer.

use std::sync::Arc;

use archive::{StreamReader, StreamWriter};
use bytes::Bytes;
use fsm_core::{Cancellation, Fault};
use futures::future::{BoxFuture, Either, select};
use plugin_sdk::{
    OperationId, TakeId,
    abi::{CallError, HostSource, Object, SinkHandle, SourceHandle},
    host::{BufferPool, ChannelSink, ChunkReceiver},
    message,
};
use throttle::ByteRate;

use super::calls::{Scope, Services};
use crate::{Error, catalog::FinishedStream, convert, events::Event};

/// Two would do for the plugin and the archive to work at once; two more even out their pace.
const BUFFERS: usize = 4;
const BUFFER_BYTES: usize = 1 << 20;

/// A stream that is open, and says so.
struct Announced {
    services: Arc<Services>,
    operation: OperationId,
    stream: String,
}

impl Announced {
    fn open(services: &Arc<Services>, operation: &OperationId, stream: String) -> Self {
        let (services, operation) = (Arc::clone(services), operation.clone());
        services.tell(Event::StreamOpened { operation: operation.clone(), stream: stream.clone() });
        Announced { services, operation, stream }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let (operation, stream) = (self.operation.clone(), std::mem::take(&mut self.stream));
        self.services.tell(Event::StreamClosed { operation, stream });
    }
}

/// A sink for the plugin; what it is sent goes to `writer`, until its step has `ended`.
pub(super) fn into_archive(
    services: Arc<Services>,
    scope: Arc<Scope>,
    ended: Cancellation,
    take: TakeId,
    writer: StreamWriter,
) -> Object {
    let (sink, mut chunks) = ChannelSink::new(BufferPool::new(BUFFERS, BUFFER_BYTES));
    let tokio = services.tokio.clone();
    let announced = Announced::open(&services, &scope.operation, writer.name().to_owned());
    tokio.spawn(async move {
        let stored = {
            let storing = std::pin::pin!(store(&services, writer, &mut chunks));
            match select(storing, ended.requested()).await {
                Either::Left((stored, _)) => stored,
                // What is queued would wait for its turn at the byte rate, for nobody.
                Either::Right(_) => Err(Fault::interrupted("its step has ended").into()),
            }
        };
        let receipt = stored.and_then(|receipt| {
            let given = convert::receipt(&receipt);
            let stats = chunks.stats();
            let (lent_chunks, foreign_chunks) = (stats.lent, stats.foreign);
            scope.stream_finished(&take, FinishedStream { receipt, lent_chunks, foreign_chunks });
            Ok(message::encode(&given)?)
        });
        // Closed before the plugin hears of it: what it does next may let others open theirs.
        drop((announced, scope));
        match receipt {
            Ok(receipt) => chunks.complete(Ok(receipt)),
            Err(error) => chunks.fail(message::encode_fault(error.fault())),
        }
    });
    Object::Sink(SinkHandle::serve(sink))
}

async fn store(
    services: &Services,
    mut writer: StreamWriter,
    chunks: &mut ChunkReceiver,
) -> Result<archive::Receipt, Error> {
    while let Some(chunk) = chunks.recv().await {
        pace(&services.rate, &chunk).await;
        writer.write(chunk).await?;
    }
    if !chunks.is_finished() {
        let message = format!("the plugin gave the stream `{}` up", writer.name());
        return Err(Fault::retryable("stream.given_up", message).into());
    }
    Ok(writer.finish().await?)
}

/// Waits until `bytes` may move.
async fn pace(rate: &ByteRate, bytes: &Bytes) {
    let mut left = bytes.len() as u64;
    while left > 0 {
        // A large piece takes several turns, so that other streams have theirs in between.
        left -= rate.acquire(left).await;
    }
}

/// A source for the plugin that reads `stream`.
pub(super) fn from_archive(
    services: &Arc<Services>,
    operation: &OperationId,
    name: String,
    stream: StreamReader,
) -> Object {
    Object::Source(SourceHandle::serve(ArchiveSource {
        _announced: Announced::open(services, operation, name),
        stream,
        rate: services.rate.clone(),
        tokio: services.tokio.clone(),
    }))
}

struct ArchiveSource {
    _announced: Announced,
    stream: StreamReader,
    rate: ByteRate,
    tokio: tokio::runtime::Handle,
}

impl HostSource for ArchiveSource {
    fn len(&self) -> u64 {
        self.stream.len()
    }

    fn read_at(&self, offset: u64, len: u64) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let (stream, rate) = (self.stream.clone(), self.rate.clone());
        let reading = self.tokio.spawn(async move {
            let bytes = stream.read_at(offset, len).await?;
            pace(&rate, &bytes).await;
            Ok::<_, Error>(bytes)
        });
        Box::pin(async move {
            let refused = |fault: &Fault| CallError::Refused(message::encode_fault(fault));
            match reading.await {
                Ok(Ok(bytes)) => Ok(bytes),
                Ok(Err(error)) => Err(refused(error.fault())),
                Err(_) => Err(refused(&Fault::interrupted("the engine is shutting down"))),
            }
        })
    }
}
