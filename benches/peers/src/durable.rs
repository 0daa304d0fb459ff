//! The work of the bench `durable`, done by fsm-core on SQLite.
//!
//! `durable-fsm-core DIRECTORY WORKFLOWS AT_ONCE` runs that many workflows, `AT_ONCE` of them at a
//! time, each of five steps, and prints what it took as one line of JSON. How the connection syncs
//! is read back from it.

use std::{
    error::Error,
    hash::{BuildHasher, Hasher, RandomState},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use fsm_core::{
    Context, Data, Ending, Environment, Hosted, JournalError, Machine, RunId, Runtime, State, Step,
    Timestamp, check, go,
    sqlite::{SqliteJournal, Store},
};
use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use serde::{Deserialize, Serialize};

const STEPS: u32 = 5;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [directory, workflows, at_once] = &arguments[..] else {
        return Err("usage: durable-fsm-core DIRECTORY WORKFLOWS AT_ONCE".into());
    };
    let (workflows, at_once): (u32, usize) = (workflows.parse()?, at_once.parse()?);
    let store = Store::open(&PathBuf::from(directory).join("state.db"))?;
    let synchronous = store
        .write(|tx| {
            Ok::<u8, JournalError>(tx.pragma_query_value(None, "synchronous", |row| row.get(0))?)
        })
        .await?;
    let runtime = Runtime::builder(SqliteJournal::new(store)?, Tokio).build();
    runtime.register(Hosted::new(Chores, ()), "bench")?;

    let start = Instant::now();
    stream::iter(0..workflows)
        .map(|number| Ok(workflow(&runtime, number)))
        .try_buffer_unordered(at_once)
        .try_collect::<()>()
        .await?;
    let seconds = start.elapsed().as_secs_f64();
    println!(r#"{{"seconds":{seconds},"synchronous":{synchronous}}}"#);
    Ok(())
}

async fn workflow(runtime: &Runtime, number: u32) -> Result<(), Box<dyn Error>> {
    let run = RunId::new(format!("chores-{number}"))?;
    let input = Data::encode(&Work { left: STEPS - 1 })?;
    let end = runtime.start(run, Chores::NAME, input).await?.end().await?;
    match end.ending {
        Ending::Completed => Ok(()),
        _ => Err(format!("a workflow ended otherwise: {end:?}").into()),
    }
}

struct Chores;

impl Machine for Chores {
    const NAME: &'static str = "chores";
    type Host = ();
    type Initial = Work;
    type States = (Work, Done);
}
check!(Chores);

/// A chore that is no work, and those that are left after it.
#[derive(Serialize, Deserialize)]
struct Work {
    left: u32,
}

impl State<Chores> for Work {
    const NAME: &'static str = "work";
    type Next = (Work, Done);

    async fn run(self, _: &Chores, cx: &mut Context<'_, Chores>) -> Step<Self> {
        let said = cx.effect("chore", |effect| async move { Ok(effect.key) }).await?;
        match self.left.checked_sub(1) {
            Some(left) => go(Work { left }),
            None => go(Done { said }),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Done {
    said: String,
}

impl State<Chores> for Done {
    const NAME: &'static str = "done";
    type Next = ();
}

/// Time, tasks and chance of a program that runs tokio.
#[derive(Debug)]
struct Tokio;

impl Environment for Tokio {
    fn now(&self) -> Timestamp {
        let since_epoch =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_ms(since_epoch.as_millis() as u64)
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let left: Duration = at.since(self.now());
        Box::pin(tokio::time::sleep(left))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn random(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}
