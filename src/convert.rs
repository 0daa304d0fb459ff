//! The one place that converts between the archive's opaque records and the SDK's types.

use archive::{PointEntry, SealRequest};
use fsm_core::{Fault, Timestamp};
use plugin_sdk::{
    ItemId, PointId, PointKind, PointMeta, PointNotes, Receipt, StreamInfo, TakeId,
    message::SealCall,
};
use serde::{Deserialize, Serialize};

use crate::Error;

/// What the engine writes into the archive's opaque `meta` of a point.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    schema: u16,
    notes: PointNotes,
}

const META_SCHEMA: u16 = 1;

/// The recovery point behind an archive's entry.
pub(crate) fn point_meta(item: &ItemId, entry: &PointEntry) -> Result<PointMeta, Error> {
    let unreadable = |what: &str| {
        let message = format!("the {what} of recovery point {} cannot be read", entry.id);
        let advice = "it was written by a newer version; upgrade this agent";
        Error::from(Fault::permanent("point.unreadable", message).advise(advice))
    };
    let kind = kind_from_bytes(&entry.kind).ok_or_else(|| unreadable("kind"))?;
    let meta: Meta = serde_json::from_slice(&entry.meta).map_err(|_| unreadable("notes"))?;
    let mut point = PointMeta::new(
        PointId::new(entry.id.as_str()),
        item.clone(),
        entry.seq,
        kind,
        Timestamp::from_unix_ms(entry.time_unix_ms),
    );
    point.base = entry.base.iter().map(|base| PointId::new(base.as_str())).collect();
    point.alias_of = entry.alias_of.as_ref().map(|of| PointId::new(of.as_str()));
    point.notes = meta.notes;
    point.streams = entry
        .streams
        .iter()
        .map(|stream| StreamInfo { name: stream.name.clone(), length: stream.length })
        .collect();
    Ok(point)
}

/// The request that seals what a step asks for.
pub(crate) fn seal_request(
    point: &PointId,
    epoch: archive::Epoch,
    seal: &SealCall,
    receipts: Vec<archive::Receipt>,
) -> Result<SealRequest, Fault> {
    let mut request = SealRequest::new(point.as_str(), epoch, seal.taken_at.as_unix_ms())
        .kind(seal.kind.as_str())
        .meta(meta(&seal.notes)?)
        .receipts(receipts);
    for base in &seal.base {
        request = request.base(base.as_str());
    }
    Ok(request)
}

/// The request that seals the data of `of` again, for the moment `taken_at`.
pub(crate) fn alias_request(
    point: &PointId,
    epoch: archive::Epoch,
    of: &PointMeta,
    taken_at: Timestamp,
) -> Result<SealRequest, Fault> {
    let mut request = SealRequest::new(point.as_str(), epoch, taken_at.as_unix_ms())
        .kind(of.kind.as_str())
        .meta(meta(&of.notes)?)
        .alias_of(of.id.as_str());
    for base in &of.base {
        request = request.base(base.as_str());
    }
    Ok(request)
}

/// A receipt as plugins see it.
pub(crate) fn receipt(receipt: &archive::Receipt) -> Receipt {
    Receipt {
        take: TakeId::new(receipt.take.as_str()),
        stream: receipt.stream.clone(),
        length: receipt.length,
        hash: receipt.hash.to_string(),
    }
}

fn meta(notes: &PointNotes) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(&Meta { schema: META_SCHEMA, notes: notes.clone() }).map_err(|error| {
        Fault::bug("point.notes", "the point's notes have no JSON form").caused_by(&error)
    })
}

fn kind_from_bytes(bytes: &[u8]) -> Option<PointKind> {
    [PointKind::Full, PointKind::Differential, PointKind::Log]
        .into_iter()
        .find(|kind| kind.as_str().as_bytes() == bytes)
}
