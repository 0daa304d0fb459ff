//! The machine `restore`: unpack → fetch → publish → restored, and on the other side
//! discard → failed or aborted.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use plugin_sdk::{
    Cancel, Context, Ending, Fault, Host, Machine, Overwrite, PointId, Retry, State, Step, check,
    go,
};
use serde::{Deserialize, Serialize};

use crate::{
    full_machine, log_machine,
    lsn::Lsn,
    notes::{Lineage, Wal},
    restore::{Place, ReplayTo, Unpacking, WAL_DIRECTORY, configure, file_fault, refuse_existing},
};

/// As much as the host's own buffers hold.
const READ_BYTES: usize = 1 << 20;

/// Restores one cluster into a new data directory. The server that is started there replays the log
/// to the moment that was asked for, and takes writes from then on.
#[derive(Clone, Copy, Debug)]
pub struct Restore;

impl Machine for Restore {
    const NAME: &'static str = "restore";
    const DOC: &'static str =
        "Restore one cluster into a data directory, put in place in one move.";
    type Host = Host;
    type Initial = Unpack;
    type States = (Unpack, Fetch, Publish, Restored, Discard, Failed, Aborted);
}
check!(Restore);

/// What is to be restored, and where to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wish {
    /// The data directory.
    pub target: PathBuf,
    /// Names what is beside it meanwhile, so that a later attempt finds it.
    pub key: String,
    /// Whether the target may be replaced.
    pub overwrite: Overwrite,
    /// The full point.
    pub base: PointId,
    /// Where its replay begins.
    pub start: Lsn,
    /// The log points, in order.
    pub logs: Vec<(PointId, Wal)>,
    /// Where its replay ends.
    pub replay_to: ReplayTo,
}

impl Wish {
    fn place(&self) -> Result<Place, Fault> {
        Place::new(&self.target, &self.key)
    }
}

/// Writes the cluster's files beside the target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unpack {
    /// What is restored.
    pub wish: Wish,
}

/// Writes the log into that directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fetch {
    /// What is restored.
    pub wish: Wish,
    /// Bytes of the cluster.
    pub base_bytes: u64,
}

/// Puts the whole directory in the target's place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Publish {
    /// What is restored.
    pub wish: Wish,
    /// The bytes that were written.
    pub report: Restored,
}

/// The end of a restore that did its work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restored {
    /// The data directory. A server that is started on it replays the log, then takes writes.
    pub target: PathBuf,
    /// Bytes of the base backup.
    pub base_bytes: u64,
    /// Bytes of log.
    pub wal_bytes: u64,
    /// Where the replay ends.
    pub replay_to: ReplayTo,
}

/// Removes what was written beside the target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Discard {
    /// What was to be restored.
    pub wish: Wish,
    /// Why not; `None` after a cancel.
    pub fault: Option<Fault>,
}

/// The end of a restore that could not do its work. The target is as it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failed {
    /// Why.
    pub fault: Fault,
}

/// The end of a restore that was cancelled. The target is as it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Aborted {}

impl State<Restore> for Unpack {
    const NAME: &'static str = "unpack";
    const DOC: &'static str = "Write the cluster's files beside the target.";
    type Next = (Fetch, Discard);

    async fn run(self, _: &Restore, cx: &mut Context<'_, Restore>) -> Step<Self> {
        let wish = self.wish;
        let place = wish.place()?;
        // It may have appeared since the restore was decided.
        refuse_existing(&wish.target, wish.overwrite)?;
        let source = cx.host().source(&wish.base, full_machine::STREAM).await?;
        let length = source.length();
        place.stage()?;
        let unpacking = Unpacking::into(place.staged());
        let mut read = 0;
        while read < length {
            cx.check_cancelled()?;
            let bytes = source.read_at(read, READ_BYTES).await?;
            if bytes.is_empty() {
                break;
            }
            read += bytes.len() as u64;
            if !unpacking.feed(bytes) {
                break;
            }
            cx.progress(read, Some(length));
        }
        let owner = unpacking.finish()?;
        owner.own(place.staged())?;
        go(Fetch { wish, base_bytes: length })
    }

    fn on_exhausted(self, fault: Fault) -> Step<Self> {
        go(Discard { wish: self.wish, fault: Some(fault) })
    }

    fn on_cancel(self) -> Step<Self> {
        go(Discard { wish: self.wish, fault: None })
    }
}

impl State<Restore> for Fetch {
    const NAME: &'static str = "fetch";
    const DOC: &'static str = "Write the log beside the files, and say how far it is replayed.";
    type Next = (Publish, Discard);

    async fn run(self, _: &Restore, cx: &mut Context<'_, Restore>) -> Step<Self> {
        let Fetch { wish, base_bytes } = self;
        let place = wish.place()?;
        let directory = place.staged().join(WAL_DIRECTORY);
        match DirBuilder::new().mode(0o700).create(&directory) {
            // An earlier attempt was here; each file is written anew.
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(file_fault("make", &directory, &error));
            }
            _ => like_its_parent(&directory)?,
        }
        let mut wal_bytes = 0;
        let mut reached = Lsn::new(0);
        for (point, wal) in &wish.logs {
            // Logs may overlap, and begin before the full point.
            let from = wal.from.max(reached).max(wal.lineage.segment_bytes.floor(wish.start));
            wal_bytes += write_log(cx, &directory, point, wal, from).await?;
            reached = reached.max(wal.to);
        }
        configure(place.staged(), wish.replay_to)?;
        like_its_parent(&place.staged().join("postgresql.auto.conf"))?;
        like_its_parent(&place.staged().join("recovery.signal"))?;
        place.sync()?;
        let (target, replay_to) = (wish.target.clone(), wish.replay_to);
        go(Publish { wish, report: Restored { target, base_bytes, wal_bytes, replay_to } })
    }

    fn on_exhausted(self, fault: Fault) -> Step<Self> {
        go(Discard { wish: self.wish, fault: Some(fault) })
    }

    fn on_cancel(self) -> Step<Self> {
        go(Discard { wish: self.wish, fault: None })
    }
}

/// Writes the segments of a log point from `from` on; answers with their length.
async fn write_log(
    cx: &Context<'_, Restore>,
    directory: &Path,
    point: &PointId,
    wal: &Wal,
    from: Lsn,
) -> Result<u64, Fault> {
    let Wal { lineage: Lineage { timeline, segment_bytes: size, .. }, to, .. } = wal;
    if from >= *to {
        return Ok(0);
    }
    let source = cx.host().source(point, log_machine::STREAM).await?;
    if source.length() != to.bytes() - wal.from.bytes() {
        let message = format!("recovery point {point} does not hold the log that it notes");
        return Err(
            Fault::permanent("postgres.log_length", message).advise("restore an earlier point")
        );
    }
    let mut at = from;
    while at < *to {
        let path = directory.join(size.file_name(*timeline, at));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| file_fault("make", &path, &error))?;
        like_its_parent(&path)?;
        let end = at.bytes() + size.bytes();
        let mut offset = at.bytes();
        while offset < end {
            cx.check_cancelled()?;
            let length = READ_BYTES.min(usize::try_from(end - offset).unwrap_or(READ_BYTES));
            let bytes = source.read_at(offset - wal.from.bytes(), length).await?;
            file.write_all(&bytes).map_err(|error| file_fault("write", &path, &error))?;
            offset += bytes.len() as u64;
        }
        at = Lsn::new(end);
        cx.progress(at.bytes() - from.bytes(), Some(to.bytes() - from.bytes()));
    }
    Ok(to.bytes() - from.bytes())
}

/// Gives `path` to the owner of the directory that it is in: the cluster's, if this process may.
fn like_its_parent(path: &Path) -> Result<(), Fault> {
    use std::os::unix::fs::{MetadataExt, lchown};
    let Some(parent) = path.parent() else { return Ok(()) };
    let of = |path: &Path| {
        let metadata = path.symlink_metadata();
        metadata.map(|metadata| (metadata.uid(), metadata.gid()))
    };
    let (wanted, found) = match (of(parent), of(path)) {
        (Ok(wanted), Ok(found)) => (wanted, found),
        (Err(error), _) | (_, Err(error)) => return Err(file_fault("look at", path, &error)),
    };
    if wanted == found {
        return Ok(());
    }
    lchown(path, Some(wanted.0), Some(wanted.1))
        .map_err(|error| file_fault("change the owner of", path, &error))
}

impl State<Restore> for Publish {
    const NAME: &'static str = "publish";
    const DOC: &'static str = "Put the directory in the target's place, durably.";
    const RETRY: Retry = Retry::times(5).backoff(Duration::from_millis(500), 2.0);
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Restored, Discard);

    async fn run(self, _: &Restore, _: &mut Context<'_, Restore>) -> Step<Self> {
        self.wish.place()?.publish(self.wish.overwrite)?;
        go(self.report)
    }

    fn on_exhausted(self, fault: Fault) -> Step<Self> {
        go(Discard { wish: self.wish, fault: Some(fault) })
    }
}

impl State<Restore> for Discard {
    const NAME: &'static str = "discard";
    const DOC: &'static str = "Remove what was written beside the target.";
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Failed, Aborted);

    async fn run(self, _: &Restore, _: &mut Context<'_, Restore>) -> Step<Self> {
        self.wish.place()?.discard()?;
        match self.fault {
            Some(fault) => go(Failed { fault }),
            None => go(Aborted {}),
        }
    }

    fn on_exhausted(self, fault: Fault) -> Step<Self> {
        // What made the restore fail matters more than what is left beside the target.
        go(Failed { fault: self.fault.unwrap_or(fault) })
    }
}

impl State<Restore> for Restored {
    const NAME: &'static str = "restored";
    const DOC: &'static str = "The directory is in place; start a server on it.";
    type Next = ();
}

impl State<Restore> for Failed {
    const NAME: &'static str = "failed";
    const DOC: &'static str = "The target is as it was.";
    const ENDING: Ending = Ending::Failed;
    type Next = ();
}

impl State<Restore> for Aborted {
    const NAME: &'static str = "aborted";
    const DOC: &'static str = "Cancelled; the target is as it was.";
    const ENDING: Ending = Ending::Cancelled;
    type Next = ();
}
