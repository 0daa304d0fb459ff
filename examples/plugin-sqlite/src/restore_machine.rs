//! The machine `restore`: receive → publish → restored, and on the other side discard → failed.

use std::{path::PathBuf, time::Duration};

use plugin_sdk::{
    Cancel, Context, Ending, Fault, Host, Machine, PointId, Retry, State, Step, check, go,
};
use serde::{Deserialize, Serialize};

use crate::{
    backup_machine::{STREAM, STREAM_AT_MOST},
    database::Check,
    restore::{CompleteFile, FileMeta, Overwrite, Publication, RestoreTarget},
};

/// Restores one database beside its target, then puts it in place.
#[derive(Clone, Copy, Debug)]
pub struct Restore;

impl Machine for Restore {
    const NAME: &'static str = "restore";
    const DOC: &'static str = "Restore one database, and put it in place in one move.";
    type Host = Host;
    type Initial = Receive;
    type States = (Receive, Publish, Restored, Discard, Failed, Aborted);
}
check!(Restore);

/// Writes the database beside its target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Receive {
    /// What is restored.
    pub point: PointId,
    /// Where to.
    pub target: PathBuf,
    /// Names the file beside the target, so that a later attempt finds it.
    pub key: String,
    /// Whether the target may be replaced.
    pub overwrite: plugin_sdk::Overwrite,
    /// Owner and mode of the source.
    pub meta: Option<FileMeta>,
}

/// Puts the whole, verified file in the target's place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Publish {
    /// Where to.
    pub target: PathBuf,
    /// Names the file beside the target.
    pub key: String,
    /// Whether the target may be replaced.
    pub overwrite: plugin_sdk::Overwrite,
    /// Bytes in the file.
    pub bytes: u64,
}

/// The end of a restore that did its work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restored {
    /// The database.
    pub target: PathBuf,
    /// Bytes in it.
    pub bytes: u64,
}

/// Removes what was written beside the target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Discard {
    /// Where to.
    pub target: PathBuf,
    /// Names the file beside the target.
    pub key: String,
    /// Why; `None` after a cancel.
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

impl State<Restore> for Receive {
    const NAME: &'static str = "receive";
    const DOC: &'static str = "Write the database beside its target, and verify it there.";
    const RETRY: Retry = Retry::times(5).attempt_timeout(STREAM_AT_MOST);
    type Next = (Publish, Discard);

    async fn run(self, _: &Restore, cx: &mut Context<'_, Restore>) -> Step<Self> {
        let Receive { point, target, key, overwrite, meta } = self;
        let source = cx.host().source(&point, STREAM).await?;
        let length = source.length();
        let mut file = RestoreTarget::prepare(&target, &key, file_overwrite(overwrite), meta)?;
        while file.written() < length {
            cx.check_cancelled()?;
            file.write(&source.read_at(file.written(), READ_BYTES).await?)?;
            cx.progress(file.written(), Some(length));
        }
        file.complete(Some(Check::Quick))?;
        go(Publish { target, key, overwrite, bytes: length })
    }

    fn on_exhausted(self, fault: Fault) -> Step<Self> {
        go(Discard { target: self.target, key: self.key, fault: Some(fault) })
    }

    fn on_cancel(self) -> Step<Self> {
        go(Discard { target: self.target, key: self.key, fault: None })
    }
}

/// As much as the host's own buffers hold.
const READ_BYTES: usize = 1 << 20;

impl State<Restore> for Publish {
    const NAME: &'static str = "publish";
    const DOC: &'static str = "Put the file in the target's place, durably.";
    const RETRY: Retry = Retry::times(5).backoff(Duration::from_millis(500), 2.0);
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Restored, Discard);

    async fn run(self, _: &Restore, _: &mut Context<'_, Restore>) -> Step<Self> {
        let Publish { target, key, overwrite, bytes } = self;
        match CompleteFile::find(&target, &key, file_overwrite(overwrite))? {
            Publication::Pending(file) => file.publish()?,
            // An earlier attempt did it, and was interrupted before it could say so.
            Publication::Done => {}
            Publication::Lost => {
                let message = format!("the file beside {} is gone", target.display());
                return Err(Fault::permanent("sqlite.lost", message).advise("restore again"));
            }
        }
        go(Restored { target, bytes })
    }

    fn on_exhausted(self, fault: Fault) -> Step<Self> {
        go(Discard { target: self.target, key: self.key, fault: Some(fault) })
    }
}

impl State<Restore> for Discard {
    const NAME: &'static str = "discard";
    const DOC: &'static str = "Remove what was written beside the target.";
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Failed, Aborted);

    async fn run(self, _: &Restore, _: &mut Context<'_, Restore>) -> Step<Self> {
        RestoreTarget::discard(&self.target, &self.key)?;
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
    const DOC: &'static str = "The database is in place.";
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

fn file_overwrite(overwrite: plugin_sdk::Overwrite) -> Overwrite {
    match overwrite {
        plugin_sdk::Overwrite::Refuse => Overwrite::Refuse,
        plugin_sdk::Overwrite::Replace => Overwrite::Replace,
    }
}
