//! An agent renews certificates. It keeps its runs in one SQLite file, runs on tokio, and may be
//! killed at any moment: the next start goes on with what it finds.
//!
//! This is what the `main` of a program looks like. Open the store; register every machine; then
//! recover, so that each run finds its machine; then start what is wanted, under an id that says
//! what it is, so that asking again starts nothing twice; and stop before the process ends.
//!
//! ```text
//! cargo run -p fsm-core --all-features --example agent            # in a directory that goes away
//! cargo run -p fsm-core --all-features --example agent state.db   # again and again, on one file
//! ```

use std::{error::Error, path::PathBuf, time::Duration};

use fsm_core::{
    Context, Ending, Fault, Hosted, Machine, Page, Retry, Runtime, State, Step, TokioEnvironment,
    check, go, go_at,
    sqlite::{SqliteJournal, Store},
};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = std::env::args().nth(1).map(PathBuf::from);
    let path = path.unwrap_or_else(|| directory.path().join("state.db"));
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    tokio.block_on(async {
        let journal = SqliteJournal::new(Store::open(&path)?)?;
        let environment = TokioEnvironment::new(Handle::current());
        let runtime = Runtime::builder(journal, environment).build();
        runtime
            .register(Hosted::new(Renewals, ()), concat!("agent ", env!("CARGO_PKG_VERSION")))?;

        let recovered = runtime.recover().await?;
        println!("{} runs go on", recovered.runs);
        for (run, why) in recovered.quarantined {
            println!("{run} cannot go on: {why}");
        }

        let mut runs = Vec::new();
        for host in ["www", "mail", "nowhere"] {
            let request = Request { host: host.to_owned() };
            let id = format!("renew/{host}/2026").parse()?;
            runs.push(runtime.begin::<Renewals>(id, &request).await?);
        }
        for run in &runs {
            let end = run.end().await?;
            let why = end.fault.map(|fault| format!(", {fault}")).unwrap_or_default();
            println!("{}: {} in `{}`{why}", run.run(), end.ending.as_str(), end.state);
        }
        let kept = runtime.list(Page::default()).await?.len();
        println!("{kept} runs are in the file");

        runtime.stop().await;
        Ok(())
    })
}

struct Renewals;

impl Machine for Renewals {
    const NAME: &'static str = "renewal";
    const DOC: &'static str = "Renew the certificate of one host.";
    type Host = ();
    type Initial = Request;
    type States = (Request, Install, Installed);
}
check!(Renewals);

#[derive(Serialize, Deserialize)]
struct Request {
    host: String,
}

impl State<Renewals> for Request {
    const NAME: &'static str = "request";
    const RETRY: Retry = Retry::times(3).backoff(Duration::from_millis(50), 2.0);
    type Next = (Install,);

    async fn run(self, _: &Renewals, cx: &mut Context<'_, Renewals>) -> Step<Self> {
        if self.host == "nowhere" {
            return Err(Fault::user("host.unknown", "no such host: nowhere"));
        }
        // The authority knows the key: asking again under the same one is the same request.
        let serial: String = cx.effect("certificate", async |effect| Ok(effect.key)).await?;
        go_at(cx.now() + Duration::from_millis(100), Install { host: self.host, serial })
    }
}

#[derive(Serialize, Deserialize)]
struct Install {
    host: String,
    serial: String,
}

impl State<Renewals> for Install {
    const NAME: &'static str = "install";
    type Next = (Installed,);

    async fn run(self, _: &Renewals, _: &mut Context<'_, Renewals>) -> Step<Self> {
        go(Installed { serial: self.serial })
    }
}

#[derive(Serialize, Deserialize)]
struct Installed {
    serial: String,
}

impl State<Renewals> for Installed {
    const NAME: &'static str = "installed";
    const ENDING: Ending = Ending::Completed;
    type Next = ();
}
