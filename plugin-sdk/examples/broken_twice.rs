//! A plugin that is wrong on purpose: a step that runs again sends everything again. The
//! conformance kit has to find that.

mod broken;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use plugin_sdk::{Context, Host, Machine, PointNotes, Seal, Sealed, State, Step, Take, check, go};
use serde::{Deserialize, Serialize};

/// send → seal → sealed.
#[derive(Debug, Default)]
pub struct SendsTwice;

impl Machine for SendsTwice {
    const NAME: &'static str = "sends_twice";
    type Host = Host;
    type Initial = Send;
    type States = (Send, Seal, Sealed);
}
check!(SendsTwice);

/// Sends the file, once for each attempt.
#[derive(Debug, Serialize, Deserialize)]
pub struct Send {
    path: PathBuf,
}

impl From<PathBuf> for Send {
    fn from(path: PathBuf) -> Self {
        Send { path }
    }
}

impl State<SendsTwice> for Send {
    const NAME: &'static str = "send";
    const DOC: &'static str = "Send the file, once for each attempt.";
    type Next = (Seal,);

    async fn run(self, _: &SendsTwice, cx: &mut Context<'_, SendsTwice>) -> Step<Self> {
        // The mistake: the take's name is another one for each attempt, in whatever process, so
        // that an attempt never finds what the one before it has finished.
        static ATTEMPTS: AtomicU64 = AtomicU64::new(1);
        let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        let name = format!("copy-{}-{attempt}", std::process::id());
        let take = match cx.host().take(&name).await? {
            Take::Begun(take) => {
                broken::send(&take, &self.path, || cx.check_cancelled()).await?;
                take.finish().await?
            }
            Take::Finished(take) => take,
        };
        go(Seal::full(take, PointNotes::new()))
    }
}

plugin_sdk::export!(broken::Files<SendsTwice>);
