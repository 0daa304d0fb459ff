//! The machine `backup`: inspect → copy → seal → sealed.

use std::{path::PathBuf, time::Duration};

use plugin_sdk::{
    Context, Fault, Host, Machine, PointNotes, Receipt, Retry, Seal, Sealed, Sink, State, Step,
    Take, check, go,
};
use serde::{Deserialize, Serialize};

use crate::{churn::Fingerprint, database::Database, restore::FileMeta, snapshot::Snapshot};

/// The stream that holds the database file.
pub(crate) const STREAM: &str = "database";

/// Backs one database up while its applications go on.
#[derive(Clone, Copy, Debug)]
pub struct Backup;

impl Machine for Backup {
    const NAME: &'static str = "backup";
    const DOC: &'static str = "Back up one live database.";
    type Host = Host;
    type Initial = Inspect;
    type States = (Inspect, Copy, Seal, Sealed);
}
check!(Backup);

/// Looks at the database before anything is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inspect {
    /// The database.
    pub path: PathBuf,
    /// How long a lock of another connection is waited for.
    pub busy_timeout_ms: u64,
}

/// Sends one moment of the database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Copy {
    /// The database.
    pub path: PathBuf,
    /// How long a lock of another connection is waited for.
    pub busy_timeout_ms: u64,
    /// Its owner and mode.
    pub meta: FileMeta,
    /// How it looked before anything was read: what is committed from then on is a change for the
    /// next backup, at the price of one backup too many now and then.
    pub fingerprint: Fingerprint,
}

/// A stream that takes a week will not come to its end.
pub(crate) const STREAM_AT_MOST: Duration = Duration::from_secs(7 * 24 * 3600);

impl State<Backup> for Inspect {
    const NAME: &'static str = "inspect";
    const DOC: &'static str = "Check that the database can be read; note its owner and its look.";
    const RETRY: Retry = Retry::times(5)
        .backoff(Duration::from_millis(500), 2.0)
        .attempt_timeout(Duration::from_secs(600));
    type Next = (Copy,);

    async fn run(self, _: &Backup, _: &mut Context<'_, Backup>) -> Step<Self> {
        let Inspect { path, busy_timeout_ms } = self;
        Database::open_read_only(&path, Duration::from_millis(busy_timeout_ms))?;
        let (meta, fingerprint) = (FileMeta::of(&path)?, Fingerprint::read(&path)?);
        go(Copy { path, busy_timeout_ms, meta, fingerprint })
    }
}

impl State<Backup> for Copy {
    const NAME: &'static str = "copy";
    const DOC: &'static str = "Send one consistent moment of the database, page by page.";
    const RETRY: Retry = Retry::times(5).attempt_timeout(STREAM_AT_MOST);
    type Next = (Seal,);

    async fn run(self, _: &Backup, cx: &mut Context<'_, Backup>) -> Step<Self> {
        let take = match cx.host().take("copy").await? {
            Take::Begun(take) => {
                self.send(cx, take.stream(STREAM).await?).await?;
                take.finish().await?
            }
            // An earlier attempt sent everything and was interrupted before it could say so.
            Take::Finished(take) => take,
        };
        let token = serde_json::to_value(&self.fingerprint).map_err(unwritable)?;
        let details = serde_json::to_value(self.meta).map_err(unwritable)?;
        go(Seal::full(take, PointNotes::new().change_token(token).details(details)))
    }
}

impl Copy {
    /// Sends the database. The steps run on threads of the plugin's own, so reading may block.
    async fn send(&self, cx: &Context<'_, Backup>, mut sink: Sink) -> Result<Receipt, Fault> {
        let busy_timeout = Duration::from_millis(self.busy_timeout_ms);
        let database = Database::open_read_only(&self.path, busy_timeout)?;
        let mut snapshot = Snapshot::begin(database)?;
        let total = snapshot.len_bytes();
        loop {
            cx.check_cancelled()?;
            let mut buffer = sink.buffer(snapshot.page_size() as usize).await?;
            let length = snapshot.read_into(&mut buffer)?;
            if length == 0 {
                break;
            }
            sink.send(buffer.freeze(length)).await?;
            cx.progress(snapshot.position(), Some(total));
        }
        sink.finish().await
    }
}

fn unwritable(error: serde_json::Error) -> Fault {
    Fault::bug("sqlite.notes", "the point's notes have no JSON form").caused_by(&error)
}
