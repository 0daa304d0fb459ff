//! An archive in memory: what survives the death of a process, beside the journal.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use fsm_core::{Fault, RunId, Timestamp};
use serde_json::Value;

use crate::{
    ItemId, PointId, PointMeta, Receipt, StreamInfo, TakeId,
    message::{SealCall, TakeBegun},
};

/// Takes, held streams and recovery points of one item, kept as Mercury keeps them.
///
/// **Promise.** A finished take is found again under its run and name; one that was not finished
/// starts over under a new id. A finished stream is held until it is sealed. A point is sealed
/// from whole takes, and found again under its key. Clones are the same archive.
#[derive(Clone, Default)]
pub struct MemoryArchive(Arc<Mutex<Kept>>);

#[derive(Clone, Default)]
struct Kept {
    takes: Vec<TakeRow>,
    held: BTreeMap<(TakeId, String), Bytes>,
    points: Vec<StoredPoint>,
    found_again: usize,
}

#[derive(Clone)]
struct TakeRow {
    run: RunId,
    name: String,
    id: TakeId,
    begun_at: Timestamp,
    finished: Option<Vec<Receipt>>,
    facts: Value,
}

/// A sealed point with its bytes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StoredPoint {
    /// What a plugin sees of it.
    pub meta: PointMeta,
    /// The bytes of its streams, by name.
    pub streams: BTreeMap<String, Bytes>,
    receipts: Vec<Receipt>,
}

impl StoredPoint {
    /// A point that is there from the start, not sealed by anybody.
    #[must_use]
    pub fn new(mut meta: PointMeta, streams: BTreeMap<String, Bytes>) -> Self {
        let infos = streams
            .iter()
            .map(|(name, bytes)| StreamInfo { name: name.clone(), length: bytes.len() as u64 });
        meta.streams = infos.collect();
        StoredPoint { meta, streams, receipts: Vec::new() }
    }
}

impl MemoryArchive {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another archive with the same content; from then on they differ.
    #[must_use]
    pub fn branch(&self) -> Self {
        MemoryArchive(Arc::new(Mutex::new(self.kept().clone())))
    }

    /// Puts a point there.
    pub fn put(&self, point: StoredPoint) {
        self.kept().points.push(point);
    }

    /// All points, oldest first.
    #[must_use]
    pub fn points(&self) -> Vec<StoredPoint> {
        self.kept().points.clone()
    }

    /// What a plugin sees of the points, oldest first.
    #[must_use]
    pub fn metas(&self) -> Vec<PointMeta> {
        self.kept().points.iter().map(|point| point.meta.clone()).collect()
    }

    /// The finished streams that belong to no point yet, as `take/stream`.
    #[must_use]
    pub fn held(&self) -> Vec<String> {
        self.kept().held.keys().map(|(take, stream)| format!("{take}/{stream}")).collect()
    }

    /// The finished takes whose streams belong to no point, in the order in which they were begun.
    #[must_use]
    pub fn unsealed(&self) -> Vec<TakeId> {
        let kept = self.kept();
        let is_held = |row: &&TakeRow| kept.held.keys().any(|(take, _)| *take == row.id);
        let finished = kept.takes.iter().filter(|row| row.finished.is_some());
        finished.filter(is_held).map(|row| row.id.clone()).collect()
    }

    /// How often a finished take or a point was found again instead of being made.
    #[must_use]
    pub fn found_again(&self) -> usize {
        self.kept().found_again
    }

    /// A stream of a point.
    pub(super) fn stream(&self, point: &PointId, stream: &str) -> Option<Bytes> {
        let kept = self.kept();
        let point = kept.points.iter().find(|stored| stored.meta.id == *point)?;
        point.streams.get(stream).cloned()
    }

    pub(super) fn begin(&self, run: &RunId, name: String, now: Timestamp) -> TakeBegun {
        let mut kept = self.kept();
        let same = |row: &&TakeRow| row.run == *run && row.name == name;
        if let Some(row) = kept.takes.iter().filter(same).find(|row| row.finished.is_some()) {
            let begun = TakeBegun {
                take: row.id.clone(),
                begun_at: row.begun_at,
                finished: row.finished.clone(),
                facts: row.facts.clone(),
            };
            kept.found_again += 1;
            return begun;
        }
        let attempt = kept.takes.iter().filter(same).count() + 1;
        let id = TakeId::new(format!("{run}.{name}.{attempt}"));
        let begun =
            TakeBegun { take: id.clone(), begun_at: now, finished: None, facts: Value::Null };
        let (run, facts) = (run.clone(), Value::Null);
        kept.takes.push(TakeRow { run, name, id, begun_at: now, finished: None, facts });
        begun
    }

    pub(super) fn finish(&self, take: &TakeId, receipts: &[Receipt], facts: Value) {
        let mut kept = self.kept();
        if let Some(row) = kept.takes.iter_mut().find(|row| row.id == *take) {
            (row.finished, row.facts) = (Some(receipts.to_vec()), facts);
        }
    }

    pub(super) fn hold(&self, receipt: &Receipt, bytes: Bytes) {
        self.kept().held.insert((receipt.take.clone(), receipt.stream.clone()), bytes);
    }

    pub(super) fn seal(
        &self,
        run: &RunId,
        item: &ItemId,
        seal: SealCall,
    ) -> Result<PointId, Fault> {
        let id = PointId::new(match seal.key.as_str() {
            "point" => run.to_string(),
            key => format!("{run}.{key}"),
        });
        let mut kept = self.kept();
        let all_finished: Vec<_> =
            kept.takes.iter().filter_map(|row| row.finished.clone()).collect();
        check_whole(&seal.receipts, &all_finished)?;
        if let Some(there) = kept.points.iter().find(|point| point.meta.id == id) {
            if there.receipts != seal.receipts {
                let message = format!("there is another point {id}");
                return Err(Fault::user("archive.exists", message));
            }
            kept.found_again += 1;
            return Ok(id);
        }
        let mut streams = BTreeMap::new();
        for Receipt { take, stream, .. } in &seal.receipts {
            let held =
                kept.held.get(&(take.clone(), stream.clone())).cloned().ok_or_else(|| {
                    Fault::bug("seal.hold", format!("stream `{stream}` of take {take} is not held"))
                })?;
            if streams.insert(stream.clone(), held).is_some() {
                let message = format!("two streams of the point have the name `{stream}`");
                return Err(Fault::bug("seal.twice", message));
            }
        }
        kept.held.retain(|(take, _), _| !seal.receipts.iter().any(|sealed| sealed.take == *take));
        let SealCall { kind, base, taken_at, notes, receipts, .. } = seal;
        let seq = kept.points.len() as u64 + 1;
        let mut meta = PointMeta::new(id.clone(), item.clone(), seq, kind, taken_at);
        (meta.base, meta.notes) = (base, notes);
        kept.points.push(StoredPoint { receipts, ..StoredPoint::new(meta, streams) });
        Ok(id)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `wanted` are receipts of finished takes, of each take all or none.
fn check_whole(wanted: &[Receipt], finished: &[Vec<Receipt>]) -> Result<(), Fault> {
    let unknown = wanted.iter().find(|receipt| !finished.iter().any(|all| all.contains(receipt)));
    if let Some(unknown) = unknown {
        let message = format!("the receipt of stream `{}` is of no finished take", unknown.stream);
        return Err(Fault::bug("seal.receipt", message));
    }
    let is_cut = |all: &&Vec<Receipt>| {
        let sealed = all.iter().filter(|receipt| wanted.contains(receipt)).count();
        sealed != 0 && sealed != all.len()
    };
    if finished.iter().any(|all| is_cut(&all)) {
        return Err(Fault::bug("seal.part", "a take is sealed whole or not at all"));
    }
    Ok(())
}

impl fmt::Debug for MemoryArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept();
        f.debug_struct("MemoryArchive")
            .field("takes", &kept.takes.len())
            .field("held", &kept.held.len())
            .field("points", &kept.points.len())
            .finish()
    }
}
