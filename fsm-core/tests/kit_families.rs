//! A trial of a run that waits for signals and for children.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use fsm_core::{
    Context, Fault, Hosted, Machine, Signal, State, Step, Wait, check, go, testing::Trial,
};
use serde::{Deserialize, Serialize};

/// The outside world: what was sent, by key.
#[derive(Clone, Default)]
struct Post(Arc<Mutex<BTreeSet<String>>>);

#[derive(Serialize, Deserialize)]
struct Approval {
    copies: u32,
}

impl Signal for Approval {
    const NAME: &'static str = "approval";
}

/// Waits for an approval, and has as many letters sent as it says.
struct Mailing;

impl Machine for Mailing {
    const NAME: &'static str = "mailing";
    type Host = Post;
    type Initial = Ask;
    type States = (Ask, Send, Done);
}

/// Sends one letter, a moment later.
struct Letter;

impl Machine for Letter {
    const NAME: &'static str = "letter";
    type Host = Post;
    type Initial = Write;
    type States = (Write, Sent);
}
check!(Mailing, Letter);

#[derive(Serialize, Deserialize)]
struct Ask;
#[derive(Serialize, Deserialize)]
struct Send;
#[derive(Serialize, Deserialize)]
struct Done {
    sent: usize,
}
#[derive(Serialize, Deserialize)]
struct Write;
#[derive(Serialize, Deserialize)]
struct Sent;

impl State<Mailing> for Ask {
    const NAME: &'static str = "ask";
    const WAIT: Wait = Wait::for_signals(&["approval"]).at_most(Duration::from_secs(3600));
    type Next = (Send, Done);

    async fn run(self, _: &Mailing, cx: &mut Context<'_, Mailing>) -> Step<Self> {
        let Some(approval) = cx.take::<Approval>()? else { return go(Done { sent: 0 }) };
        for copy in 0..approval.copies {
            cx.spawn::<Letter>(&format!("letter-{copy}"), &Write)?;
        }
        go(Send)
    }
}

impl State<Mailing> for Send {
    const NAME: &'static str = "send";
    const WAIT: Wait = Wait::for_children();
    type Next = (Done,);

    async fn run(self, _: &Mailing, cx: &mut Context<'_, Mailing>) -> Step<Self> {
        let sent = cx.children().iter().filter(|child| child.end.is_some()).count();
        go(Done { sent })
    }
}

impl State<Mailing> for Done {
    const NAME: &'static str = "done";
    type Next = ();
}

impl State<Letter> for Write {
    const NAME: &'static str = "write";
    type Next = (Sent,);

    async fn run(self, _: &Letter, cx: &mut Context<'_, Letter>) -> Step<Self> {
        let post = cx.host().clone();
        let sent = async |letter: fsm_core::Effect| {
            post.0.lock().unwrap().insert(letter.key);
            Ok::<_, Fault>(())
        };
        cx.effect("post", sent).await?;
        go(Sent)
    }
}

impl State<Letter> for Sent {
    const NAME: &'static str = "sent";
    type Next = ();
}

fn trial() -> Trial<Post> {
    Trial::new("mailing", &Ask)
        .world(Post::default)
        .machine(|post| Hosted::new(Mailing, post.clone()))
        .machine(|post| Hosted::new(Letter, post.clone()))
        .signal("approval-1", &Approval { copies: 2 })
        .observe(|post| post.0.lock().unwrap().clone())
}

#[test]
fn signals_and_children_survive_everything() {
    let report = trial().crash_everywhere().unwrap();
    println!("{report}");
    assert_eq!(report.end().data.as_text(), Some(r#"{"sent":2}"#));
    assert!(report.schedules() > 500, "{report}");
    assert_eq!(report.coverage().len(), 2);
    trial().repeat_every_effect().unwrap();
    trial().fail_every_step().unwrap();
    trial().cancel_every_step().unwrap();
}

#[test]
fn the_order_of_parents_and_children_does_not_matter() {
    for seed in 0..4 {
        trial().seed(seed).at_most(200).crash_everywhere().unwrap();
    }
}

#[test]
fn a_signal_is_told_while_it_is_waited_for_and_time_passes_if_there_is_none() {
    let unasked = Trial::new("mailing", &Ask)
        .world(Post::default)
        .machine(|post| Hosted::new(Mailing, post.clone()))
        .observe(|post| post.0.lock().unwrap().len());
    let report = unasked.everything().unwrap();
    assert_eq!(report.end().data.as_text(), Some(r#"{"sent":0}"#));
    assert_eq!(report.coverage()[0].missing(), [("ask", "send"), ("send", "done")]);
}
