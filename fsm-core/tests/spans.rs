//! What an event in the middle of an effect says: of which run, state and attempt it is.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
};

use fsm_core::{Context, Machine, State, Step, check, go};
use serde::{Deserialize, Serialize};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{Layer, layer, layer::SubscriberExt, registry::LookupSpan};

use self::support::{
    medium::Medium,
    process::Process,
    world::{Act, World, transient},
};

// The only test of its program: what tracing remembers of its call sites is the program's.
#[test]
fn an_effect_says_for_whom_it_works() {
    let (world, heard) = (World::script([Act::Fault(transient())]), Heard::default());
    let subscriber = tracing_subscriber::registry().with(heard.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let process = Process::start(&Medium::memory()).with(Speaker, &world);
    process.end_in_time(&process.begin("r", "speaker", &Speech { words: 2 }));
    let heard = heard.0.lock().unwrap();
    let said: Vec<_> = heard
        .iter()
        .filter_map(|fields| {
            let spoken = ["message", "run", "state", "entry", "attempt", "name", "key"];
            spoken.map(|field| fields.get(field)?.parse().ok()).into_iter().collect()
        })
        .map(|fields: Vec<String>| fields.join(" "))
        .collect();
    assert_eq!(
        said,
        [
            "softly r speech 1 1 soft r/1/soft",
            "loudly r speech 1 2 loud r/1/loud",
            "softly r speech 2 1 soft r/2/soft",
            "loudly r speech 2 1 loud r/2/loud",
        ]
    );
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

struct Speaker;

impl Machine for Speaker {
    const NAME: &'static str = "speaker";
    type Host = World;
    type Initial = Speech;
    type States = (Speech, Silence);
}
check!(Speaker);

#[derive(Serialize, Deserialize)]
struct Speech {
    words: u32,
}

impl State<Speaker> for Speech {
    const NAME: &'static str = "speech";
    type Next = (Speech, Silence);

    async fn run(self, _: &Speaker, cx: &mut Context<'_, Speaker>) -> Step<Self> {
        cx.effect("soft", async |_| {
            tracing::info!("softly");
            Ok(())
        })
        .await?;
        cx.host().act(cx).await?;
        cx.once("loud", async |_| {
            tracing::info!("loudly");
            Ok(())
        })
        .await?;
        if self.words > 1 { go(Speech { words: self.words - 1 }) } else { go(Silence) }
    }
}

#[derive(Serialize, Deserialize)]
struct Silence;

impl State<Speaker> for Silence {
    const NAME: &'static str = "silence";
    type Next = ();
}
