//! The work of the bench `durable`, done by duroxide on its file of SQLite.
//!
//! `peer-duroxide DIRECTORY WORKFLOWS AT_ONCE MODE` runs that many workflows, `AT_ONCE` of them at
//! a time, each of five activities one after the other, and prints what it took as one line of
//! JSON. `MODE` says how the connections sync:
//!
//! * `as-it-comes`: as duroxide opens them. Its `PRAGMA synchronous = WAL` names no level that
//!   SQLite knows, which makes it `NORMAL`: a commit is not synced.
//! * `full`: each connection of its pool is set to `FULL`: a commit is synced before it returns.
//!
//! The level that is printed is read back from each connection after the work. The pool replaces
//! a connection now and then, and the new one is as it comes: then the levels differ, and the
//! program fails, as it does when a workflow fails. Such a run is no measurement.

use std::{
    error::Error,
    fs::File,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use duroxide::{
    ActivityContext, Client, OrchestrationContext, OrchestrationRegistry, OrchestrationStatus,
    providers::sqlite::SqliteProvider,
    runtime::{ObservabilityConfig, Runtime, RuntimeOptions, registry::ActivityRegistry},
};
use futures::{StreamExt, TryStreamExt, stream};
use sqlx::{Sqlite, SqlitePool, pool::PoolConnection};

const STEPS: u32 = 5;
/// As many connections as duroxide's pool has at most.
const CONNECTIONS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [directory, workflows, at_once, mode] = &arguments[..] else {
        return Err("usage: peer-duroxide DIRECTORY WORKFLOWS AT_ONCE as-it-comes|full".into());
    };
    let (workflows, at_once): (u32, usize) = (workflows.parse()?, at_once.parse()?);
    let file = PathBuf::from(directory).join("duroxide.db");
    File::create(&file)?;
    let provider = SqliteProvider::new(&format!("sqlite:{}", file.display()), None).await?;
    let pool = provider.get_pool().clone();
    match mode.as_str() {
        "as-it-comes" => {}
        "full" => {
            for mut connection in all_connections(&pool).await? {
                sqlx::query("PRAGMA synchronous = FULL").execute(&mut *connection).await?;
            }
        }
        other => return Err(format!("no such mode: {other}").into()),
    }
    let provider = Arc::new(provider);
    let runtime =
        Runtime::start_with_options(provider.clone(), activities(), orchestrations(), options())
            .await;

    let client = Client::new(provider);
    let polls = if at_once == 1 { Polls::Often } else { Polls::AsItComes };
    let start = Instant::now();
    stream::iter(0..workflows)
        .map(|number| Ok(workflow(&client, number, polls)))
        .try_buffer_unordered(at_once)
        .try_collect::<()>()
        .await?;
    let seconds = start.elapsed().as_secs_f64();
    runtime.shutdown(None).await;

    let mut levels: Vec<i64> = Vec::new();
    for mut connection in all_connections(&pool).await? {
        levels.push(sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *connection).await?);
    }
    levels.sort_unstable();
    levels.dedup();
    let [synchronous] = levels[..] else {
        return Err(format!("the connections do not sync alike: {levels:?}").into());
    };
    println!(r#"{{"seconds":{seconds},"synchronous":{synchronous}}}"#);
    Ok(())
}

/// All connections that the pool can have, at once, so that none is left out.
async fn all_connections(pool: &SqlitePool) -> Result<Vec<PoolConnection<Sqlite>>, sqlx::Error> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(pool.acquire().await?);
    }
    Ok(connections)
}

/// How the end of a workflow is found out; whichever is better for duroxide.
#[derive(Clone, Copy)]
enum Polls {
    /// Every millisecond. duroxide's own wait asks less and less often, down to every 100 ms, and
    /// would be most of the time of a workflow alone.
    Often,
    /// With that wait. Many callers that ask often slow duroxide down tenfold.
    AsItComes,
}

async fn workflow(client: &Client, number: u32, polls: Polls) -> Result<(), String> {
    let instance = format!("chores-{number}");
    let begun = client.start_orchestration(&instance, "chores", "").await;
    begun.map_err(|error| format!("a workflow did not begin: {error:?}"))?;
    loop {
        let status = match polls {
            Polls::Often => client.get_orchestration_status(&instance).await,
            Polls::AsItComes => client.wait_for_orchestration(&instance, PATIENCE).await,
        };
        match status {
            Ok(OrchestrationStatus::Completed { .. }) => return Ok(()),
            Ok(OrchestrationStatus::Running { .. } | OrchestrationStatus::NotFound) => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            other => return Err(format!("a workflow ended otherwise: {other:?}")),
        }
    }
}

fn activities() -> ActivityRegistry {
    ActivityRegistry::builder()
        .register("chore", |_: ActivityContext, input: String| async move { Ok(input) })
        .build()
}

fn orchestrations() -> OrchestrationRegistry {
    let chores = |cx: OrchestrationContext, _: String| async move {
        let mut said = String::new();
        for step in 0..STEPS {
            said = cx.schedule_activity("chore", format!("{step}")).await?;
        }
        Ok(said)
    };
    OrchestrationRegistry::builder().register("chores", chores).build()
}

/// Looks for work every millisecond instead of every 100, so that one workflow alone is no
/// measurement of a sleep; and with one dispatcher of each kind instead of two, which is no slower
/// on two processors, because more of them lock each other out of the file more often.
fn options() -> RuntimeOptions {
    RuntimeOptions {
        dispatcher_min_poll_interval: Duration::from_millis(1),
        orchestration_concurrency: 1,
        worker_concurrency: 1,
        observability: ObservabilityConfig {
            log_level: "error".to_owned(),
            ..ObservabilityConfig::default()
        },
        ..RuntimeOptions::default()
    }
}
