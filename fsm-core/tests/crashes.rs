//! A process that dies at each write of its journal, before and after the write lands, twice in a
//! row: the end, the states and the keys of the effects are always the same.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use fsm_core::{
    Body, Cancel, Context, Data, End, Ending, Environment, Fault, Hosted, Journal, JournalError,
    JournalErrorKind, Loaded, Machine, Page, Pruned, Record, Retention, Retry, RunId, RunSnapshot,
    RunSummary, Runtime, RuntimeErrorKind, State, Step, Timestamp, check, go, go_at,
    testing::{Intercepted, ManualEnvironment},
};
use futures::future::{BoxFuture, Either, select};
use serde::{Deserialize, Serialize};

use self::support::{id, medium::Medium, process::breathe};

/// How a write ends the process.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    /// Nothing is written, and the process hears nothing any more.
    Before,
    /// It is written, and the process hears nothing any more.
    After,
    /// Nothing is written, and the process hears of an error.
    ErrorBefore,
    /// It is written, and the process hears of an error.
    ErrorAfter,
}

const DEATHS: [Death; 4] = [Death::Before, Death::After, Death::ErrorBefore, Death::ErrorAfter];

/// A journal that dies at its n-th write.
#[derive(Clone)]
struct Mortal {
    journal: Intercepted,
    left: Arc<AtomicU32>,
    death: Death,
    dead: Arc<AtomicBool>,
}

impl Mortal {
    fn new(journal: Intercepted, at: u32, death: Death) -> Self {
        Mortal { journal, left: Arc::new(AtomicU32::new(at)), death, dead: Arc::default() }
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

impl Journal for Mortal {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), JournalError>> {
        let this = self.clone();
        Box::pin(async move {
            if this.is_dead() {
                return futures::future::pending().await;
            }
            if this.left.fetch_sub(1, Ordering::SeqCst) != 1 {
                return this.journal.append(records).await;
            }
            if let Death::After | Death::ErrorAfter = this.death {
                this.journal.append(records).await?;
            }
            this.dead.store(true, Ordering::SeqCst);
            match this.death {
                Death::Before | Death::After => futures::future::pending().await,
                _ => Err(JournalError::new(JournalErrorKind::Storage, "the test's journal")),
            }
        })
    }

    fn load(&self, run: &RunId) -> BoxFuture<'static, Result<Option<RunSnapshot>, JournalError>> {
        self.journal.load(run)
    }

    fn unfinished(
        &self,
        after: Option<&RunId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Loaded>, JournalError>> {
        self.journal.unfinished(after, limit)
    }

    fn list(&self, page: Page) -> BoxFuture<'static, Result<Vec<RunSummary>, JournalError>> {
        self.journal.list(page)
    }

    fn head(&self, run: &RunId) -> BoxFuture<'static, Result<Option<u64>, JournalError>> {
        self.journal.head(run)
    }

    fn prune(
        &self,
        retention: Retention,
        now: Timestamp,
    ) -> BoxFuture<'static, Result<Pruned, JournalError>> {
        self.journal.prune(retention, now)
    }

    fn history(&self, run: &RunId) -> BoxFuture<'static, Result<Vec<Record>, JournalError>> {
        self.journal.history(run)
    }
}

/// The outside world: what was done there, by key, and how often it was asked for.
#[derive(Clone, Default)]
struct Disk {
    done: Arc<Mutex<BTreeSet<String>>>,
    faults: Arc<AtomicU32>,
}

impl Disk {
    fn act(&self, key: &str) -> Result<u32, Fault> {
        self.done.lock().unwrap().insert(key.to_owned());
        Ok(1)
    }

    fn keys(&self) -> BTreeSet<String> {
        self.done.lock().unwrap().clone()
    }
}

struct Backup;

impl Machine for Backup {
    const NAME: &'static str = "backup";
    type Host = Disk;
    type Initial = Check;
    type States = (Check, Freeze, Copy, Thaw, Done, Failed);
}
check!(Backup);

#[derive(Serialize, Deserialize)]
struct Check;
#[derive(Serialize, Deserialize)]
struct Freeze;
#[derive(Serialize, Deserialize)]
struct Copy {
    chunk: u32,
}
#[derive(Serialize, Deserialize)]
struct Thaw {
    chunks: u32,
}
#[derive(Serialize, Deserialize)]
struct Done {
    chunks: u32,
}
#[derive(Serialize, Deserialize)]
struct Failed;

impl State<Backup> for Check {
    const NAME: &'static str = "check";
    type Next = (Freeze, Failed);

    async fn run(self, _: &Backup, _: &mut Context<'_, Backup>) -> Step<Self> {
        go(Freeze)
    }
}

impl State<Backup> for Freeze {
    const NAME: &'static str = "freeze";
    type Next = (Copy, Failed);

    async fn run(self, _: &Backup, cx: &mut Context<'_, Backup>) -> Step<Self> {
        let disk = cx.host().clone();
        cx.once("freeze", async |effect| {
            if effect.maybe_ran && disk.keys().contains(&effect.key) {
                return Ok(1);
            }
            assert!(!disk.keys().contains(&effect.key), "frozen twice unseen");
            disk.act(&effect.key)
        })
        .await?;
        go(Copy { chunk: 0 })
    }
}

impl State<Backup> for Copy {
    const NAME: &'static str = "copy";
    const RETRY: Retry = Retry::times(3);
    type Next = (Copy, Thaw);

    async fn run(self, _: &Backup, cx: &mut Context<'_, Backup>) -> Step<Self> {
        let disk = cx.host().clone();
        cx.effect("chunk", async |effect| disk.act(&effect.key)).await?;
        if self.chunk == 1 && cx.attempt() == 1 {
            cx.host().faults.fetch_add(1, Ordering::SeqCst);
            return Err(Fault::retryable("test.busy", "the disk is busy"));
        }
        if self.chunk < 2 {
            return go_at(cx.now() + Duration::from_secs(5), Copy { chunk: self.chunk + 1 });
        }
        go(Thaw { chunks: self.chunk + 1 })
    }
}

impl State<Backup> for Thaw {
    const NAME: &'static str = "thaw";
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Done,);

    async fn run(self, _: &Backup, cx: &mut Context<'_, Backup>) -> Step<Self> {
        let disk = cx.host().clone();
        cx.effect("thaw", async |effect| disk.act(&effect.key)).await?;
        go(Done { chunks: self.chunks })
    }
}

impl State<Backup> for Done {
    const NAME: &'static str = "done";
    type Next = ();
}

impl State<Backup> for Failed {
    const NAME: &'static str = "failed";
    const ENDING: Ending = Ending::Failed;
    type Next = ();
}

/// Runs the backup in one process; `None` if the process dies.
fn process(journal: &Mortal, environment: &ManualEnvironment, disk: &Disk) -> Option<End> {
    let runtime = Runtime::builder(journal.clone(), environment.clone()).build();
    runtime.register(Hosted::new(Backup, disk.clone()), "tests 1").unwrap();
    let end = environment.block_on(async {
        let mut run = Box::pin(async {
            let input = Data::encode(&Check).unwrap();
            let handle = runtime.start(id("r"), "backup", input).await.ok()?;
            handle.end().await.ok()
        });
        loop {
            match select(run, Box::pin(breathe())).await {
                Either::Left((end, _)) => return end,
                Either::Right(((), unfinished)) => run = unfinished,
            }
            if journal.is_dead() {
                return None;
            }
            if let Some(at) = environment.next_wake() {
                environment.advance(at.since(environment.now()));
            }
        }
    });
    environment.drop_tasks();
    end
}

struct Outcome {
    end: End,
    states: Vec<String>,
    keys: BTreeSet<String>,
    attempts: usize,
}

/// Runs the backup in as many processes as it takes, the first of which die as `deaths` say.
fn run(medium: &Medium, deaths: &[(u32, Death)]) -> (Outcome, usize) {
    let (environment, disk) = (ManualEnvironment::default(), Disk::default());
    let mut died = 0;
    let mut deaths = deaths.iter();
    let end = loop {
        let (at, death) = *deaths.next().unwrap_or(&(u32::MAX, Death::Before));
        match process(&Mortal::new(medium.open(), at, death), &environment, &disk) {
            Some(end) => break end,
            None => died += 1,
        }
    };
    let records = environment.block_on(medium.open().history(&id("r"))).unwrap();
    assert!(records.iter().map(|record| record.seq).eq(1..=records.len() as u64), "{records:#?}");
    let ends = records.iter().filter(|record| matches!(record.body, Body::End { .. })).count();
    assert_eq!(ends, 1, "{records:#?}");
    let attempts = records.iter().filter(|r| matches!(r.body, Body::Attempt { .. })).count();
    let entered = records.into_iter().filter_map(|record| match record.body {
        Body::Enter { state, .. } => Some(state),
        _ => None,
    });
    let outcome = Outcome { end, states: entered.collect(), keys: disk.keys(), attempts };
    (outcome, died)
}

#[track_caller]
fn check_same(medium: &Medium, undisturbed: &Outcome, deaths: &[(u32, Death)]) -> usize {
    let (outcome, died) = run(medium, deaths);
    assert_eq!(outcome.end, undisturbed.end, "{deaths:?}");
    assert_eq!(outcome.states, undisturbed.states, "{deaths:?}");
    assert_eq!(outcome.keys, undisturbed.keys, "{deaths:?}");
    assert_eq!(outcome.attempts, undisturbed.attempts, "{deaths:?}");
    died
}

fn undisturbed() -> Outcome {
    let (outcome, died) = run(&Medium::memory(), &[]);
    assert_eq!(died, 0);
    assert_eq!(outcome.end.data.as_text(), Some(r#"{"chunks":3}"#));
    let keys: Vec<_> = outcome.keys.iter().map(String::as_str).collect();
    assert_eq!(keys, ["r/2/freeze", "r/3/chunk", "r/4/chunk", "r/5/chunk", "r/6/thaw"]);
    outcome
}

#[test]
fn a_death_at_each_write_twice_in_a_row_changes_nothing() {
    let undisturbed = undisturbed();
    let mut schedules = 0;
    for death in DEATHS {
        for first in 1.. {
            if check_same(&Medium::memory(), &undisturbed, &[(first, death)]) == 0 {
                break;
            }
            for second_death in DEATHS {
                for second in 1.. {
                    let deaths = [(first, death), (second, second_death)];
                    schedules += 1;
                    if check_same(&Medium::memory(), &undisturbed, &deaths) == 1 {
                        break;
                    }
                }
            }
        }
    }
    assert!(schedules > 500, "{schedules} schedules");
}

#[cfg(feature = "sqlite")]
#[test]
fn the_same_over_sqlite() {
    let undisturbed = undisturbed();
    for death in [Death::Before, Death::After, Death::ErrorAfter] {
        for at in 1.. {
            let deaths = [(at, death), (at, death)];
            if check_same(&Medium::sqlite(), &undisturbed, &deaths) == 0 {
                break;
            }
        }
    }
}

#[test]
fn a_request_that_the_journal_refuses_is_not_reported_as_made() {
    let environment = ManualEnvironment::default();
    let journal = Mortal::new(Medium::memory().open(), 2, Death::ErrorBefore);
    let runtime = Runtime::builder(journal, environment.clone()).build();
    runtime.register(Hosted::new(Backup, Disk::default()), "tests 1").unwrap();
    let (handle, cancelled) = environment.block_on(async {
        let input = Data::encode(&Check).unwrap();
        let handle = runtime.start(id("r"), "backup", input).await.unwrap();
        (handle.clone(), runtime.cancel(&id("r"), "a test asks").await)
    });
    let kind = RuntimeErrorKind::Journal(JournalErrorKind::Storage);
    assert_eq!(cancelled.unwrap_err().kind(), kind);
    assert_eq!(environment.block_on(handle.end()).unwrap_err().kind(), kind);
}
