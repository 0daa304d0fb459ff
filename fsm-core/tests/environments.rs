//! One machine, and three executors that have nothing in common: it comes to the same end by the
//! same way.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    pin::pin,
    task::Poll,
    time::{Duration, SystemTime},
};

use fsm_core::{
    Body, Context, Data, End, Ending, Environment, Fault, Hosted, Machine, MemoryJournal, Retry,
    RunId, Runtime, Signal, State, Step, Timestamp, Wait, check, go, go_at,
    testing::ManualEnvironment,
};
use futures::{
    FutureExt,
    channel::oneshot,
    future::{BoxFuture, Either, poll_fn, select},
};
use serde::{Deserialize, Serialize};

#[test]
fn a_machine_runs_by_a_clock_that_a_test_drives() {
    let environment = ManualEnvironment::default();
    let story = pin!(play(environment.clone()));
    // Whenever the others have had their turn, the first who sleeps wakes.
    let time = pin!(poll_fn(|cx| {
        if let Some(at) = environment.next_wake() {
            environment.advance(at.since(environment.now()));
        }
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    }));
    let Either::Left((told, _)) = environment.block_on(select(story, time)) else {
        unreachable!("time never ends");
    };
    check_story(told);
}

#[test]
fn a_machine_runs_on_threads_alone() {
    check_story(futures::executor::block_on(play(Threads)));
}

#[cfg(feature = "tokio")]
#[test]
fn a_machine_runs_on_the_threads_of_tokio() {
    use tokio::runtime::Builder;

    let tokio = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let environment = fsm_core::TokioEnvironment::new(tokio.handle().clone());
    check_story(tokio.block_on(play(environment.clone())));
    // Whoever asks need not be a task of tokio.
    check_story(futures::executor::block_on(play(environment)));
}

#[cfg(feature = "tokio")]
#[test]
fn a_machine_runs_on_one_thread_of_tokio() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let environment = fsm_core::TokioEnvironment::new(tokio.handle().clone());
    check_story(tokio.block_on(play(environment)));
}

#[cfg(feature = "tokio")]
#[test]
fn a_sleep_of_tokio_may_be_waited_for_anywhere() {
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let environment = fsm_core::TokioEnvironment::new(tokio.handle().clone());
    let at = environment.now() + Duration::from_millis(20);
    futures::executor::block_on(environment.sleep_until(at));
    assert!(environment.now() >= at);
}

/// An environment of threads: one for each task, and one for each timer.
#[derive(Debug)]
struct Threads;

impl Environment for Threads {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        Timestamp::from_unix_ms(since_epoch.as_millis() as u64)
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let left = at.since(self.now()).min(Duration::from_secs(60));
        let (ring, bell) = oneshot::channel();
        std::thread::spawn(move || {
            std::thread::sleep(left);
            // Nobody may be listening any more.
            let _ = ring.send(());
        });
        bell.map(drop).boxed()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        std::thread::spawn(move || futures::executor::block_on(task));
    }

    fn random(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

/// The end of a run that waits for a time, a second attempt, a signal and a child; and the states
/// that it went through.
async fn play(environment: impl Environment) -> (End, Vec<String>) {
    let runtime = Runtime::builder(MemoryJournal::new(), environment).build();
    runtime.register(Hosted::new(Hike, ()), "tests").unwrap();
    runtime.register(Hosted::new(Dog, ()), "tests").unwrap();
    let run: RunId = "sunday".parse().unwrap();
    let hike = runtime.start(run.clone(), "hike", Data::encode(&Asleep {}).unwrap()).await.unwrap();
    runtime.tell(&run, "sky", &Weather { sunny: true }).await.unwrap();
    let end = hike.end().await.unwrap();
    let history = runtime.history(&run).await.unwrap();
    runtime.stop().await;
    let entered = history.into_iter().filter_map(|record| match record.body {
        Body::Enter { state, .. } => Some(state),
        _ => None,
    });
    (end, entered.collect())
}

#[track_caller]
fn check_story((end, states): (End, Vec<String>)) {
    assert_eq!(states, ["asleep", "awake", "out", "home"]);
    assert_eq!(end.ending, Ending::Completed);
    assert_eq!(end.data.as_text(), Some(r#"{"attempts":2,"sticks":3}"#));
}

#[derive(Serialize, Deserialize)]
struct Weather {
    sunny: bool,
}

impl Signal for Weather {
    const NAME: &'static str = "weather";
}

struct Hike;

impl Machine for Hike {
    const NAME: &'static str = "hike";
    type Host = ();
    type Initial = Asleep;
    type States = (Asleep, Awake, Out, Home);
}
check!(Hike);

#[derive(Serialize, Deserialize)]
struct Asleep {}

impl State<Hike> for Asleep {
    const NAME: &'static str = "asleep";
    const RETRY: Retry = Retry::times(2).backoff(Duration::from_millis(5), 1.0);
    type Next = (Awake,);

    async fn run(self, _: &Hike, cx: &mut Context<'_, Hike>) -> Step<Self> {
        if cx.attempt() == 1 {
            return Err(Fault::retryable("too.early", "nobody gets up at the first ring"));
        }
        go_at(cx.now() + Duration::from_millis(20), Awake { attempts: cx.attempt() })
    }
}

#[derive(Serialize, Deserialize)]
struct Awake {
    attempts: u32,
}

impl State<Hike> for Awake {
    const NAME: &'static str = "awake";
    const WAIT: Wait = Wait::for_signals(&[Weather::NAME]);
    type Next = (Out,);

    async fn run(self, _: &Hike, cx: &mut Context<'_, Hike>) -> Step<Self> {
        assert!(cx.take::<Weather>()?.is_some_and(|weather| weather.sunny));
        cx.spawn::<Dog>("dog", &Fetch { sticks: 0 })?;
        go(Out { attempts: self.attempts })
    }
}

#[derive(Serialize, Deserialize)]
struct Out {
    attempts: u32,
}

impl State<Hike> for Out {
    const NAME: &'static str = "out";
    const WAIT: Wait = Wait::for_children();
    type Next = (Home,);

    async fn run(self, _: &Hike, cx: &mut Context<'_, Hike>) -> Step<Self> {
        let end = cx.children()[0].end.as_ref().expect("it was waited for");
        go(Home { attempts: self.attempts, sticks: end.data.decode::<Tired>()?.sticks })
    }
}

#[derive(Serialize, Deserialize)]
struct Home {
    attempts: u32,
    sticks: u32,
}

impl State<Hike> for Home {
    const NAME: &'static str = "home";
    type Next = ();
}

struct Dog;

impl Machine for Dog {
    const NAME: &'static str = "dog";
    type Host = ();
    type Initial = Fetch;
    type States = (Fetch, Tired);
}
check!(Dog);

#[derive(Serialize, Deserialize)]
struct Fetch {
    sticks: u32,
}

impl State<Dog> for Fetch {
    const NAME: &'static str = "fetch";
    type Next = (Fetch, Tired);

    async fn run(self, _: &Dog, cx: &mut Context<'_, Dog>) -> Step<Self> {
        let sticks = cx.effect("stick", async |_| Ok(self.sticks + 1)).await?;
        if sticks < 3 { go(Fetch { sticks }) } else { go(Tired { sticks }) }
    }
}

#[derive(Serialize, Deserialize)]
struct Tired {
    sticks: u32,
}

impl State<Dog> for Tired {
    const NAME: &'static str = "tired";
    type Next = ();
}
