//! Sealing: the one moment at which a recovery point comes into being.
//!
//! **Promise.** A point is visible whole or not at all, and at most once for its id.
//!
//! **How.** The holds say where the bytes are; the point repeats it and is put at head + 1, if
//! that place is empty. Somebody who was faster moves the head, and the loop looks again.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Content, PackList};
use crate::hold::HoldRecord;
use crate::item::ItemInner;
use crate::layout::{OpenObject, open_object};
use crate::log::{Points, fetch_body};
use crate::pack::PackRef;
use crate::point::{PointEntry, SealRequest, StreamEntry, seal_point};
use crate::store::Put;

/// What the point will be made of.
#[derive(Default)]
struct Parts {
    streams: Vec<StreamEntry>,
    packs: PackList,
    contents: Vec<Content>,
}

impl Parts {
    fn add(&mut self, stream: StreamEntry, mut content: Content, packs: &[PackRef]) {
        content.renumber(|pack| self.packs.number(&packs[pack as usize]));
        self.streams.push(stream);
        self.contents.push(content);
    }
}

pub(crate) async fn seal(item: &ItemInner, request: SealRequest) -> Result<PointEntry> {
    let mut parts = None;
    loop {
        let points = item.log.refresh(item).await?;
        if let Some(found) = points.find(&request.point) {
            let found = same_data(&request, found, &points)?;
            // Whoever put it may have been stopped before it was durable.
            item.store.make_durable(&item.paths.point(found.seq)).await?;
            return Ok(found);
        }
        points.fence(request.epoch)?;
        for base in &request.base {
            find(&points, base.as_str(), "the base does not exist")?;
        }
        let parts = match &mut parts {
            Some(parts) => parts,
            none => none.insert(gather(item, &request, &points).await?),
        };
        let seq = points.head.checked_add(1).ok_or_else(|| {
            Error::damaged(item.paths.point(points.head), "it leaves no place for another point")
        })?;
        let entry = PointEntry {
            seq,
            id: request.point.clone(),
            epoch: request.epoch,
            time_unix_ms: request.time_unix_ms,
            kind: request.kind.clone(),
            base: request.base.clone(),
            meta: request.meta.clone(),
            alias_of: request.alias_of.clone(),
            streams: parts.streams.clone(),
        };
        let path = item.paths.point(entry.seq);
        let object = seal_point(&item.data, &path, &entry, &parts.packs, &parts.contents)?;
        if item.store.put_new(&path, object).await? == Put::Created {
            return Ok(entry);
        }
    }
}

fn find<'p>(points: &'p Points, id: &str, missing: &'static str) -> Result<&'p Arc<PointEntry>> {
    points.find(&id.into()).ok_or_else(|| Error::not_found(format!("point {id}"), missing))
}

/// Sealing again finds the point that is there, if it is of the same data.
fn same_data(request: &SealRequest, found: &PointEntry, points: &Points) -> Result<PointEntry> {
    // What was aliased may have been pruned since; then its id has to do.
    let (aliased, is_known) = match &request.alias_of {
        Some(id) => points.find(id).map_or((&[][..], false), |entry| (&entry.streams, true)),
        None => (&[][..], true),
    };
    let wanted: HashSet<_> = aliased
        .iter()
        .map(|stream| (&stream.name, stream.hash))
        .chain(request.receipts.iter().map(|receipt| (&receipt.stream, receipt.hash)))
        .collect();
    let there: HashSet<_> =
        found.streams.iter().map(|stream| (&stream.name, stream.hash)).collect();
    let fits = if is_known { wanted == there } else { wanted.is_subset(&there) };
    let same = found.alias_of == request.alias_of && fits;
    match same {
        true => Ok(found.clone()),
        false => Err(Error::new(
            ErrorKind::Exists,
            format!("point {}", request.point),
            "it was sealed with different data",
        )),
    }
}

async fn gather(item: &ItemInner, request: &SealRequest, points: &Points) -> Result<Parts> {
    let mut parts = Parts::default();
    if let Some(id) = &request.alias_of {
        let entry = find(points, id.as_str(), "the point to alias does not exist")?;
        let body = fetch_body(item, entry).await?;
        for (stream, content) in entry.streams.iter().zip(body.contents) {
            parts.add(stream.clone(), content, &body.packs);
        }
    }
    let mut finished = BTreeMap::<_, usize>::new();
    for receipt in &request.receipts {
        let hold = HoldRecord::find(item, receipt).await?;
        let stream = StreamEntry {
            name: receipt.stream.clone(),
            take: receipt.take.clone(),
            length: receipt.length,
            hash: receipt.hash,
        };
        if parts.streams.iter().any(|other| other.name == stream.name) {
            return Err(Error::input(stream.name, "two streams of the point have this name"));
        }
        parts.add(stream, hold.content, &hold.packs);
        *finished.entry(&receipt.take).or_default() += 1;
    }
    for (take, sealed) in finished {
        let paths = item.paths.take(&item.names, take.as_str());
        let objects = item.store.list(paths.directory()).await?;
        let held = objects.iter().filter(|o| open_object(&o.path) == Some(OpenObject::Hold));
        if held.count() != sealed {
            return Err(Error::input(
                format!("take {take}"),
                "a finished stream of it has no receipt here: a take is sealed whole",
            ));
        }
    }
    Ok(parts)
}
