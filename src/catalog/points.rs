//! Items and recovery points, for people to read.

use fsm_core::{JournalError, Timestamp};
use plugin_sdk::{Item, ItemId, PointMeta};

use super::{Catalog, operations::json};
use crate::Error;

impl Catalog {
    /// Notes what discovery found.
    pub(crate) async fn discovered(&self, items: Vec<Item>, at: Timestamp) -> Result<(), Error> {
        let written = self.store.write(move |tx| {
            let mut insert = tx.prepare_cached(
                "INSERT INTO mercury_item VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (item) DO UPDATE SET
                 size_bytes = ?3, attributes = ?4, seen_ms = ?5",
            )?;
            for item in &items {
                insert.execute((
                    item.id.as_str(),
                    item.id.workload(),
                    item.size_bytes,
                    json(&item.attributes)?,
                    at.as_unix_ms(),
                ))?;
            }
            Ok::<_, JournalError>(())
        });
        Ok(written.await?)
    }

    /// Copies the points of `item` from what the archive answered.
    pub(crate) async fn copied(&self, item: ItemId, points: Vec<PointMeta>) -> Result<(), Error> {
        let written = self.store.write(move |tx| {
            tx.execute("DELETE FROM mercury_point WHERE item = ?1", [item.as_str()])?;
            let mut insert = tx.prepare_cached(
                "INSERT INTO mercury_point VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            for point in &points {
                let bytes: u64 = point.streams.iter().map(|stream| stream.length).sum();
                insert.execute((
                    item.as_str(),
                    point.seq,
                    point.id.as_str(),
                    point.kind.as_str(),
                    point.taken_at.as_unix_ms(),
                    json(&point.base)?,
                    point.alias_of.as_ref().map(|of| of.as_str().to_owned()),
                    bytes,
                ))?;
            }
            Ok::<_, JournalError>(())
        });
        Ok(written.await?)
    }
}
