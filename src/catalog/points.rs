//! Items and recovery points, for people to read.

use fsm_core::{JournalError, Timestamp};
use plugin_sdk::{Item, ItemId, PointMeta};
use throttle::EngineVersion;

use super::{Catalog, operations::json};
use crate::Error;

impl Catalog {
    /// Notes what discovery found.
    pub(crate) async fn discovered(&self, items: Vec<Item>, at: Timestamp) -> Result<(), Error> {
        let written = self.store.write(move |tx| {
            let mut insert = tx.prepare_cached(
                "INSERT INTO mercury_item
                 (item, workload, size_bytes, attributes, seen_ms, engine_version)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (item) DO UPDATE SET
                 size_bytes = ?3, attributes = ?4, seen_ms = ?5, engine_version = ?6",
            )?;
            for item in &items {
                insert.execute((
                    item.id.as_str(),
                    item.id.workload(),
                    item.size_bytes,
                    json(&item.attributes)?,
                    at.as_unix_ms(),
                    item.engine_version.as_ref().map(ToString::to_string),
                ))?;
            }
            Ok::<_, JournalError>(())
        });
        Ok(written.await?)
    }

    /// The oldest version that the newest discovery of `workload` found among its instances.
    pub(crate) async fn engine_version(
        &self,
        workload: String,
    ) -> Result<Option<EngineVersion>, Error> {
        let read = self.store.read(move |connection| {
            let mut select = connection.prepare(
                "SELECT DISTINCT engine_version FROM mercury_item
                 WHERE workload = ?1 AND engine_version IS NOT NULL AND seen_ms =
                 (SELECT max(seen_ms) FROM mercury_item WHERE workload = ?1)",
            )?;
            let rows = select.query_map([workload], |row| row.get::<_, String>(0))?;
            Ok::<_, JournalError>(rows.collect::<Result<Vec<_>, _>>()?)
        });
        Ok(read.await?.iter().filter_map(|version| version.parse().ok()).min())
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
