//! A loaded plugin's log in the host's: filtered before it is formatted, and placed.
#![cfg(all(feature = "host", target_os = "linux"))]

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::{Services, ask, loaded};
use futures::executor::block_on;
use plugin_sdk::host::PluginInstance;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_core::span::Current;

thread_local! {
    static ENTERED: RefCell<Vec<Id>> = const { RefCell::new(Vec::new()) };
}

/// Keeps events of INFO and above, and who is whose parent.
#[derive(Clone, Default)]
struct Capture(Arc<Captured>);

#[derive(Default)]
struct Captured {
    metadata: Mutex<BTreeMap<u64, &'static Metadata<'static>>>,
    next: AtomicU64,
    seen: Mutex<Vec<Seen>>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// The id of a span, 0 for an event.
    id: u64,
    parent: u64,
    target: String,
    fields: BTreeMap<String, String>,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name().to_owned(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Subscriber for Capture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.0.next.fetch_add(1, Ordering::SeqCst) + 1;
        let target = span.metadata().target().to_owned();
        let parent = span.parent().map_or(0, Id::into_u64);
        let mut seen = Seen { id, parent, target, ..Seen::default() };
        span.record(&mut seen);
        self.0.metadata.lock().expect("no panic under the lock").insert(id, span.metadata());
        self.0.seen.lock().expect("no panic under the lock").push(seen);
        Id::from_u64(id)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let target = event.metadata().target().to_owned();
        let parent = event.parent().map_or(0, Id::into_u64);
        let mut seen = Seen { parent, target, ..Seen::default() };
        event.record(&mut seen);
        self.0.seen.lock().expect("no panic under the lock").push(seen);
    }
    fn enter(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.clone()));
    }
    fn exit(&self, _: &Id) {
        ENTERED.with_borrow_mut(Vec::pop);
    }
    fn current_span(&self) -> Current {
        let Some(id) = ENTERED.with_borrow(|entered| entered.last().cloned()) else {
            return Current::none();
        };
        let of = self.0.metadata.lock().expect("no panic under the lock")[&id.into_u64()];
        Current::new(id, of)
    }
}

impl Capture {
    #[track_caller]
    fn find(&self, field: &str, part: &str) -> Seen {
        let seen = self.0.seen.lock().expect("no panic under the lock");
        let has = |seen: &&Seen| seen.fields.get(field).is_some_and(|text| text.contains(part));
        seen.iter().find(has).cloned().unwrap_or_else(|| panic!("no {field} with {part}: {seen:?}"))
    }
}

/// Starts `request` within `span`, which becomes the parent of what the plugin logs.
fn within(span: &tracing::Span, plugin: &PluginInstance, request: &'static str) {
    // Whether the answer is a reply or a panic is another test's business.
    let _ = block_on(span.in_scope(|| plugin.start(request, Services::new())));
}

// One test, because a program has one log.
#[test]
fn a_plugins_records_are_filtered_placed_bounded_and_include_its_panics() {
    let log = Capture::default();
    tracing::subscriber::set_global_default(log.clone()).expect("the first subscriber");
    let plugin = loaded("abi_fixture").init("").expect("an instance");

    let run = tracing::info_span!("run");
    let request = {
        let _entered = run.enter();
        ask(&plugin, "log")
    };
    assert_eq!(request, "+0", "a DEBUG record was formatted");

    let event = log.find("message", "dumping");
    assert_eq!(event.target, "plugin");
    assert_eq!(event.fields["plugin"], "libabi_fixture.so");
    assert_eq!(event.fields["plugin.target"], "abi_fixture");
    assert_eq!(event.fields["plugin.fields"], r#"{"pages":42}"#);
    let span = log.find("plugin.span", "dump");
    assert_eq!((event.parent, span.target.as_str()), (span.id, "plugin"));
    let run_id = run.id().expect("the span is on").into_u64();
    assert_eq!(span.parent, run_id, "the plugin's span lies in the one that started the request");
    assert_eq!(span.fields["plugin.fields"], r#"{"database":"model"}"#);

    let long = log.find("message", "xxxx");
    assert_eq!(long.parent, run_id);
    assert_eq!(long.fields["message"].len(), 64 * 1024);

    within(&run, &plugin, "panic");
    let panic = log.find("message", "bug at row 7");
    assert_eq!(panic.fields["plugin.target"], "plugin::panic");
    assert!(panic.fields["plugin.file"].ends_with("abi_fixture.rs"), "{panic:?}");

    // Another library's records are its own, even those of a copy of the same file.
    let dir = common::Scratch::new("log");
    let bytes = std::fs::read(common::built("abi_fixture")).expect("the fixture is readable");
    let copy = dir.file("libother.so", &bytes);
    let other = plugin_sdk::host::Library::load(&copy, &common::trusted()).expect("it loads");
    assert_eq!(ask(&other.init("").expect("an instance"), "log"), "+0");
    let theirs = log.find("plugin", "libother.so");
    assert_eq!(theirs.fields["plugin.target"], "abi_fixture");

    let linked = plugin_sdk::host::Library::linked::<common::fixture::Fixture>();
    assert_eq!(ask(&linked.init("").expect("an instance"), "log"), "+0");
    let seen = log.0.seen.lock().expect("no panic under the lock");
    let own = seen.iter().filter(|seen| seen.target == "abi_log::common::fixture").count();
    assert_eq!(own, 3, "a linked plugin logs like any module of the program: {seen:?}");
}
