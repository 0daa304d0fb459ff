//! The item's points as one log: `points/<seq>`, each put once, at head + 1.
//!
//! **Promise.** What [`PointLog::refresh`] returns is what the store held at some moment during
//! the call.
//!
//! **How.** A listing is taken each time; of each object only the head is read, once, since no
//! point ever changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, stream};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Epoch, PointId};
use crate::item::ItemInner;
use crate::layout::decimal;
use crate::point::{PREFIX_BYTES, PointBody, PointEntry, head_end, open_body, open_head};
use crate::store::Object;

/// One request fetches most heads whole.
const HEAD_GUESS_BYTES: u64 = 16 << 10;
const FETCHES_AT_ONCE: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct PointLog {
    known: Mutex<BTreeMap<u64, Arc<PointEntry>>>,
}

/// The log as it was at one moment.
#[derive(Debug)]
pub(crate) struct Points {
    pub(crate) entries: BTreeMap<u64, Arc<PointEntry>>,
    pub(crate) damaged: Vec<Error>,
    /// The highest number in use, readable or not; 0 when there is none.
    pub(crate) head: u64,
}

impl Points {
    pub(crate) fn find(&self, id: &PointId) -> Option<&Arc<PointEntry>> {
        self.entries.values().rev().find(|entry| entry.id == *id)
    }

    /// Refuses a writer that is older than the newest point. A point that cannot be read does not
    /// speak: its damage must not stop every later backup.
    pub(crate) fn fence(&self, epoch: Epoch) -> Result<()> {
        match self.entries.values().next_back() {
            Some(newest) if newest.epoch > epoch => Err(Error::new(
                ErrorKind::Fenced,
                format!("epoch {epoch}"),
                "the newest point has a higher epoch",
            )),
            _ => Ok(()),
        }
    }
}

impl PointLog {
    pub(crate) async fn refresh(&self, item: &ItemInner) -> Result<Points> {
        let objects = item.store.list(&item.paths.points()).await?;
        let objects: BTreeMap<u64, Object> =
            objects.into_iter().filter_map(|object| Some((seq(item, &object)?, object))).collect();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unknown: Vec<_> = objects
            .iter()
            .filter(|(seq, _)| !known.contains_key(seq))
            .map(|(seq, object)| fetch_head(item, *seq, object.clone()))
            .collect();
        let fetched: Vec<_> = stream::iter(unknown).buffered(FETCHES_AT_ONCE).collect().await;
        let mut entries = known;
        entries.retain(|seq, _| objects.contains_key(seq));
        let mut damaged = Vec::new();
        for fetched in fetched {
            match fetched {
                Ok(entry) => {
                    entries.insert(entry.seq, entry);
                }
                Err(error) if error.kind() == ErrorKind::Damaged => damaged.push(error),
                // Removed since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&entries);
        let head = objects.last_key_value().map_or(0, |(seq, _)| *seq);
        Ok(Points { entries, damaged, head })
    }
}

/// The number of a point, if the object is one.
fn seq(item: &ItemInner, object: &Object) -> Option<u64> {
    let seq = decimal(&object.path)?;
    (object.path == item.paths.point(seq)).then_some(seq)
}

async fn fetch_head(item: &ItemInner, seq: u64, object: Object) -> Result<Arc<PointEntry>> {
    let path = object.path.as_str();
    if object.length < PREFIX_BYTES as u64 {
        return Err(Error::damaged(path, "it ends too early"));
    }
    let mut bytes = item.store.get_range(path, 0..HEAD_GUESS_BYTES.min(object.length)).await?;
    let end = head_end(path, &bytes)?;
    if end > bytes.len() && end as u64 <= object.length {
        bytes = item.store.get_range(path, 0..end as u64).await?;
    }
    open_head(&item.data, path, seq, &bytes)
}

/// Reads where the streams of a point are.
pub(crate) async fn fetch_body(item: &ItemInner, entry: &PointEntry) -> Result<PointBody> {
    let path = item.paths.point(entry.seq);
    let object = item.store.get(&path).await?;
    let found = open_head(&item.data, &path, entry.seq, &object)?;
    if *found != *entry {
        return Err(Error::input(entry.id.as_str(), "it is not a point of this item"));
    }
    open_body(&item.data, &path, entry, &object)
}
