//! A plugin that shows when its code runs: its constructor adds a byte to a file, for the tests of
//! what is checked before that. It asks for a secret, and has nothing to back up.

use std::io::Write as _;
use std::sync::Arc;

use plugin_sdk::{
    Config, Decision, Fault, Item, ItemId, Machines, Manifest, PointMeta, RestoreRequest, RunPlan,
    Wanted, Workload, async_trait,
};

/// What the system's loader calls as soon as it has mapped the library.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

extern "C" fn at_load() {
    let trace = std::env::temp_dir().join(format!("mercury-trace-{}", std::process::id()));
    let file = std::fs::OpenOptions::new().create(true).append(true).open(trace);
    let _ = file.and_then(|mut file| file.write_all(b"."));
}

struct Traced;

#[async_trait]
impl Workload for Traced {
    fn manifest() -> Manifest {
        Manifest::new("plugin-traced", "1.2.3", "traced").secret("password")
    }

    fn open(_: Config) -> Result<Self, Fault> {
        Ok(Traced)
    }

    async fn discover(&self) -> Result<Vec<Item>, Fault> {
        Ok(Vec::new())
    }

    async fn decide(&self, _: &ItemId, _: &Wanted, _: &[PointMeta]) -> Result<Decision, Fault> {
        Err(Fault::permanent("traced.decide", "there is nothing to back up"))
    }

    async fn restore(&self, _: &RestoreRequest) -> Result<RunPlan, Fault> {
        Err(Fault::permanent("traced.restore", "there is nothing to restore"))
    }

    fn machines(self: &Arc<Self>) -> Machines {
        Machines::new()
    }
}

plugin_sdk::export!(Traced);
