//! A plugin's log goes to its host.
//!
//! **Promise.** A dynamic library has its own copy of `tracing`, with no subscriber; the first
//! `init` gives it one that asks the host *before* anything is formatted, and passes on text,
//! fields, spans and the request that they belong to. The library's panic hook goes the same way.
//! A plugin that is linked into the host's program shares the host's log, and nothing is installed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use abi_stable::std_types::RStr;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_core::span::Current;

use super::root::{AbiLog, HostTable_Ref};

/// What a record of the log is.
pub mod record {
    /// Something happened.
    pub const EVENT: u8 = 0;
    /// A span was made.
    pub const OPEN: u8 = 1;
    /// A span is gone.
    pub const CLOSE: u8 = 2;
}

thread_local! {
    /// The request whose job runs on this thread.
    static CALL: Cell<u64> = const { Cell::new(0) };
    /// The spans that this thread has entered, innermost last.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` as part of the request `id`.
pub(super) fn within<R>(id: u64, work: impl FnOnce() -> R) -> R {
    struct Back(u64);
    impl Drop for Back {
        fn drop(&mut self) {
            CALL.set(self.0);
        }
    }
    let _back = Back(CALL.replace(id));
    work()
}

/// Connects this library's log and panic hook to `host`, the first time it is called.
pub(super) fn install(host: HostTable_Ref) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let bridge = tracing::Dispatch::new(Bridge::new(host));
        // An author who has installed a subscriber of their own keeps it.
        let _ = tracing::dispatcher::set_global_default(bridge);
        std::panic::set_hook(Box::new(move |info| {
            let (file, line) = info.location().map_or(("", 0), |at| (at.file(), at.line()));
            let text = info
                .payload_as_str()
                .map_or_else(|| "a panic whose payload is not text".to_owned(), ToOwned::to_owned);
            send(
                host,
                &Outgoing {
                    level: 1,
                    target: "plugin::panic",
                    message: &text,
                    file,
                    line,
                    ..Outgoing::default()
                },
            );
        }));
    });
}

#[derive(Default)]
struct Outgoing<'a> {
    kind: u8,
    level: u8,
    line: u32,
    span: u64,
    parent: u64,
    name: &'a str,
    target: &'a str,
    file: &'a str,
    message: &'a str,
    fields: &'a str,
}

fn send(host: HostTable_Ref, record: &Outgoing<'_>) {
    (host.log())(
        host.data(),
        AbiLog {
            kind: record.kind,
            level: record.level,
            line: record.line,
            span: record.span,
            parent: record.parent,
            // A thread that is being torn down still logs.
            call: CALL.try_with(Cell::get).unwrap_or(0),
            name: RStr::from_str(record.name),
            target: RStr::from_str(record.target),
            file: RStr::from_str(record.file),
            message: RStr::from_str(record.message),
            fields: RStr::from_str(record.fields),
        },
    );
}

fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

struct Bridge {
    host: HostTable_Ref,
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Open>>,
}

struct Open {
    metadata: &'static Metadata<'static>,
    handles: usize,
}

impl Bridge {
    fn new(host: HostTable_Ref) -> Self {
        Self { host, next: AtomicU64::new(1), open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Open>> {
        // No code that can panic runs under this lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parent(explicit: Option<&Id>, contextual: bool) -> u64 {
        match explicit {
            Some(id) => id.into_u64(),
            None if contextual => innermost(),
            None => 0,
        }
    }
}

fn innermost() -> u64 {
    ENTERED.try_with(|entered| entered.borrow().last().copied()).ok().flatten().unwrap_or(0)
}

impl Subscriber for Bridge {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // The host may change its mind at any time, so it is asked each time.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = RStr::from_str(metadata.target());
        (self.host.log_enabled())(self.host.data(), number(*metadata.level()), target)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let metadata = span.metadata();
        self.open().insert(id, Open { metadata, handles: 1 });
        let mut fields = Fields::default();
        span.record(&mut fields);
        let fields = fields.finish();
        send(
            self.host,
            &Outgoing {
                kind: record::OPEN,
                level: number(*metadata.level()),
                line: metadata.line().unwrap_or(0),
                span: id,
                parent: Self::parent(span.parent(), span.is_contextual()),
                name: metadata.name(),
                target: metadata.target(),
                file: metadata.file().unwrap_or(""),
                message: &fields.message,
                fields: &fields.json,
            },
        );
        Id::from_u64(id)
    }

    // What is recorded on a span later, and "follows from", have no use in the host's log.
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let fields = fields.finish();
        let metadata = event.metadata();
        send(
            self.host,
            &Outgoing {
                kind: record::EVENT,
                level: number(*metadata.level()),
                line: metadata.line().unwrap_or(0),
                parent: Self::parent(event.parent(), event.is_contextual()),
                target: metadata.target(),
                file: metadata.file().unwrap_or(""),
                message: &fields.message,
                fields: &fields.json,
                ..Outgoing::default()
            },
        );
    }

    fn enter(&self, span: &Id) {
        let _ = ENTERED.try_with(|entered| entered.borrow_mut().push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        let _ = ENTERED.try_with(|entered| {
            let mut entered = entered.borrow_mut();
            if let Some(at) = entered.iter().rposition(|id| *id == span.into_u64()) {
                entered.remove(at);
            }
        });
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(open) = self.open().get_mut(&id.into_u64()) {
            open.handles += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let id = id.into_u64();
        {
            let mut all = self.open();
            let Some(open) = all.get_mut(&id) else { return false };
            open.handles -= 1;
            if open.handles > 0 {
                return false;
            }
            all.remove(&id);
        }
        send(self.host, &Outgoing { kind: record::CLOSE, span: id, ..Outgoing::default() });
        true
    }

    fn current_span(&self) -> Current {
        let id = innermost();
        match self.open().get(&id) {
            Some(open) => Current::new(Id::from_u64(id), open.metadata),
            None => Current::none(),
        }
    }
}

/// Collects the text and the other fields of a record.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

struct Collected {
    message: String,
    json: String,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.insert(field.name().to_owned(), value.into());
    }

    fn finish(self) -> Collected {
        let json = if self.others.is_empty() {
            String::new()
        } else {
            Value::Object(self.others).to_string()
        };
        Collected { message: self.message, json }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a string fails only if the value's own `Debug` does.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.put(field, format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.put(field, value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}
