//! An archive in memory that serves a plugin's steps as Mercury does.
//!
//! **Promise.** What Mercury keeps over the death of its process is kept by the [`Archive`]:
//! finished takes, the bytes of finished streams, points. What it loses is lost: a take is open in
//! one [`Serving`], of which there is one a process. A finished take is found again under its
//! name, one that was not finished starts over under a new id. A point is sealed from whole takes,
//! and found again under its key.
//!
//! Calls are counted, and one of them can be made to fail: see [`Archive::stumbling`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::ready,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use bytes::Bytes;
use plugin_sdk::{
    Class, Fault, Host, ItemId, OperationId, PointId, PointNotes, Receipt, TakeId, Timestamp,
    abi::{
        BoxFuture, CallError, HostCalls, HostSink, HostSource, LentBuffer, Object, Reply,
        SinkError, SinkHandle, SourceHandle,
    },
    message::{self, SealCall, SourceOpen, StreamOpen, TakeBegin, TakeBegun, TakeFinish, call},
};
use serde::Serialize;
use serde_json::Value;

/// What a sink lends: two pages of a small database, so that a stream takes several.
const BUFFER_BYTES: usize = 8192;

/// What survives. Clones are the same archive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Archive(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    takes: Vec<Row>,
    held: BTreeMap<(TakeId, String), Bytes>,
    points: BTreeMap<PointId, Point>,
    found_again: usize,
    calls: usize,
    stumble: Option<(usize, Moment)>,
}

#[derive(Clone, Debug)]
struct Row {
    name: String,
    id: TakeId,
    begun_at: Timestamp,
    finished: Option<Vec<Receipt>>,
    facts: Value,
}

/// A sealed point.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Point {
    /// What its plugin noted.
    pub(crate) notes: PointNotes,
    /// The bytes of its streams, by name.
    pub(crate) streams: BTreeMap<String, Bytes>,
    receipts: Vec<Receipt>,
}

/// Whether a call fails before it has done its work, or after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Moment::Before => "before",
            Moment::After => "after",
        })
    }
}

impl Point {
    /// A point of one stream that is there from the start.
    pub(crate) fn of(stream: &str, bytes: impl Into<Bytes>) -> Self {
        let streams = BTreeMap::from([(stream.to_owned(), bytes.into())]);
        Point { streams, ..Point::default() }
    }
}

impl Archive {
    /// An empty archive in which the call numbered `call` fails, retryably and once: the calls of
    /// a host, the end of a stream, and the reads of a source, counted together from 1.
    pub(crate) fn stumbling(call: usize, moment: Moment) -> Self {
        let archive = Archive::default();
        archive.kept().stumble = Some((call, moment));
        archive
    }

    /// Puts a point there.
    pub(crate) fn put(&self, id: &PointId, point: Point) {
        self.kept().points.insert(id.clone(), point);
    }

    /// The host of a new process.
    pub(crate) fn host(&self) -> Host {
        let item = ItemId::new("sqlite", "local", "trial").unwrap();
        let serving = Serving { archive: self.clone(), open: Arc::default() };
        Host::served_by(Arc::new(serving), OperationId::new("trial"), item)
    }

    /// All points, by id.
    pub(crate) fn points(&self) -> BTreeMap<PointId, Point> {
        self.kept().points.clone()
    }

    /// The streams that are kept for no point yet.
    pub(crate) fn held(&self) -> Vec<String> {
        self.kept().held.keys().map(|(take, stream)| format!("{take}/{stream}")).collect()
    }

    /// How often a finished take or a point was found again instead of being made.
    pub(crate) fn found_again(&self) -> usize {
        self.kept().found_again
    }

    /// How many calls were made.
    pub(crate) fn calls(&self) -> usize {
        self.kept().calls
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }

    /// Does the work of one call, unless it is the one that fails.
    fn serve<T>(&self, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        let moment = {
            let mut kept = self.kept();
            kept.calls += 1;
            let calls = kept.calls;
            kept.stumble.filter(|(call, _)| *call == calls).map(|(_, moment)| moment)
        };
        let busy = || Fault::retryable("archive.busy", "the archive stumbles");
        match moment {
            Some(Moment::Before) => Err(busy()),
            Some(Moment::After) => work().and_then(|_| Err(busy())),
            None => work(),
        }
    }
}

impl Kept {
    fn begin(&mut self, name: String) -> TakeBegun {
        let done = self.takes.iter().find(|row| row.name == name && row.finished.is_some());
        if let Some(Row { id: take, begun_at, finished, facts, .. }) = done.cloned() {
            self.found_again += 1;
            return TakeBegun { take, begun_at, finished, facts };
        }
        let before = self.takes.iter().filter(|row| row.name == name).count();
        let id = TakeId::new(format!("trial.{name}.{}", before + 1));
        let begun_at = Timestamp::from_unix_ms(self.takes.len() as u64);
        let (finished, facts) = (None, Value::Null);
        self.takes.push(Row { name, id: id.clone(), begun_at, finished, facts: facts.clone() });
        TakeBegun { take: id, begun_at, finished: None, facts }
    }

    fn seal(&mut self, seal: SealCall) -> Result<PointId, Fault> {
        let id = PointId::new(match seal.key.as_str() {
            "point" => "trial".to_owned(),
            key => format!("trial.{key}"),
        });
        let SealCall { notes, receipts, .. } = seal;
        let given: Vec<_> = self.takes.iter().filter_map(|row| row.finished.as_ref()).collect();
        if let Some(other) =
            receipts.iter().find(|&wanted| !given.iter().any(|all| all.contains(wanted)))
        {
            let message =
                format!("the receipt of stream `{}` is of no finished take", other.stream);
            return Err(Fault::bug("seal.receipt", message));
        }
        let is_cut = |all: &&Vec<Receipt>| {
            let wanted = all.iter().filter(|receipt| receipts.contains(receipt)).count();
            wanted != 0 && wanted != all.len()
        };
        if given.iter().any(is_cut) {
            return Err(Fault::user("seal.part", "a take is sealed whole or not at all"));
        }
        if let Some(there) = self.points.get(&id) {
            if there.receipts != receipts {
                return Err(Fault::user("seal.exists", format!("there is another point {id}")));
            }
            self.found_again += 1;
            return Ok(id);
        }
        let mut streams = BTreeMap::new();
        for Receipt { take, stream, .. } in &receipts {
            let held = self.held.get(&(take.clone(), stream.clone()));
            let held = held.ok_or_else(|| Fault::bug("seal.hold", "a stream is not held"))?;
            streams.insert(stream.clone(), held.clone());
        }
        self.held.retain(|(take, _), _| !receipts.iter().any(|receipt| receipt.take == *take));
        self.points.insert(id.clone(), Point { notes, streams, receipts });
        Ok(id)
    }
}

/// What answers the steps of one process.
#[derive(Debug)]
struct Serving {
    archive: Archive,
    open: Arc<Mutex<BTreeMap<TakeId, Open>>>,
}

#[derive(Debug, Default)]
struct Open {
    opened: BTreeSet<String>,
    finished: Vec<Receipt>,
}

impl Serving {
    fn answer(&self, op: &str, body: &[u8]) -> Result<Reply, Fault> {
        match op {
            call::TAKE_BEGIN => document(&self.take_begin(message::decode(body)?)),
            call::TAKE_FINISH => document(&self.take_finish(message::decode(body)?)?),
            call::STREAM_OPEN => Ok(document(&())?.with(self.stream_open(message::decode(body)?)?)),
            call::SOURCE_OPEN => Ok(document(&())?.with(self.source_open(message::decode(body)?)?)),
            call::SEAL => document(&self.archive.kept().seal(message::decode(body)?)?),
            other => Err(Fault::bug("host.unknown_call", format!("nobody serves `{other}`"))),
        }
    }

    fn take_begin(&self, TakeBegin { name }: TakeBegin) -> TakeBegun {
        let begun = self.archive.kept().begin(name);
        if begun.finished.is_none() {
            self.open.lock().unwrap().insert(begun.take.clone(), Open::default());
        }
        begun
    }

    fn take_finish(&self, finish: TakeFinish) -> Result<Vec<Receipt>, Fault> {
        let TakeFinish { take: id, facts } = finish;
        let mut open = self.open.lock().unwrap();
        let take = open.get(&id).ok_or_else(|| unknown(&id))?;
        if take.finished.len() != take.opened.len() {
            return Err(Fault::retryable("take.unfinished", "a stream was not finished"));
        }
        let finished = take.finished.clone();
        let mut kept = self.archive.kept();
        let row = kept.takes.iter_mut().find(|row| row.id == id).ok_or_else(|| unknown(&id))?;
        row.finished = Some(finished.clone());
        row.facts = facts;
        open.remove(&id);
        Ok(finished)
    }

    fn stream_open(&self, StreamOpen { take: id, stream }: StreamOpen) -> Result<Object, Fault> {
        let mut open = self.open.lock().unwrap();
        let take = open.get_mut(&id).ok_or_else(|| unknown(&id))?;
        if !take.opened.insert(stream.clone()) {
            return Err(Fault::bug("stream.twice", format!("`{stream}` was opened before")));
        }
        let (archive, open) = (self.archive.clone(), Arc::clone(&self.open));
        let sink = Sink { archive, open, take: id, stream, bytes: Vec::new() };
        Ok(Object::Sink(SinkHandle::serve(sink)))
    }

    fn source_open(&self, SourceOpen { point: id, stream }: SourceOpen) -> Result<Object, Fault> {
        let missing =
            |what| Fault::new(Class::Chain, "point.missing", format!("no {what} in {id}"));
        let kept = self.archive.kept();
        let point = kept.points.get(&id).ok_or_else(|| missing("point".to_owned()))?;
        let bytes = point.streams.get(&stream).ok_or_else(|| missing(format!("`{stream}`")))?;
        let source = Source { archive: self.archive.clone(), bytes: bytes.clone() };
        Ok(Object::Source(SourceHandle::serve(source)))
    }
}

impl HostCalls for Serving {
    fn call(&self, op: &str, body: Bytes) -> BoxFuture<Reply> {
        let reply = self.archive.serve(|| self.answer(op, &body));
        let reply = reply.unwrap_or_else(|fault| Reply::error(message::encode_fault(&fault)));
        Box::pin(ready(reply))
    }
}

fn document<T: Serialize>(body: &T) -> Result<Reply, Fault> {
    message::encode(body).map(Reply::ok)
}

fn unknown(take: &TakeId) -> Fault {
    Fault::bug("take.unknown", format!("take {take} was not begun by this process"))
}

/// A stream that is being written. Dropped unfinished, it leaves its take unfinished.
struct Sink {
    archive: Archive,
    open: Arc<Mutex<BTreeMap<TakeId, Open>>>,
    take: TakeId,
    stream: String,
    bytes: Vec<u8>,
}

impl HostSink for Sink {
    fn poll_buffer(
        &mut self,
        min_len: usize,
        _: &mut Context<'_>,
    ) -> Poll<Result<LentBuffer, SinkError>> {
        Poll::Ready(Ok(LentBuffer::new(vec![0; min_len.max(BUFFER_BYTES)])))
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, chunk: Bytes) -> Result<(), SinkError> {
        self.bytes.extend_from_slice(&chunk);
        Ok(())
    }

    fn finish(&mut self) -> BoxFuture<Result<Bytes, CallError>> {
        let (take, stream) = (self.take.clone(), self.stream.clone());
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        let hash = blake3::hash(&bytes).to_hex().to_string();
        let receipt = Receipt { take: take.clone(), stream, length: bytes.len() as u64, hash };
        let receipt = self.archive.serve(|| {
            let mut open = self.open.lock().unwrap();
            let finished = &mut open.get_mut(&take).ok_or_else(|| unknown(&take))?.finished;
            finished.push(receipt.clone());
            self.archive.kept().held.insert((take.clone(), receipt.stream.clone()), bytes);
            message::encode(&receipt)
        });
        Box::pin(ready(receipt.map_err(refused)))
    }
}

/// A stream of a point.
struct Source {
    archive: Archive,
    bytes: Bytes,
}

impl HostSource for Source {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, len: u64) -> BoxFuture<Result<Bytes, CallError>> {
        let (from, to) = (self.len().min(offset), self.len().min(offset + len));
        let read = self.archive.serve(|| Ok(self.bytes.slice(from as usize..to as usize)));
        Box::pin(ready(read.map_err(refused)))
    }
}

fn refused(fault: Fault) -> CallError {
    CallError::Refused(message::encode_fault(&fault))
}
