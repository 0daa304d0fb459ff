//! The machine `full`: inspect → copy → seal → release → sealed.

use std::{sync::Arc, time::Duration};

use plugin_sdk::{
    Cancel, Context, Fault, Host, Machine, OpenTake, PointId, Retry, Seal, Sealed, State, Step,
    Take, check, go,
};
use serde::{Deserialize, Serialize};

use crate::{
    lsn::Lsn,
    notes::{Base, Notes, document},
    programs::Program,
    server::{Look, Server},
    settings::Settings,
    tar_watch::TarWatch,
    workload::Postgres,
};

/// The stream that holds the cluster, as a `tar` archive with the log that makes it consistent.
pub(crate) const STREAM: &str = "base.tar";

/// As much as the host's own buffers hold.
const BUFFER_BYTES: usize = 1 << 20;

/// Backs one whole cluster up while it is used.
#[derive(Clone, Debug)]
pub struct Full {
    pub(crate) settings: Arc<Settings>,
}

impl Full {
    /// The machine as `workload` runs it.
    #[must_use]
    pub fn of(workload: &Postgres) -> Self {
        Full { settings: workload.settings() }
    }
}

impl Machine for Full {
    const NAME: &'static str = "full";
    const DOC: &'static str = "Back up one whole cluster while it is used.";
    type Host = Host;
    type Initial = Inspect;
    type States = (Inspect, Copy, SealFull, Release, Sealed);
}
check!(Full);

/// Looks at the server before anything is stored, and makes it keep its log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inspect {
    /// The cluster's name in the configuration.
    pub cluster: String,
    /// Whether the log before this point may go once it is sealed.
    pub begins_anew: bool,
}

/// Sends the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Copy {
    /// The cluster's name in the configuration.
    pub cluster: String,
    /// How it looked before the first byte was read.
    pub look: Look,
    /// Whether the log before this point may go once it is sealed.
    pub begins_anew: bool,
}

/// Makes the recovery point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SealFull {
    /// The cluster's name in the configuration.
    pub cluster: String,
    /// The point.
    pub seal: Seal,
    /// From where on the server has to keep its log, if no longer from where it does.
    pub keep_from: Option<Lsn>,
}

/// Lets the server forget the log that nobody needs any more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Release {
    /// The cluster's name in the configuration.
    pub cluster: String,
    /// The point that was made.
    pub point: PointId,
    /// From where on the server has to keep its log, if no longer from where it does.
    pub keep_from: Option<Lsn>,
}

impl State<Full> for Inspect {
    const NAME: &'static str = "inspect";
    const DOC: &'static str = "Check that the server can be backed up, and that it keeps its log.";
    const RETRY: Retry = Retry::times(5).backoff(Duration::from_millis(500), 2.0);
    type Next = (Copy,);

    async fn run(self, machine: &Full, _: &mut Context<'_, Full>) -> Step<Self> {
        let Inspect { cluster, begins_anew } = self;
        let of = machine.settings.cluster(&cluster)?;
        let mut server = Server::connect(of)?;
        let look = server.look()?;
        if of.logs {
            server.make_slot()?;
        }
        go(Copy { cluster, look, begins_anew })
    }
}

impl State<Full> for Copy {
    const NAME: &'static str = "copy";
    const DOC: &'static str = "Send the cluster's files and the log that makes them consistent.";
    const RETRY: Retry = Retry::times(5).backoff(Duration::from_millis(500), 2.0);
    type Next = (SealFull,);

    async fn run(self, machine: &Full, cx: &mut Context<'_, Full>) -> Step<Self> {
        let take = match cx.host().take("copy").await? {
            Take::Begun(take) => {
                let base = self.send(&machine.settings, cx, &take).await?;
                take.finish_with(document(&base)?).await?
            }
            // An earlier attempt sent everything and was interrupted before it could say so.
            Take::Finished(take) => take,
        };
        let base: Base = serde_json::from_value(take.facts.clone()).map_err(|error| {
            Fault::permanent("postgres.facts", "what an earlier attempt learned is lost")
                .caused_by(&error)
                .advise("make another full backup")
        })?;
        let Copy { cluster, look, begins_anew } = self;
        let keep_from = begins_anew.then(|| look.lineage.segment_bytes.ceiling(base.stop));
        // A base backup restores the moment of its end, not of its beginning.
        let taken_at = base.stopped_at;
        let notes = Notes::Base(base).into_point(look.snapshot)?;
        let seal = Seal { taken_at, ..Seal::full(take, notes) };
        go(SealFull { cluster, seal, keep_from })
    }
}

impl Copy {
    /// Sends the cluster. The steps run on threads of the plugin's own, so reading may block.
    async fn send(
        &self,
        settings: &Settings,
        cx: &Context<'_, Full>,
        take: &OpenTake,
    ) -> Result<Base, Fault> {
        let cluster = settings.cluster(&self.cluster)?;
        let mut server = Server::connect(cluster)?;
        let about = server.size_bytes()?;
        let label = format!("--label=mercury {}", take.id());
        // `fetch` puts the log that it needs behind the files, into the same stream.
        let arguments = [
            "--pgdata=-",
            "--format=tar",
            "--wal-method=fetch",
            "--checkpoint=fast",
            "--manifest-checksums=CRC32C",
            &label,
        ];
        let cancel = cx.cancellation();
        let mut program = Program::start(settings, cluster, "pg_basebackup", &arguments, cancel)?;
        let mut sink = take.stream(STREAM).await?;
        let (mut watch, mut sent) = (TarWatch::new(), 0);
        loop {
            cx.check_cancelled()?;
            let mut buffer = sink.buffer(BUFFER_BYTES).await?;
            let length = program.read_full(&mut buffer)?;
            if length == 0 {
                break;
            }
            watch.see(&buffer[..length]);
            sink.send(buffer.freeze(length)).await?;
            sent += length as u64;
            cx.progress(sent, Some(about.max(sent)));
        }
        // A cancel kills the program, and is the reason then.
        cx.check_cancelled()?;
        program.finish()?;
        let said = watch.end()?;
        if said.timeline != self.look.lineage.timeline {
            let message = format!("the server went on to timeline {} meanwhile", said.timeline);
            return Err(
                Fault::permanent("postgres.timeline", message).advise("make another full backup")
            );
        }
        let stopped_at = server.now()?;
        sink.finish().await?;
        Ok(Base {
            lineage: self.look.lineage.clone(),
            start: said.start,
            checkpoint: said.checkpoint,
            stop: said.stop,
            stopped_at,
            server_version: self.look.version,
        })
    }
}

impl State<Full> for SealFull {
    const NAME: &'static str = "seal";
    const DOC: &'static str = "Make a recovery point of what is durable.";
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Release,);

    async fn run(self, _: &Full, cx: &mut Context<'_, Full>) -> Step<Self> {
        let SealFull { cluster, seal, keep_from } = self;
        let point = seal.make(cx.host()).await?;
        go(Release { cluster, point, keep_from })
    }
}

impl State<Full> for Release {
    const NAME: &'static str = "release";
    const DOC: &'static str = "Let the server forget the log that nobody needs any more.";
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Sealed,);

    async fn run(self, machine: &Full, _: &mut Context<'_, Full>) -> Step<Self> {
        if let Some(keep_from) = self.keep_from {
            Server::connect(machine.settings.cluster(&self.cluster)?)?.let_go(keep_from)?;
        }
        go(Sealed { point: self.point })
    }

    fn on_exhausted(self, fault: Fault) -> Step<Self> {
        // The point exists. The next backup lets go of more.
        tracing::warn!(%fault, "the server keeps more of its log than it need");
        go(Sealed { point: self.point })
    }
}
