//! The machine `log`: inspect → copy → seal → release → sealed, or inspect → redirect.

use std::{fs::File, io::Read, path::Path, sync::Arc, time::Duration};

use plugin_sdk::{
    Cancel, Context, Fault, Host, Machine, OpenTake, PointId, PointKind, Redirect, Retry, Seal,
    Sealed, Sink, State, Step, Take, Timestamp, Wanted, check, go,
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::{
    chain::{NextLog, next_log},
    lsn::Lsn,
    notes::{Lineage, Notes, Wal},
    programs::Program,
    segment::check_header,
    server::Server,
    settings::{Cluster, Settings},
    workload::Postgres,
};

/// The stream that holds the segments, one behind the other.
pub(crate) const STREAM: &str = "wal";

/// How many segments wait on the disk at once.
const SEGMENTS_AT_ONCE: u64 = 16;

/// As much as the host's own buffers hold.
const BUFFER_BYTES: usize = 1 << 20;

/// Backs up what a cluster has written to its log since the point before.
#[derive(Clone, Debug)]
pub struct Log {
    pub(crate) settings: Arc<Settings>,
}

impl Log {
    /// The machine as `workload` runs it.
    #[must_use]
    pub fn of(workload: &Postgres) -> Self {
        Log { settings: workload.settings() }
    }
}

impl Machine for Log {
    const NAME: &'static str = "log";
    const DOC: &'static str =
        "Back up the log since the last point, then let the server forget it.";
    type Host = Host;
    type Initial = InspectLog;
    type States = (InspectLog, CopyLog, SealLog, ReleaseLog, Sealed, Redirect);
}
check!(Log);

/// Ends the log that is to be sent at the beginning of a segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InspectLog {
    /// The cluster's name in the configuration.
    pub cluster: String,
    /// Whose log was decided to be sent.
    pub lineage: Lineage,
    /// Where it begins.
    pub from: Lsn,
    /// The point that it builds on.
    pub base: PointId,
}

/// Sends the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CopyLog {
    /// The cluster's name in the configuration.
    pub cluster: String,
    /// What is sent.
    pub wal: Wal,
    /// The transactions that had ended before its end.
    pub snapshot: String,
    /// The point that it builds on.
    pub base: PointId,
}

/// Makes the recovery point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SealLog {
    /// The cluster's name in the configuration.
    pub cluster: String,
    /// The point.
    pub seal: Seal,
    /// The log before this place is in points.
    pub to: Lsn,
}

/// Lets the server forget what is sealed now, and not a byte more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReleaseLog {
    /// The cluster's name in the configuration.
    pub cluster: String,
    /// The point that was made.
    pub point: PointId,
    /// The log before this place is in points.
    pub to: Lsn,
}

impl InspectLog {
    pub(crate) fn new(cluster: &str, lineage: Lineage, next: NextLog) -> Self {
        let NextLog { from, base } = next;
        InspectLog { cluster: cluster.to_owned(), lineage, from, base }
    }

    /// What keeps the log from being sent as it was decided.
    fn hindrance(&self, server: &mut Server, lineage: &Lineage) -> Result<Option<String>, Fault> {
        if *lineage != self.lineage {
            return Ok(Some(format!("the server is on timeline {} now", lineage.timeline)));
        }
        let kept = server.slot()?.kept().map(|kept| lineage.segment_bytes.floor(kept));
        Ok(match kept {
            None => Some("nothing makes the server keep its log any more".to_owned()),
            Some(kept) if kept > self.from => {
                Some(format!("the server keeps its log from {kept} on only, not {}", self.from))
            }
            Some(_) => None,
        })
    }
}

impl State<Log> for InspectLog {
    const NAME: &'static str = "inspect";
    const DOC: &'static str = "Check that the log is there, and end it at a new segment.";
    const RETRY: Retry = Retry::times(5).backoff(Duration::from_millis(500), 2.0);
    type Next = (CopyLog, Redirect);

    async fn run(self, machine: &Log, cx: &mut Context<'_, Log>) -> Step<Self> {
        let mut server = Server::connect(machine.settings.cluster(&self.cluster)?)?;
        let lineage = server.look()?.lineage;
        if let Some(reason) = self.hindrance(&mut server, &lineage)? {
            let wanted = Wanted::new(cx.host().operation().clone(), PointKind::Full);
            return go(Redirect { reason, wanted });
        }
        // In this order: what was committed before `covered_at` is in the log, and so is a later
        // commit, and nothing is that the snapshot does not know.
        let covered_at = server.now()?;
        server.commit_nothing()?;
        let snapshot = server.look()?.snapshot;
        let to = server.switch_segment(lineage.segment_bytes)?;
        let InspectLog { cluster, from, base, .. } = self;
        go(CopyLog { cluster, wal: Wal { lineage, from, to, covered_at }, snapshot, base })
    }
}

impl State<Log> for CopyLog {
    const NAME: &'static str = "copy";
    const DOC: &'static str = "Send the segments of the log, one behind the other.";
    const RETRY: Retry = Retry::times(5).backoff(Duration::from_millis(500), 2.0);
    type Next = (SealLog,);

    async fn run(self, machine: &Log, cx: &mut Context<'_, Log>) -> Step<Self> {
        let take = match cx.host().take("copy").await? {
            Take::Begun(take) => {
                self.send(&machine.settings, cx, &take).await?;
                take.finish().await?
            }
            // An earlier attempt sent everything and was interrupted before it could say so.
            Take::Finished(take) => take,
        };
        let CopyLog { cluster, wal, snapshot, base } = self;
        let (to, covered_at): (Lsn, Timestamp) = (wal.to, wal.covered_at);
        let notes = Notes::Wal(wal).into_point(snapshot)?;
        go(SealLog { cluster, seal: Seal::log(take, base, covered_at, notes), to })
    }
}

impl CopyLog {
    /// Sends the log, some segments at a time.
    async fn send(
        &self,
        settings: &Settings,
        cx: &Context<'_, Log>,
        take: &OpenTake,
    ) -> Result<(), Fault> {
        let cluster = settings.cluster(&self.cluster)?;
        let Wal { lineage, from, to, .. } = &self.wal;
        let size = lineage.segment_bytes;
        let mut sink = take.stream(STREAM).await?;
        let mut next = *from;
        while next < *to {
            let left = (to.bytes() - next.bytes()) / size.bytes();
            let count = left.min(SEGMENTS_AT_ONCE);
            let directory = self.receive(settings, cluster, cx, next, count)?;
            for _ in 0..count {
                let path = directory.path().join(size.file_name(lineage.timeline, next));
                send_segment(cx, &mut sink, &path, lineage, next).await?;
                next = Lsn::new(next.bytes() + size.bytes());
                cx.progress(next.bytes() - from.bytes(), Some(to.bytes() - from.bytes()));
            }
        }
        sink.finish().await?;
        Ok(())
    }

    /// Has `count` segments from `from` on written into a new directory.
    fn receive(
        &self,
        settings: &Settings,
        cluster: &Cluster,
        cx: &Context<'_, Log>,
        from: Lsn,
        count: u64,
    ) -> Result<TempDir, Fault> {
        let Lineage { timeline, segment_bytes: size, .. } = &self.wal.lineage;
        let scratch = settings.scratch.clone().unwrap_or_else(std::env::temp_dir);
        let unwritable = |error: std::io::Error| {
            let message = format!("cannot keep log in {}", scratch.display());
            Fault::retryable("postgres.scratch", message)
                .caused_by(&error)
                .advise("make room there, or name another directory as `scratch`")
        };
        let directory = tempfile::Builder::new()
            .prefix("mercury-wal-")
            .tempdir_in(&scratch)
            .map_err(unwritable)?;
        // The program goes on behind the newest segment that it finds. It is given no slot: it
        // would tell the server that what it has written is safe.
        let before = Lsn::new(from.bytes() - size.bytes());
        let found = directory.path().join(size.file_name(*timeline, before));
        File::create_new(found).and_then(|file| file.set_len(size.bytes())).map_err(unwritable)?;
        // It ends behind the segment in which this place is, the last byte that is wanted.
        let last = Lsn::new(from.bytes() + count * size.bytes() - 1);
        let (directory_is, end_is) =
            (format!("--directory={}", directory.path().display()), format!("--endpos={last}"));
        let arguments = ["--no-loop", directory_is.as_str(), end_is.as_str()];
        let cancel = cx.cancellation();
        let program = Program::start(settings, cluster, "pg_receivewal", &arguments, cancel)?;
        let finished = program.finish();
        cx.check_cancelled()?;
        finished?;
        Ok(directory)
    }
}

/// Sends one segment, and removes its file.
async fn send_segment(
    cx: &Context<'_, Log>,
    sink: &mut Sink,
    path: &Path,
    lineage: &Lineage,
    at: Lsn,
) -> Result<(), Fault> {
    let unreadable = |error: std::io::Error| {
        let message = format!("cannot read {}", path.display());
        Fault::retryable("postgres.scratch", message).caused_by(&error)
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut left = lineage.segment_bytes.bytes();
    while left > 0 {
        cx.check_cancelled()?;
        let mut buffer = sink.buffer(BUFFER_BYTES).await?;
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.read_exact(&mut buffer[..length]).map_err(unreadable)?;
        if left == lineage.segment_bytes.bytes() {
            check_header(&buffer[..length], lineage, at)?;
        }
        sink.send(buffer.freeze(length)).await?;
        left -= length as u64;
    }
    drop(file);
    std::fs::remove_file(path).map_err(unreadable)
}

impl State<Log> for SealLog {
    const NAME: &'static str = "seal";
    const DOC: &'static str = "Make a recovery point of what is durable.";
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (ReleaseLog,);

    async fn run(self, _: &Log, cx: &mut Context<'_, Log>) -> Step<Self> {
        let SealLog { cluster, seal, to } = self;
        let point = seal.make(cx.host()).await?;
        go(ReleaseLog { cluster, point, to })
    }
}

impl State<Log> for ReleaseLog {
    const NAME: &'static str = "release";
    const DOC: &'static str = "Let the server forget the log that is in a recovery point now.";
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Sealed,);

    async fn run(self, machine: &Log, _: &mut Context<'_, Log>) -> Step<Self> {
        Server::connect(machine.settings.cluster(&self.cluster)?)?.let_go(self.to)?;
        go(Sealed { point: self.point })
    }

    fn on_exhausted(self, fault: Fault) -> Step<Self> {
        // The point exists. The next backup lets go of more.
        tracing::warn!(%fault, "the server keeps more of its log than it need");
        go(Sealed { point: self.point })
    }
}

/// Decides again, in the words of a fault.
pub(crate) fn next_or_full(
    points: &[plugin_sdk::PointMeta],
    lineage: &Lineage,
    kept: Option<Lsn>,
) -> Result<NextLog, Fault> {
    next_log(points, lineage, kept).map_err(|why| {
        Fault::new(
            plugin_sdk::Class::Chain,
            "postgres.full_needed",
            format!("no log backup: {why}"),
        )
        .advise("make a full backup first")
    })
}
