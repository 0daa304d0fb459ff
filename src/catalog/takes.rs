//! Takes: each is written down before its first byte.

use fsm_core::{JournalError, RunId, Timestamp, sqlite::rusqlite::OptionalExtension};
use plugin_sdk::{ItemId, OperationId, TakeId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Catalog,
    operations::{from_json, json},
};
use crate::Error;

/// What is kept of a take.
#[derive(Clone, Debug)]
pub(crate) struct TakeRow {
    pub(crate) id: TakeId,
    pub(crate) begun_at: Timestamp,
    /// The receipts of its streams, once it is finished.
    pub(crate) finished: Option<Vec<FinishedStream>>,
    /// What its plugin learned while it produced them.
    pub(crate) facts: Value,
}

/// A durable stream of a finished take, and how its bytes came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FinishedStream {
    pub(crate) receipt: archive::Receipt,
    pub(crate) lent_chunks: u64,
    pub(crate) foreign_chunks: u64,
}

impl Catalog {
    /// Begins a take of `run` under the step's own `name`, or finds the one that is finished.
    pub(crate) async fn begin_take(
        &self,
        operation: OperationId,
        run: RunId,
        name: String,
        at: Timestamp,
    ) -> Result<TakeRow, Error> {
        let written = self.store.write(move |tx| {
            let finished = tx
                .query_row(
                    "SELECT id, receipts, begun_ms, facts FROM mercury_take
                     WHERE run = ?1 AND name = ?2 AND status = 'finished'",
                    (run.as_str(), &name),
                    |row| {
                        let (id, receipts): (String, String) = (row.get(0)?, row.get(1)?);
                        Ok((id, receipts, row.get(2)?, row.get::<_, String>(3)?))
                    },
                )
                .optional()?;
            if let Some((id, receipts, begun_ms, facts)) = finished {
                let facts = from_json(&operation, &facts)?;
                let finished = Some(from_json(&operation, &receipts)?);
                let begun_at = Timestamp::from_unix_ms(begun_ms);
                return Ok(TakeRow { id: TakeId::new(id), begun_at, finished, facts });
            }
            let before: u64 = tx.query_row(
                "SELECT count(*) FROM mercury_take WHERE run = ?1 AND name = ?2",
                (run.as_str(), &name),
                |row| row.get(0),
            )?;
            let id = format!("{run}.{name}.{}", before + 1);
            tx.execute(
                "INSERT INTO mercury_take (id, operation, run, name, status, receipts, begun_ms)
                 VALUES (?1, ?2, ?3, ?4, 'begun', '[]', ?5)",
                (&id, operation.as_str(), run.as_str(), &name, at.as_unix_ms()),
            )?;
            let (id, begun_at) = (TakeId::new(id), at);
            Ok::<_, JournalError>(TakeRow { id, begun_at, finished: None, facts: Value::Null })
        });
        Ok(written.await?)
    }

    /// Notes that a take is complete.
    pub(crate) async fn finish_take(
        &self,
        take: TakeId,
        receipts: Vec<FinishedStream>,
        facts: Value,
    ) -> Result<(), Error> {
        let (receipts, facts) = (json(&receipts)?, json(&facts)?);
        let written = self.store.write(move |tx| {
            tx.execute(
                "UPDATE mercury_take SET status = 'finished', receipts = ?2, facts = ?3
                 WHERE id = ?1",
                (take.as_str(), receipts, facts),
            )?;
            Ok::<_, JournalError>(())
        });
        Ok(written.await?)
    }

    /// The streams of all finished takes of `run`.
    pub(crate) async fn finished_streams(
        &self,
        operation: OperationId,
        run: RunId,
    ) -> Result<Vec<FinishedStream>, Error> {
        let read = self.store.read(move |connection| {
            let mut select = connection.prepare_cached(
                "SELECT receipts FROM mercury_take WHERE run = ?1 AND status = 'finished'",
            )?;
            let mut rows = select.query([run.as_str()])?;
            let mut streams = Vec::new();
            while let Some(row) = rows.next()? {
                let receipts: Vec<FinishedStream> =
                    from_json(&operation, &row.get::<_, String>(0)?)?;
                streams.extend(receipts);
            }
            Ok::<_, JournalError>(streams)
        });
        Ok(read.await?)
    }

    /// The takes of `item` that were begun and not finished, by operations that have ended or by
    /// `operation`.
    pub(crate) async fn abandoned_takes(
        &self,
        item: ItemId,
        operation: OperationId,
    ) -> Result<Vec<TakeId>, Error> {
        let read = self.store.read(move |connection| {
            let mut select = connection.prepare_cached(
                "SELECT take.id FROM mercury_take AS take
                 JOIN mercury_operation AS operation ON operation.id = take.operation
                 WHERE take.status = 'begun' AND operation.item = ?1 AND (operation.id = ?2
                 OR operation.phase NOT IN ('accepted', 'queued', 'running'))",
            )?;
            let rows = select.query_map((item.as_str(), operation.as_str()), |row| {
                Ok(TakeId::new(row.get::<_, String>(0)?))
            })?;
            Ok::<_, JournalError>(rows.collect::<Result<Vec<_>, _>>()?)
        });
        Ok(read.await?)
    }

    /// Notes that the archive keeps nothing of a take any more.
    pub(crate) async fn release_take(&self, take: TakeId) -> Result<(), Error> {
        let written = self.store.write(move |tx| {
            tx.execute(
                "UPDATE mercury_take SET status = 'released' WHERE id = ?1",
                [take.as_str()],
            )?;
            Ok::<_, JournalError>(())
        });
        Ok(written.await?)
    }
}
