//! Operations, from the moment that they are acknowledged.

use fsm_core::{
    Fault, JournalError, JournalErrorKind, Record, RunId, Timestamp,
    sqlite::{
        SqliteJournal,
        rusqlite::{Connection, OptionalExtension, Row, types::Type},
    },
};
use plugin_sdk::{OperationId, PointId, RunPlan};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use throttle::Priority;

use super::Catalog;
use crate::{
    Error,
    operation::{CalledBy, OperationStatus, Outcome, Phase, Task},
};

/// What is to be done for an operation: the plugin's plan, and for a restore the points that its
/// run may read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Planned {
    pub(crate) plan: RunPlan,
    #[serde(default)]
    pub(crate) chain: Vec<PointId>,
}

/// How an operation is to be treated while it waits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) priority: Option<Priority>,
    pub(crate) deadline: Option<Timestamp>,
}

/// The call that an operation is made of, and what its workload wants done.
#[derive(Clone, Debug)]
pub(crate) struct MadeOf {
    pub(crate) by: CalledBy,
    pub(crate) plan: RunPlan,
}

const COLUMNS: &str = "id, task, phase, run, outcome, fault, created_ms, updated_ms, cancel_ms, \
                       priority, deadline_ms, follows, called_by";

impl Catalog {
    /// The epoch under which this state directory writes to archives: given once, and kept.
    pub(crate) async fn epoch(&self, first: u64) -> Result<u64, Error> {
        let read = self.store.write(move |tx| {
            tx.execute("INSERT OR IGNORE INTO mercury_engine VALUES (1, ?1)", [first])?;
            let epoch = tx.query_row("SELECT epoch FROM mercury_engine", [], |row| row.get(0))?;
            Ok::<u64, JournalError>(epoch)
        });
        Ok(read.await?)
    }

    /// Writes an operation down, or finds the one of that id.
    pub(crate) async fn accept(
        &self,
        id: OperationId,
        task: Task,
        terms: Terms,
        made_of: Option<MadeOf>,
        at: Timestamp,
    ) -> Result<(OperationStatus, Accepted), Error> {
        let (called_by, plan) = made_of.map(|made_of| (made_of.by, made_of.plan)).unzip();
        let planned = plan.map(|plan| Planned { plan, chain: Vec::new() });
        let accepted = self.store.write(move |tx| {
            if let Some(known) = select(tx, &id)? {
                return Ok::<_, JournalError>((known, Accepted::Known));
            }
            let (item, at_ms) = (task.item().to_string(), at.as_unix_ms());
            tx.execute(
                "INSERT INTO mercury_operation
                 (id, verb, item, phase, task, created_ms, updated_ms, priority, deadline_ms,
                 called_by, planned)
                 VALUES (?1, ?2, ?3, 'accepted', ?4, ?5, ?5, ?6, ?7, ?8, ?9)",
                (
                    id.as_str(),
                    task.verb(),
                    item,
                    json(&task)?,
                    at_ms,
                    terms.priority.as_ref().map(json).transpose()?,
                    terms.deadline.map(Timestamp::as_unix_ms),
                    called_by.as_ref().map(json).transpose()?,
                    planned.as_ref().map(json).transpose()?,
                ),
            )?;
            let status = OperationStatus {
                id,
                task,
                phase: Phase::Accepted,
                run: None,
                outcome: None,
                fault: None,
                created_at: at,
                updated_at: at,
                cancel_at: None,
                priority: terms.priority,
                deadline: terms.deadline,
                follows: None,
                called_by,
                waits_for: None,
                stuck: None,
            };
            Ok((status, Accepted::New))
        });
        Ok(accepted.await?)
    }

    /// Journals what was decided and the first record of the run that will do it, as one.
    pub(crate) async fn decided(
        &self,
        id: OperationId,
        planned: &Planned,
        first: Record,
    ) -> Result<(), Error> {
        let planned = json(planned)?;
        let written = self.store.write(move |tx| {
            SqliteJournal::stage(tx, std::slice::from_ref(&first))?;
            tx.execute(
                "UPDATE mercury_operation SET phase = 'queued', planned = ?2, run = ?3,
                 updated_ms = ?4 WHERE id = ?1",
                (id.as_str(), planned, first.run.as_str(), first.at.as_unix_ms()),
            )?;
            Ok::<_, JournalError>(())
        });
        Ok(written.await?)
    }

    /// Notes that the operation came to `phase`, with what came of it.
    pub(crate) async fn advance(
        &self,
        id: OperationId,
        phase: Phase,
        outcome: Option<Outcome>,
        fault: Option<Fault>,
        at: Timestamp,
    ) -> Result<(), Error> {
        let written = self.store.write(move |tx| {
            let outcome = outcome.as_ref().map(json).transpose()?;
            let fault = fault.as_ref().map(json).transpose()?;
            tx.execute(
                "UPDATE mercury_operation SET phase = ?2, outcome = ?3, fault = ?4,
                 updated_ms = ?5 WHERE id = ?1",
                (id.as_str(), phase.as_str(), outcome, fault, at.as_unix_ms()),
            )?;
            Ok::<_, JournalError>(())
        });
        Ok(written.await?)
    }

    /// Notes that the operation is one with `lead`; `None` if it is not any more.
    pub(crate) async fn follow(
        &self,
        id: OperationId,
        lead: Option<OperationId>,
        at: Timestamp,
    ) -> Result<(), Error> {
        let written = self.store.write(move |tx| {
            tx.execute(
                "UPDATE mercury_operation SET follows = ?2, updated_ms = ?3 WHERE id = ?1",
                (id.as_str(), lead.as_ref().map(OperationId::as_str), at.as_unix_ms()),
            )?;
            Ok::<_, JournalError>(())
        });
        Ok(written.await?)
    }

    /// Notes that somebody wants the operation to stop, unless it has ended.
    pub(crate) async fn cancel(&self, id: OperationId, at: Timestamp) -> Result<(), Error> {
        let written = self.store.write(move |tx| {
            tx.execute(
                "UPDATE mercury_operation SET cancel_ms = coalesce(cancel_ms, ?2)
                 WHERE id = ?1 AND phase IN ('accepted', 'queued', 'running')",
                (id.as_str(), at.as_unix_ms()),
            )?;
            Ok::<_, JournalError>(())
        });
        Ok(written.await?)
    }

    /// The operation `id`.
    pub(crate) async fn operation(
        &self,
        id: OperationId,
    ) -> Result<Option<OperationStatus>, Error> {
        Ok(self.store.read(move |connection| select(connection, &id)).await?)
    }

    /// What was planned for the operation `id`, if that was decided, or given with it.
    pub(crate) async fn planned(&self, id: OperationId) -> Result<Option<Planned>, Error> {
        let read = self.store.read(move |connection| {
            let planned: Option<String> = connection
                .query_row(
                    "SELECT planned FROM mercury_operation WHERE id = ?1",
                    [id.as_str()],
                    |row| row.get(0),
                )
                .optional()?
                .flatten();
            planned.map(|planned| from_json(&id, &planned)).transpose()
        });
        Ok(read.await?)
    }

    /// All operations, oldest first.
    pub(crate) async fn operations(&self) -> Result<Vec<OperationStatus>, Error> {
        self.list("ORDER BY created_ms, id").await
    }

    /// Those that have not ended, oldest first.
    pub(crate) async fn unfinished(&self) -> Result<Vec<OperationStatus>, Error> {
        self.list("WHERE phase IN ('accepted', 'queued', 'running') ORDER BY created_ms, id").await
    }

    async fn list(&self, which: &'static str) -> Result<Vec<OperationStatus>, Error> {
        let read = self.store.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM mercury_operation {which}");
            let mut select = connection.prepare(&sql)?;
            let rows = select.query_map([], status)?;
            Ok::<_, JournalError>(rows.collect::<Result<Vec<_>, _>>()?)
        });
        Ok(read.await?)
    }
}

/// Whether an operation is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    New,
    Known,
}

fn select(
    connection: &Connection,
    id: &OperationId,
) -> Result<Option<OperationStatus>, JournalError> {
    let mut select = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM mercury_operation WHERE id = ?1"))?;
    Ok(select.query_row([id.as_str()], status).optional()?)
}

fn status(row: &Row<'_>) -> Result<OperationStatus, fsm_core::sqlite::rusqlite::Error> {
    use fsm_core::sqlite::rusqlite::Error::FromSqlConversionFailure;
    fn read<T: DeserializeOwned>(
        column: usize,
        text: &str,
    ) -> Result<T, fsm_core::sqlite::rusqlite::Error> {
        serde_json::from_str(text)
            .map_err(|error| FromSqlConversionFailure(column, Type::Text, error.into()))
    }
    let optional = |column| row.get::<_, Option<String>>(column);
    let phase: String = row.get(2)?;
    let phase = Phase::from_word(&phase).ok_or_else(|| {
        FromSqlConversionFailure(2, Type::Text, format!("unknown phase `{phase}`").into())
    })?;
    let run = optional(3)?.map(RunId::new).transpose();
    Ok(OperationStatus {
        id: OperationId::new(row.get::<_, String>(0)?),
        task: read(1, &row.get::<_, String>(1)?)?,
        phase,
        run: run.map_err(|error| FromSqlConversionFailure(3, Type::Text, error.into()))?,
        outcome: optional(4)?.map(|text| read(4, &text)).transpose()?,
        fault: optional(5)?.map(|text| read(5, &text)).transpose()?,
        created_at: Timestamp::from_unix_ms(row.get(6)?),
        updated_at: Timestamp::from_unix_ms(row.get(7)?),
        cancel_at: row.get::<_, Option<u64>>(8)?.map(Timestamp::from_unix_ms),
        priority: optional(9)?.map(|text| read(9, &text)).transpose()?,
        deadline: row.get::<_, Option<u64>>(10)?.map(Timestamp::from_unix_ms),
        follows: optional(11)?.map(OperationId::new),
        called_by: optional(12)?.map(|text| read(12, &text)).transpose()?,
        waits_for: None,
        stuck: None,
    })
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, JournalError> {
    serde_json::to_string(value).map_err(|error| {
        JournalError::new(JournalErrorKind::Storage, "a row has no JSON form").caused_by(error)
    })
}

pub(super) fn from_json<T: DeserializeOwned>(
    subject: &OperationId,
    text: &str,
) -> Result<T, JournalError> {
    serde_json::from_str(text).map_err(|error| {
        JournalError::new(JournalErrorKind::Damaged, subject.as_str()).caused_by(error)
    })
}
