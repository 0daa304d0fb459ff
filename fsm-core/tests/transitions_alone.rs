//! A state alone: called by its type, without serde and without a runtime.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::{
    sync::Mutex,
    thread::{self, ThreadId},
    time::Duration,
};

use fsm_core::{
    Cancellation, Class, Context, Ending, Fault, Machine, Port, Progress, RunId, State, Step,
    Timestamp, check, go, go_at,
};
use futures::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

struct Door;

impl Machine for Door {
    const NAME: &'static str = "door";
    type Host = ();
    type Initial = Closed;
    type States = (Closed, Open, Stuck);
}
check!(Door);

#[derive(Debug, Serialize, Deserialize)]
struct Closed {
    pushes: u32,
}

impl State<Door> for Closed {
    const NAME: &'static str = "closed";
    type Next = (Open, Stuck);

    async fn run(self, _: &Door, cx: &mut Context<'_, Door>) -> Step<Self> {
        cx.check_cancelled()?;
        cx.progress(1, None);
        let key = cx.once("push", |effect| async move { Ok(effect.key) }).await?;
        match self.pushes {
            0 => go_at(cx.now() + Duration::from_secs(1), Stuck { key }),
            _ => go(Open { seen_by: Thread(thread::current().id()) }),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Open {
    seen_by: Thread,
}

impl State<Door> for Open {
    const NAME: &'static str = "open";
    type Next = (Stuck,);
}

#[derive(Debug, Serialize, Deserialize)]
struct Stuck {
    key: String,
}

impl State<Door> for Stuck {
    const NAME: &'static str = "stuck";
    const ENDING: Ending = Ending::Failed;
    type Next = ();
}

/// Has a serde form on paper.
#[derive(Debug)]
struct Thread(ThreadId);

impl Serialize for Thread {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("a state that is tested alone is not written")
    }
}

impl<'de> Deserialize<'de> for Thread {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("a state that is tested alone is not read")
    }
}

fn push(door: Closed, port: &dyn Port) -> Step<Closed> {
    let run = RunId::new("alone").unwrap();
    door.run(&Door, &mut Context::alone(run, &(), port)).now_or_never().unwrap()
}

#[test]
fn a_state_is_tested_by_its_type_without_serde_and_runtime() {
    let step = push(Closed { pushes: 1 }, &()).unwrap();
    assert_eq!((step.state(), step.wake_at()), ("open", None));
    let open = step.take::<Open>().unwrap();
    assert_eq!(open.seen_by.0, thread::current().id());

    let step = push(Closed { pushes: 0 }, &()).unwrap();
    assert_eq!(step.wake_at(), Some(Timestamp::from_unix_ms(1_000)));
    assert_eq!(step.take::<Stuck>().unwrap().key, "alone/1/push");
}

#[test]
fn taking_the_wrong_type_gives_the_move_back() {
    let step = push(Closed { pushes: 0 }, &()).unwrap();
    let step = step.take::<Open>().unwrap_err();
    let step = step.take::<Closed>().unwrap_err();
    assert_eq!(step.state(), "stuck");
    assert_eq!(step.wake_at(), Some(Timestamp::from_unix_ms(1_000)));
    assert_eq!(step.take::<Stuck>().unwrap().key, "alone/1/push");
}

/// Asks to stop, and keeps what it hears.
#[derive(Default)]
struct Listener(Mutex<Vec<String>>);

impl Port for Listener {
    fn intent<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Fault>> {
        self.0.lock().unwrap().push(name.to_owned());
        Box::pin(async { Ok(()) })
    }

    fn progress(&self, progress: Progress) {
        self.0.lock().unwrap().push(format!("{}", progress.done));
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(7)
    }

    fn cancellation(&self) -> Cancellation {
        let cancellation = Cancellation::new();
        if self.0.lock().unwrap().len() >= 2 {
            cancellation.request();
        }
        cancellation
    }
}

#[test]
fn a_state_alone_talks_to_the_port_that_the_test_gives_it() {
    let listener = Listener::default();
    let step = push(Closed { pushes: 0 }, &listener).unwrap();
    assert_eq!(step.wake_at(), Some(Timestamp::from_unix_ms(1_007)));
    step.take::<Stuck>().unwrap();
    assert_eq!(*listener.0.lock().unwrap(), ["1", "push"]);

    let fault = push(Closed { pushes: 0 }, &listener).unwrap_err();
    assert_eq!(fault.class(), Class::Cancelled);
}
