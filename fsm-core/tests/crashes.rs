//! The model case of the testing kit: a backup whose process dies at each write of its journal,
//! twice in a row, whose steps are repeated, fail and are cancelled.
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
    Cancel, Context, Data, Ending, Fault, Hosted, JournalError, JournalErrorKind, Machine, Retry,
    Runtime, RuntimeErrorKind, State, Step, check, go, go_at,
    testing::{Intercepted, ManualEnvironment, Trial, TrialReport},
};
use serde::{Deserialize, Serialize};

use self::support::{id, medium::Medium};

/// The outside world: what was done there, by key, and whether it is frozen.
#[derive(Clone, Default)]
struct Disk {
    done: Arc<Mutex<BTreeSet<String>>>,
    frozen: Arc<AtomicBool>,
}

impl Disk {
    fn act(&self, key: &str) -> Result<u32, Fault> {
        self.done.lock().unwrap().insert(key.to_owned());
        Ok(1)
    }

    fn keys(&self) -> BTreeSet<String> {
        self.done.lock().unwrap().clone()
    }

    fn is_thawed(&self) -> Result<(), String> {
        let is_frozen = self.frozen.load(Ordering::SeqCst);
        if is_frozen { Err("the disk is left frozen".to_owned()) } else { Ok(()) }
    }
}

struct Backup;

impl Machine for Backup {
    const NAME: &'static str = "backup";
    type Host = Disk;
    type Initial = Check;
    type States = (Check, Freeze, Copy, Thaw, Release, Done, Failed);
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
struct Release;
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

    fn on_exhausted(self, _: Fault) -> Step<Self> {
        go(Failed)
    }
}

impl State<Backup> for Freeze {
    const NAME: &'static str = "freeze";
    type Next = (Copy, Release);

    async fn run(self, _: &Backup, cx: &mut Context<'_, Backup>) -> Step<Self> {
        let disk = cx.host().clone();
        cx.once("freeze", async |effect| {
            if effect.maybe_ran && disk.keys().contains(&effect.key) {
                return Ok(1);
            }
            assert!(!disk.keys().contains(&effect.key), "frozen twice unseen");
            disk.frozen.store(true, Ordering::SeqCst);
            disk.act(&effect.key)
        })
        .await?;
        go(Copy { chunk: 0 })
    }

    fn on_exhausted(self, _: Fault) -> Step<Self> {
        go(Release)
    }

    fn on_cancel(self) -> Step<Self> {
        go(Release)
    }
}

impl State<Backup> for Copy {
    const NAME: &'static str = "copy";
    const RETRY: Retry = Retry::times(3);
    type Next = (Copy, Thaw, Release);

    async fn run(self, _: &Backup, cx: &mut Context<'_, Backup>) -> Step<Self> {
        let disk = cx.host().clone();
        cx.effect("chunk", async |effect| disk.act(&effect.key)).await?;
        if self.chunk == 1 && cx.attempt() == 1 {
            return Err(Fault::retryable("test.busy", "the disk is busy"));
        }
        if self.chunk < 2 {
            return go_at(cx.now() + Duration::from_secs(5), Copy { chunk: self.chunk + 1 });
        }
        go(Thaw { chunks: self.chunk + 1 })
    }

    fn on_exhausted(self, _: Fault) -> Step<Self> {
        go(Release)
    }

    fn on_cancel(self) -> Step<Self> {
        go(Release)
    }
}

impl State<Backup> for Thaw {
    const NAME: &'static str = "thaw";
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Done, Release);

    async fn run(self, _: &Backup, cx: &mut Context<'_, Backup>) -> Step<Self> {
        thaw(cx).await?;
        go(Done { chunks: self.chunks })
    }

    fn on_exhausted(self, _: Fault) -> Step<Self> {
        go(Release)
    }
}

/// Thaws for a backup that has failed; an operator helps if it cannot.
impl State<Backup> for Release {
    const NAME: &'static str = "release";
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Release, Failed);

    async fn run(self, _: &Backup, cx: &mut Context<'_, Backup>) -> Step<Self> {
        thaw(cx).await?;
        go(Failed)
    }

    fn on_exhausted(self, _: Fault) -> Step<Self> {
        go(Release)
    }
}

async fn thaw(cx: &mut Context<'_, Backup>) -> Result<u32, Fault> {
    let disk = cx.host().clone();
    cx.effect("thaw", async |effect| {
        disk.frozen.store(false, Ordering::SeqCst);
        disk.act(&effect.key)
    })
    .await
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

fn trial() -> Trial<Disk> {
    Trial::new("backup", &Check)
        .world(Disk::default)
        .machine(|disk| Hosted::new(Backup, disk.clone()))
        .observe(Disk::keys)
        .always(Disk::is_thawed)
}

#[track_caller]
fn check(report: &TrialReport, at_least: usize) {
    println!("{report}");
    assert!(report.schedules() >= at_least, "{report}");
    assert_eq!(report.end().data.as_text(), Some(r#"{"chunks":3}"#));
}

#[test]
fn a_death_at_each_write_twice_in_a_row_changes_nothing() {
    let report = trial().crash_everywhere().unwrap();
    check(&report, 500);
    assert_eq!(report.schedules(), report.possible());
    assert!(report.deaths() > report.schedules(), "{report}");
    assert!(report.effects_run_again() > 0, "{report}");
}

#[test]
fn the_order_of_tasks_does_not_matter() {
    for seed in 0..4 {
        check(&trial().seed(seed).crash_everywhere().unwrap(), 500);
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn the_same_over_sqlite() {
    use fsm_core::sqlite::{SqliteJournal, Store};
    let over_sqlite = trial().journal(|| {
        let directory = tempfile::tempdir().unwrap();
        move || {
            let store = Store::open(&directory.path().join("state.db")).unwrap();
            SqliteJournal::new(store).unwrap()
        }
    });
    check(&over_sqlite.at_most(500).crash_everywhere().unwrap(), 500);
}

#[test]
fn a_step_may_run_again_fail_or_be_cancelled() {
    check(&trial().repeat_every_effect().unwrap(), 10);
    check(&trial().fail_every_step().unwrap(), 20);
    let report = trial().everything().unwrap();
    check(&report, 550);
    let coverage = &report.coverage()[0];
    // Two things would have to go wrong.
    assert_eq!(coverage.missing(), [("release", "release")], "{coverage}");
}

#[test]
fn a_request_that_the_journal_refuses_is_not_reported_as_made() {
    let environment = ManualEnvironment::default();
    let writes = AtomicU32::new(0);
    let journal = Intercepted::new(Medium::memory().open(), move |journal, records| {
        let write = writes.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            match write {
                1 => journal.append(records).await,
                2 => Err(JournalError::new(JournalErrorKind::Storage, "the test's journal")),
                _ => futures::future::pending().await,
            }
        }
    });
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
