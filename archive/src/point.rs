//! Recovery points as callers see them, and as they lie in the archive.
//!
//! `magic | salt | head length (u32, little-endian) | head | body`. Head and body are sealed boxes
//! 0 and 1. The head says what the point is and is all that a listing reads; the body says where
//! the bytes are.

use std::sync::Arc;

use bytes::Bytes;

use crate::crypto::Secret;
use crate::error::{Error, Result};
use crate::extent::{Content, PackList};
use crate::ids::{Epoch, PointId, TakeId};
use crate::pack::PackRef;
use crate::receipt::{Receipt, StreamHash};
use crate::record::{HEAD_BYTES, Magic, Opener, Sealer};
use crate::wire::{Reader, Writer};

const VERSION: u64 = 1;
const HEAD_LENGTH_BYTES: usize = 4;
/// Bytes before the head.
pub(crate) const PREFIX_BYTES: usize = HEAD_BYTES + HEAD_LENGTH_BYTES;

/// One stream of a recovery point.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamEntry {
    /// The stream's name.
    pub name: String,
    /// The take that produced it.
    pub take: TakeId,
    /// Bytes in it.
    pub length: u64,
    /// The hash of all of them.
    pub hash: StreamHash,
}

/// A recovery point: what was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PointEntry {
    /// Its place in the item's log of points: 1 is the first, and each later one is higher.
    pub seq: u64,
    /// The caller's id.
    pub id: PointId,
    /// The epoch of the writer that sealed it.
    pub epoch: Epoch,
    /// The moment that the caller gave, in milliseconds since 1970 UTC.
    pub time_unix_ms: u64,
    /// What kind of point it is, in the caller's encoding.
    pub kind: Bytes,
    /// The points that this one needs to be restored.
    pub base: Vec<PointId>,
    /// The caller's own description.
    pub meta: Bytes,
    /// The point whose data this one has again, if it is an alias.
    pub alias_of: Option<PointId>,
    /// Its streams, in the order of their receipts.
    pub streams: Vec<StreamEntry>,
}

/// What to seal: see [`Item::seal`](crate::Item::seal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealRequest {
    pub(crate) point: PointId,
    pub(crate) epoch: Epoch,
    pub(crate) time_unix_ms: u64,
    pub(crate) kind: Bytes,
    pub(crate) base: Vec<PointId>,
    pub(crate) meta: Bytes,
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) alias_of: Option<PointId>,
}

impl SealRequest {
    /// A point without streams yet, sealed by the writer of `epoch`, for the moment
    /// `time_unix_ms` (milliseconds since 1970 UTC).
    pub fn new(point: impl Into<PointId>, epoch: Epoch, time_unix_ms: u64) -> Self {
        Self {
            point: point.into(),
            epoch,
            time_unix_ms,
            kind: Bytes::new(),
            base: Vec::new(),
            meta: Bytes::new(),
            receipts: Vec::new(),
            alias_of: None,
        }
    }

    /// Says what kind of point it is, in an encoding of the caller's.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<Bytes>) -> Self {
        self.kind = kind.into();
        self
    }

    /// Names a point that this one needs to be restored. It must exist.
    #[must_use]
    pub fn base(mut self, base: impl Into<PointId>) -> Self {
        self.base.push(base.into());
        self
    }

    /// Attaches the caller's own description.
    #[must_use]
    pub fn meta(mut self, meta: impl Into<Bytes>) -> Self {
        self.meta = meta.into();
        self
    }

    /// Adds the streams that `receipts` stand for.
    #[must_use]
    pub fn receipts(mut self, receipts: impl IntoIterator<Item = Receipt>) -> Self {
        self.receipts.extend(receipts);
        self
    }

    /// Gives the point all streams of an earlier one: the same data at a new time. Nothing is
    /// copied.
    #[must_use]
    pub fn alias_of(mut self, point: impl Into<PointId>) -> Self {
        self.alias_of = Some(point.into());
        self
    }
}

/// Where the streams of a point are, in the order of [`PointEntry::streams`].
#[derive(Clone, Debug)]
pub(crate) struct PointBody {
    pub(crate) packs: Vec<PackRef>,
    pub(crate) contents: Vec<Content>,
}

/// The whole object at `path`.
pub(crate) fn seal_point(
    data: &Secret,
    path: &str,
    entry: &PointEntry,
    packs: &PackList,
    contents: &[Content],
) -> Result<Vec<u8>> {
    let sealer = Sealer::new(data)?;
    let head = sealer.seal(0, path, &encode_head(entry))?;
    let mut body = Writer::default();
    body.number(VERSION);
    packs.write(&mut body);
    for content in contents {
        content.write(&mut body);
    }
    let body = sealer.seal(1, path, &body.finish())?;
    let length = u32::try_from(head.len())
        .map_err(|_| Error::input(entry.id.as_str(), "its description is too long"))?;
    Ok([sealer.head(Magic::POINT), length.to_le_bytes().to_vec(), head, body].concat())
}

fn encode_head(entry: &PointEntry) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.number(VERSION).text(entry.id.as_str()).number(entry.epoch.0);
    writer.number(entry.time_unix_ms).bytes(&entry.kind).bytes(&entry.meta);
    writer.count(entry.base.len());
    for base in &entry.base {
        writer.text(base.as_str());
    }
    writer.count(entry.alias_of.iter().len());
    if let Some(alias_of) = &entry.alias_of {
        writer.text(alias_of.as_str());
    }
    writer.count(entry.streams.len());
    for stream in &entry.streams {
        writer.text(&stream.name).text(stream.take.as_str());
        writer.number(stream.length).fixed(&stream.hash.0);
    }
    writer.finish()
}

/// How long the part of the object is that ends with the head.
pub(crate) fn head_end(path: &str, prefix: &[u8]) -> Result<usize> {
    let length = prefix.get(HEAD_BYTES..PREFIX_BYTES).and_then(|length| length.try_into().ok());
    let length = length.ok_or_else(|| Error::damaged(path, "it ends too early"))?;
    Ok(PREFIX_BYTES + u32::from_le_bytes(length) as usize)
}

/// Opens the head out of an object, or of a beginning that holds all of it.
pub(crate) fn open_head(
    data: &Secret,
    path: &str,
    seq: u64,
    object: &[u8],
) -> Result<Arc<PointEntry>> {
    let opener = Opener::new(data, Magic::POINT, path, object)?;
    let head = object
        .get(PREFIX_BYTES..head_end(path, object)?)
        .ok_or_else(|| Error::damaged(path, "it ends too early"))?;
    decode_head(seq, path, &opener.open(0, path, head)?).map(Arc::new)
}

fn decode_head(seq: u64, path: &str, payload: &[u8]) -> Result<PointEntry> {
    let mut reader = Reader::new(payload, path);
    reader.version(VERSION)?;
    let id = PointId::new(reader.text()?);
    let epoch = Epoch(reader.number()?);
    let time_unix_ms = reader.number()?;
    let kind = Bytes::copy_from_slice(reader.bytes()?);
    let meta = Bytes::copy_from_slice(reader.bytes()?);
    let mut texts = || -> Result<Vec<PointId>> {
        (0..reader.count(1)?).map(|_| reader.text().map(PointId::new)).collect()
    };
    let base = texts()?;
    let alias_of = texts()?.into_iter().next();
    let count = reader.count(35)?;
    let streams = (0..count)
        .map(|_| {
            Ok(StreamEntry {
                name: reader.text()?,
                take: TakeId::new(reader.text()?),
                length: reader.number()?,
                hash: StreamHash(reader.array()?),
            })
        })
        .collect::<Result<_>>()?;
    Ok(PointEntry { seq, id, epoch, time_unix_ms, kind, base, meta, alias_of, streams })
}

/// Opens the body out of a whole object.
pub(crate) fn open_body(
    data: &Secret,
    path: &str,
    entry: &PointEntry,
    object: &[u8],
) -> Result<PointBody> {
    let opener = Opener::new(data, Magic::POINT, path, object)?;
    let body = object
        .get(head_end(path, object)?..)
        .ok_or_else(|| Error::damaged(path, "it ends too early"))?;
    let payload = opener.open(1, path, body)?;
    let mut reader = Reader::new(&payload, path);
    reader.version(VERSION)?;
    let packs = PackList::read(&mut reader)?;
    let contents = entry
        .streams
        .iter()
        .map(|stream| Content::read(&mut reader, packs.len(), stream.length))
        .collect::<Result<_>>()?;
    Ok(PointBody { packs, contents })
}
