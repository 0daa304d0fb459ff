//! What the server is asked by SQL.
//!
//! **Promise.** An error says whether waiting helps, by the server's own codes
//! (<https://www.postgresql.org/docs/15/errcodes-appendix.html>): never by its words, which are in
//! the language of its administrator.

use std::{error::Error as _, io};

use plugin_sdk::{Class, Fault, Timestamp};
use postgres::{Client, Config, NoTls, error::SqlState};
use serde::{Deserialize, Serialize};

use crate::{
    lsn::{Lsn, SegmentSize},
    notes::Lineage,
    settings::Cluster,
};

/// The oldest server whose base backup is understood.
const VERSION_MIN: u32 = 130_000;

/// A connection to a server.
pub(crate) struct Server {
    client: Client,
    slot: String,
}

/// How a server looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Whose log it writes.
    pub lineage: Lineage,
    /// Its version as a number.
    pub version: u32,
    /// The transactions that have ended and those that have not: if another look shows the same,
    /// nothing was committed in between.
    pub snapshot: String,
}

/// What makes a server keep its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing.
    Missing,
    /// Not any more: the server had to give up some of the log.
    Lost,
    /// It keeps the log from here on.
    From(Lsn),
}

impl Slot {
    /// Where the log begins that is kept.
    pub(crate) fn kept(self) -> Option<Lsn> {
        match self {
            Slot::From(lsn) => Some(lsn),
            Slot::Missing | Slot::Lost => None,
        }
    }
}

impl Server {
    /// Connects.
    pub(crate) fn connect(cluster: &Cluster) -> Result<Self, Fault> {
        let mut config = Config::new();
        config
            .host(&cluster.host)
            .port(cluster.port)
            .user(&cluster.user)
            .dbname(&cluster.database)
            .connect_timeout(Cluster::CONNECT_TIMEOUT)
            .application_name("mercury");
        if let Some(password) = cluster.password()? {
            config.password(password.reveal());
        }
        let client = config.connect(NoTls).map_err(|error| {
            let what = format!("cannot connect to cluster `{}`", cluster.name);
            fault(&what, &error)
        })?;
        Ok(Server { client, slot: cluster.slot() })
    }

    /// Looks at it, and refuses one that cannot be backed up.
    pub(crate) fn look(&mut self) -> Result<Look, Fault> {
        let row = self.client.query_one(
            "SELECT pg_is_in_recovery(), current_setting('server_version_num')::int8,
                pg_size_bytes(current_setting('wal_segment_size')),
                (SELECT count(*) FROM pg_tablespace
                 WHERE spcname NOT IN ('pg_default', 'pg_global'))",
            &[],
        );
        let row = row.map_err(asked("how it is set up"))?;
        let (is_standby, version): (bool, i64) = (row.get(0), row.get(1));
        let (segment_bytes, tablespaces): (i64, i64) = (row.get(2), row.get(3));
        let version = u32::try_from(version).unwrap_or_default();
        if is_standby {
            return Err(Fault::user("postgres.standby", "the server is a standby")
                .advise("back up its primary"));
        }
        if version < VERSION_MIN {
            let message = format!("the server's version is {version}, before 13");
            return Err(Fault::user("postgres.version", message).advise("upgrade the server"));
        }
        if tablespaces > 0 {
            let message = "the cluster has tablespaces outside of its data directory";
            return Err(Fault::user("postgres.tablespaces", message)
                .advise("move them into the data directory; this plugin backs up that alone"));
        }
        let segment_bytes = u64::try_from(segment_bytes).unwrap_or_default();
        let segment_bytes = SegmentSize::try_from(segment_bytes).map_err(|error| {
            Fault::permanent("postgres.segment", "the server's log is cut in an unknown way")
                .caused_by(&error)
        })?;
        let row = self.client.query_one(
            "SELECT system_identifier::text, pg_walfile_name(pg_current_wal_insert_lsn()),
                pg_current_snapshot()::text FROM pg_control_system()",
            &[],
        );
        let row = row.map_err(asked("where it stands"))?;
        let (system_id, file, snapshot): (String, String, String) =
            (row.get(0), row.get(1), row.get(2));
        let timeline = file.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let timeline = timeline.ok_or_else(|| {
            Fault::permanent("postgres.timeline", format!("`{file}` is no segment of a log"))
        })?;
        Ok(Look { lineage: Lineage { system_id, timeline, segment_bytes }, version, snapshot })
    }

    /// Bytes in all databases.
    pub(crate) fn size_bytes(&mut self) -> Result<u64, Fault> {
        let size = "SELECT sum(pg_database_size(oid))::int8 FROM pg_database";
        let row = self.client.query_one(size, &[]).map_err(asked("how large it is"))?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or_default())
    }

    /// The server's clock, in whole milliseconds that have passed.
    pub(crate) fn now(&mut self) -> Result<Timestamp, Fault> {
        let now = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8";
        let row = self.client.query_one(now, &[]).map_err(asked("its time"))?;
        Ok(Timestamp::from_unix_ms(u64::try_from(row.get::<_, i64>(0)).unwrap_or_default()))
    }

    /// Commits a transaction that changes nothing. A replay stops before the first commit that is
    /// later than the time asked for; where none is, it fails.
    pub(crate) fn commit_nothing(&mut self) -> Result<(), Fault> {
        let commit = self.client.execute("SELECT pg_current_xact_id()", &[]);
        commit.map(drop).map_err(asked("to commit nothing"))
    }

    /// Has it begin a new segment of its log, and answers with where that begins: all that was
    /// written before is in segments that are complete.
    pub(crate) fn switch_segment(&mut self, size: SegmentSize) -> Result<Lsn, Fault> {
        let row = self.client.query_one("SELECT pg_switch_wal()::text", &[]);
        let row = row.map_err(asked("to begin a new segment of its log"))?;
        Ok(size.ceiling(lsn(row.get(0))?))
    }

    /// What makes it keep its log.
    pub(crate) fn slot(&mut self) -> Result<Slot, Fault> {
        let row = self.client.query_opt(
            "SELECT slot_type, restart_lsn::text, coalesce(wal_status, '')
             FROM pg_replication_slots WHERE slot_name = $1",
            &[&self.slot],
        );
        let Some(row) = row.map_err(asked("for its replication slot"))? else {
            return Ok(Slot::Missing);
        };
        let (kind, restart, status): (String, Option<String>, String) =
            (row.get(0), row.get(1), row.get(2));
        if kind != "physical" {
            let message = format!("the replication slot `{}` is {kind}", self.slot);
            return Err(Fault::user("postgres.slot_kind", message)
                .advise("drop it, or name another one in the configuration of this plugin"));
        }
        match restart {
            Some(restart) if status != "lost" => Ok(Slot::From(lsn(&restart)?)),
            _ => Ok(Slot::Lost),
        }
    }

    /// Makes the server keep its log from now on, if it does not yet.
    pub(crate) fn make_slot(&mut self) -> Result<(), Fault> {
        match self.slot()? {
            Slot::From(_) => return Ok(()),
            Slot::Missing => {}
            Slot::Lost => {
                let drop_it = "SELECT pg_drop_replication_slot($1)";
                let dropped = self.client.execute(drop_it, &[&self.slot]);
                dropped.map_err(asked("to drop a replication slot that has lost its log"))?;
            }
        }
        let make = "SELECT pg_create_physical_replication_slot($1, true)";
        let made = self.client.execute(make, &[&self.slot]);
        made.map(drop).map_err(asked("to make a replication slot"))
    }

    /// Lets it forget its log before `to`. What is let go already stays so.
    pub(crate) fn let_go(&mut self, to: Lsn) -> Result<(), Fault> {
        match self.slot()? {
            Slot::From(kept) if kept < to => {}
            // Nothing is kept for us, or nothing of that any more.
            _ => return Ok(()),
        }
        let advance = "SELECT pg_replication_slot_advance($1, $2::text::pg_lsn)";
        let advanced = self.client.execute(advance, &[&self.slot, &to.to_string()]);
        advanced.map(drop).map_err(asked("to advance its replication slot"))
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("slot", &self.slot).finish_non_exhaustive()
    }
}

fn lsn(text: &str) -> Result<Lsn, Fault> {
    text.parse().map_err(|error| {
        Fault::permanent("postgres.lsn", "the server answered with no place in a log")
            .caused_by(&error)
    })
}

fn asked(what: &str) -> impl FnOnce(postgres::Error) -> Fault + use<'_> {
    move |error| fault(&format!("the server was asked {what}"), &error)
}

/// An error of the server, or of the way to it.
fn fault(what: &str, error: &postgres::Error) -> Fault {
    let (class, code, advice) = match error.code() {
        Some(state) => of_state(state),
        None if error.is_closed()
            || error.source().is_some_and(|cause| cause.is::<io::Error>()) =>
        {
            (
                Class::Retryable,
                "postgres.unreachable",
                "start the server, or correct `host` and `port` in the configuration",
            )
        }
        None => (
            Class::User,
            "postgres.connection",
            "correct user and password in the configuration, or the server's pg_hba.conf",
        ),
    };
    Fault::new(class, code, what).caused_by(error).advise(advice)
}

fn of_state(state: &SqlState) -> (Class, &'static str, &'static str) {
    let class = &state.code()[..2];
    match class {
        "28" => (
            Class::User,
            "postgres.denied",
            "correct user and password in the configuration, or the server's pg_hba.conf",
        ),
        "3D" => (Class::User, "postgres.no_database", "correct `database` in the configuration"),
        "42" if *state == SqlState::INSUFFICIENT_PRIVILEGE => (
            Class::User,
            "postgres.privilege",
            "give the user REPLICATION and EXECUTE on pg_switch_wal, or let it be a superuser",
        ),
        // It is busy, short of something, starting or stopping, or the connection broke.
        "08" | "53" | "57" | "58" => {
            (Class::Retryable, "postgres.busy", "wait until the server is ready")
        }
        "55" if *state == SqlState::OBJECT_IN_USE => {
            (Class::Retryable, "postgres.slot_in_use", "stop what else uses the replication slot")
        }
        _ => (Class::Permanent, "postgres.refused", "look into the server's log"),
    }
}
