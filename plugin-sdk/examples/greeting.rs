//! A first plugin, whole: greetings are small text files, and come back as they were.
//!
//! `docs/writing-a-plugin.md` walks through it, and `new_plugin` makes new plugins of it.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use plugin_sdk::{
    Config, Context, Decision, Fault, Host, Item, ItemId, Machine, Machines, Manifest, Operation,
    Overwrite, PointId, PointKind, PointMeta, PointNotes, RestoreRequest, Retry, RunPlan, Seal,
    Sealed, State, Step, Take, Wanted, Workload, async_trait, check, go,
};
use serde::{Deserialize, Serialize};

/// The workload: each file is an item, named by its path.
#[derive(Debug, Deserialize)]
pub struct Greeting {
    /// Where texts are looked for.
    directory: String,
}

#[async_trait]
impl Workload for Greeting {
    fn manifest() -> Manifest {
        Manifest::new("plugin-greeting", "0.1.0", "greeting")
            .operation(Operation::Discover)
            .operation(Operation::Backup(PointKind::Full))
            .operation(Operation::Restore)
    }

    fn open(config: Config) -> Result<Self, Fault> {
        config.read()
    }

    async fn discover(&self) -> Result<Vec<Item>, Fault> {
        let entries = fs::read_dir(&self.directory)?.collect::<io::Result<Vec<_>>>()?;
        let paths = entries.iter().filter_map(|entry| entry.path().to_str().map(str::to_owned));
        let texts = paths.filter(|path| path.ends_with(".txt"));
        Ok(texts.filter_map(|path| Some(Item::new(item(&path)?))).collect())
    }

    async fn decide(
        &self,
        item: &ItemId,
        _: &Wanted,
        points: &[PointMeta],
    ) -> Result<Decision, Fault> {
        let text = fs::read_to_string(item.name())?;
        if let Some(newest) = points.last()
            && newest.notes.change_token == Some(text.into())
        {
            let reason = "the text is the same".to_owned();
            return Ok(Decision::Skip { reason, unchanged_since: newest.id.clone() });
        }
        Ok(Decision::Run(RunPlan::new::<Backup>(Send { path: item.name().to_owned() })?))
    }

    async fn restore(&self, request: &RestoreRequest) -> Result<RunPlan, Fault> {
        let [point] = &request.chain[..] else {
            return Err(Fault::permanent("greeting.chain", "a text is restored from one point"));
        };
        let path = request.target.clone().unwrap_or_else(|| request.item.name().to_owned());
        let (point, overwrite) = (point.id.clone(), request.overwrite);
        RunPlan::new::<Restore>(Write { path, point, overwrite })
    }

    fn machines(self: &Arc<Self>) -> Machines {
        Machines::new().with(Backup).with(Restore)
    }
}

fn item(path: &str) -> Option<ItemId> {
    ItemId::new("greeting", "files", path).ok()
}

/// The machine of a backup: send → seal → sealed.
#[derive(Debug)]
pub struct Backup;

impl Machine for Backup {
    const NAME: &'static str = "backup";
    type Host = Host;
    type Initial = Send;
    type States = (Send, Seal, Sealed);
}
check!(Backup);

/// Where a backup begins; its fields are durable before its step runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Send {
    path: String,
}

impl State<Backup> for Send {
    const NAME: &'static str = "send";
    const DOC: &'static str = "Send the text to the archive.";
    const RETRY: Retry = Retry::times(5).attempt_timeout(Duration::from_secs(3600));
    type Next = (Seal,);

    async fn run(self, _: &Backup, cx: &mut Context<'_, Backup>) -> Step<Self> {
        // Read before anything is sent: what is written from now on is the next backup's.
        let text = fs::read_to_string(&self.path)?;
        let take = match cx.host().take("text").await? {
            Take::Begun(take) => {
                let mut sink = take.stream("text").await?;
                for part in text.as_bytes().chunks(4096) {
                    cx.check_cancelled()?;
                    let mut buffer = sink.buffer(part.len()).await?;
                    buffer[..part.len()].copy_from_slice(part);
                    sink.send(buffer.freeze(part.len())).await?;
                }
                sink.finish().await?;
                take.finish().await?
            }
            // An earlier attempt sent everything, and could not say so any more.
            Take::Finished(take) => take,
        };
        go(Seal::full(take, PointNotes::new().change_token(text.into())))
    }
}

/// The machine of a restore: write → written.
#[derive(Debug)]
pub struct Restore;

impl Machine for Restore {
    const NAME: &'static str = "restore";
    type Host = Host;
    type Initial = Write;
    type States = (Write, Written);
}
check!(Restore);

/// Where a restore begins.
#[derive(Debug, Serialize, Deserialize)]
pub struct Write {
    path: String,
    point: PointId,
    overwrite: Overwrite,
}

/// Where it ends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Written {}

impl State<Restore> for Write {
    const NAME: &'static str = "write";
    const DOC: &'static str = "Write the text, in one move.";
    const RETRY: Retry = Retry::times(5).attempt_timeout(Duration::from_secs(3600));
    type Next = (Written,);

    async fn run(self, _: &Restore, cx: &mut Context<'_, Restore>) -> Step<Self> {
        let source = cx.host().source(&self.point, "text").await?;
        let mut text = Vec::new();
        while (text.len() as u64) < source.length() {
            text.extend_from_slice(&source.read_at(text.len() as u64, 4096).await?);
        }
        // It may have been written by an attempt that could not say so any more.
        let there = fs::read(&self.path).ok();
        if there.as_deref() != Some(&text) {
            if there.is_some() && self.overwrite == Overwrite::Refuse {
                let message = format!("{} exists", self.path);
                return Err(Fault::user("greeting.exists", message).advise("allow to replace it"));
            }
            let beside = Path::new(&self.path).with_extension("new");
            fs::write(&beside, &text)?;
            fs::rename(&beside, &self.path)?;
        }
        go(Written {})
    }
}

impl State<Restore> for Written {
    const NAME: &'static str = "written";
    const DOC: &'static str = "The text is there.";
    type Next = ();
}

plugin_sdk::export!(Greeting);
