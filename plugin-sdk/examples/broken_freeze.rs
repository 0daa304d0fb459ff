//! A plugin that is wrong on purpose: it freezes what it backs up, and thaws it only if all goes
//! well. The conformance kit has to find that.

mod broken;

use std::{
    fs,
    path::{Path, PathBuf},
};

use plugin_sdk::{
    Context, FinishedTake, Host, Machine, PointNotes, Receipt, Seal, Sealed, State, Step, Take,
    Timestamp, check, go,
};
use serde::{Deserialize, Serialize};

/// freeze → copy → thaw → seal → sealed, and no way from `copy` to `thaw` but the good one.
#[derive(Debug, Default)]
pub struct LeaksAFreeze;

impl Machine for LeaksAFreeze {
    const NAME: &'static str = "leaks_a_freeze";
    type Host = Host;
    type Initial = Freeze;
    type States = (Freeze, Copy, Thaw, Seal, Sealed);
}
check!(LeaksAFreeze);

/// The file that says that another one is frozen.
fn frozen(path: &Path) -> PathBuf {
    path.with_extension("frozen")
}

/// Freezes the file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Freeze {
    path: PathBuf,
}

impl From<PathBuf> for Freeze {
    fn from(path: PathBuf) -> Self {
        Freeze { path }
    }
}

/// Sends it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Copy {
    path: PathBuf,
}

/// Thaws it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Thaw {
    path: PathBuf,
    begun_at: Timestamp,
    receipts: Vec<Receipt>,
}

impl State<LeaksAFreeze> for Freeze {
    const NAME: &'static str = "freeze";
    const DOC: &'static str = "Freeze the file.";
    type Next = (Copy,);

    async fn run(self, _: &LeaksAFreeze, _: &mut Context<'_, LeaksAFreeze>) -> Step<Self> {
        fs::write(frozen(&self.path), "")?;
        go(Copy { path: self.path })
    }
}

impl State<LeaksAFreeze> for Copy {
    const NAME: &'static str = "copy";
    const DOC: &'static str = "Send the frozen file.";
    type Next = (Thaw,);

    async fn run(self, _: &LeaksAFreeze, cx: &mut Context<'_, LeaksAFreeze>) -> Step<Self> {
        let take = match cx.host().take("copy").await? {
            Take::Begun(take) => {
                broken::send(&take, &self.path, || cx.check_cancelled()).await?;
                take.finish().await?
            }
            Take::Finished(take) => take,
        };
        let FinishedTake { begun_at, receipts, .. } = take;
        go(Thaw { path: self.path, begun_at, receipts })
    }
}

impl State<LeaksAFreeze> for Thaw {
    const NAME: &'static str = "thaw";
    const DOC: &'static str = "Thaw the file.";
    type Next = (Seal,);

    async fn run(self, _: &LeaksAFreeze, _: &mut Context<'_, LeaksAFreeze>) -> Step<Self> {
        let _ = fs::remove_file(frozen(&self.path));
        let (kind, base, notes) = Default::default();
        let notes: PointNotes = notes;
        go(Seal { kind, base, taken_at: self.begun_at, notes, receipts: self.receipts })
    }
}

plugin_sdk::export!(broken::Files<LeaksAFreeze>);
