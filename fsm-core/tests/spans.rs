//! What a program's log says of a step: for which run, in which state, for which effect.
//!
//! One test, alone in its program: whether a span is of interest is decided once for all threads.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
};

use fsm_core::{
    Context, Hosted, Machine, MemoryJournal, Runtime, State, Step, check, go,
    testing::ManualEnvironment,
};
use serde::{Deserialize, Serialize};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{Layer, layer, layer::SubscriberExt, registry::LookupSpan};

#[test]
fn what_an_effect_logs_says_for_whom_it_works() {
    let heard = Heard::default();
    let subscriber = tracing_subscriber::registry().with(heard.clone());
    tracing::subscriber::with_default(subscriber, || {
        let environment = ManualEnvironment::default();
        let runtime = Runtime::builder(MemoryJournal::new(), environment.clone()).build();
        runtime.register(Hosted::new(Post, ()), "tests 1").unwrap();
        environment.block_on(async {
            let run = runtime.begin::<Post>("r".parse().unwrap(), &Letter { left: 2 });
            run.await.unwrap().end().await.unwrap();
        });
    });
    let heard = heard.0.lock().unwrap();
    let of = |said: &str| {
        let fields = heard.iter().find(|fields| fields["message"] == said).unwrap();
        ["run", "state", "entry", "attempt", "name", "key"].map(|field| fields[field].as_str())
    };
    assert_eq!(of("stamped r/1/stamp"), ["r", "letter", "1", "1", "stamp", "r/1/stamp"]);
    assert_eq!(of("sent r/2/send"), ["r", "letter", "2", "1", "send", "r/2/send"]);
}

/// Keeps each event with the fields of the spans around it.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<BTreeMap<&'static str, String>>>>);

#[derive(Clone, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Heard {
    fn on_new_span(&self, attributes: &Attributes<'_>, span: &Id, cx: layer::Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        cx.span(span).unwrap().extensions_mut().insert(fields);
    }

    fn on_event(&self, event: &Event<'_>, cx: layer::Context<'_, S>) {
        let mut all = Fields::default();
        for span in cx.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            all.0.extend(span.extensions().get::<Fields>().unwrap().0.clone());
        }
        event.record(&mut all);
        self.0.lock().unwrap().push(all.0);
    }
}

struct Post;

impl Machine for Post {
    const NAME: &'static str = "post";
    type Host = ();
    type Initial = Letter;
    type States = (Letter, Delivered);
}
check!(Post);

#[derive(Serialize, Deserialize)]
struct Letter {
    left: u32,
}

impl State<Post> for Letter {
    const NAME: &'static str = "letter";
    type Next = (Letter, Delivered);

    async fn run(self, _: &Post, cx: &mut Context<'_, Post>) -> Step<Self> {
        cx.effect("stamp", async |effect| {
            tracing::info!("stamped {}", effect.key);
            Ok(())
        })
        .await?;
        cx.once("send", async |effect| {
            tracing::info!("sent {}", effect.key);
            Ok(())
        })
        .await?;
        if self.left > 1 { go(Letter { left: self.left - 1 }) } else { go(Delivered) }
    }
}

#[derive(Serialize, Deserialize)]
struct Delivered;

impl State<Post> for Delivered {
    const NAME: &'static str = "delivered";
    type Next = ();
}
