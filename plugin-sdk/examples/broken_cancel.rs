//! A plugin that is wrong on purpose: it does not look whether it was asked to stop. The
//! conformance kit has to find that.

mod broken;

use std::path::PathBuf;

use plugin_sdk::{Context, Host, Machine, PointNotes, Seal, Sealed, State, Step, Take, check, go};
use serde::{Deserialize, Serialize};

/// send → seal → sealed.
#[derive(Debug, Default)]
pub struct IgnoresCancel;

impl Machine for IgnoresCancel {
    const NAME: &'static str = "ignores_cancel";
    type Host = Host;
    type Initial = Send;
    type States = (Send, Seal, Sealed);
}
check!(IgnoresCancel);

/// Sends the file, whatever anybody says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Send {
    path: PathBuf,
}

impl From<PathBuf> for Send {
    fn from(path: PathBuf) -> Self {
        Send { path }
    }
}

impl State<IgnoresCancel> for Send {
    const NAME: &'static str = "send";
    const DOC: &'static str = "Send the file, whatever anybody says.";
    type Next = (Seal,);

    async fn run(self, _: &IgnoresCancel, cx: &mut Context<'_, IgnoresCancel>) -> Step<Self> {
        let take = match cx.host().take("copy").await? {
            Take::Begun(take) => {
                broken::send(&take, &self.path, || Ok(())).await?;
                take.finish().await?
            }
            Take::Finished(take) => take,
        };
        go(Seal::full(take, PointNotes::new()))
    }
}

plugin_sdk::export!(broken::Files<IgnoresCancel>);
