//! What the plugin logs, as far as the kit has to know.

use std::{
    fmt::{self, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Listens to the log of this process, for texts that must not be in it.
#[derive(Debug)]
pub(super) struct LogWatch {
    heard: Arc<Heard>,
    is_listening: bool,
}

#[derive(Debug, Default)]
struct Heard {
    secrets: Vec<String>,
    lines: AtomicU64,
    found: Mutex<Vec<String>>,
    panics: Mutex<Vec<String>>,
    printed: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

/// Whoever listens, in the whole process: there can be but one subscriber.
static LISTENERS: Mutex<Vec<Arc<Heard>>> = Mutex::new(Vec::new());
static IS_INSTALLED: Mutex<Option<bool>> = Mutex::new(None);

impl LogWatch {
    pub(super) fn begin(secrets: Vec<String>) -> Self {
        let mut installed = IS_INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        let is_listening = *installed
            .get_or_insert_with(|| tracing::subscriber::set_global_default(Listener).is_ok());
        let heard = Arc::new(Heard { secrets, ..Heard::default() });
        let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.push(Arc::clone(&heard));
        LogWatch { heard, is_listening }
    }

    /// How many records were heard; `None` if somebody else has the log.
    pub(super) fn lines(&self) -> Option<u64> {
        self.is_listening.then(|| self.heard.lines.load(SeqCst))
    }

    /// The records with a secret in them.
    pub(super) fn found(&self) -> Vec<String> {
        self.heard.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What an isolated plugin printed to its standard output.
    pub(super) fn printed(&self) -> Vec<String> {
        self.heard.printed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The records that say that a panic was contained.
    pub(super) fn panics(&self) -> Vec<String> {
        self.heard.panics.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for LogWatch {
    fn drop(&mut self) {
        self.heard.is_over.store(true, SeqCst);
        let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| !listener.is_over.load(SeqCst));
    }
}

impl Heard {
    fn hear(&self, line: &str) {
        self.lines.fetch_add(1, SeqCst);
        if self.secrets.iter().any(|secret| line.contains(secret.as_str())) {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        }
        if line.contains("a panic was contained") {
            self.panics.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        }
        if line.starts_with("plugin ") && line.contains(" stream=\"stdout\"") {
            self.printed.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        }
    }
}

/// The subscriber: it wants everything, and keeps nothing but what is looked for.
struct Listener;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A string never fails to take more text.
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

fn hear(line: &str) {
    let listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for listener in listeners {
        listener.hear(line);
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut line = Line(span.metadata().name().to_owned());
        span.record(&mut line);
        hear(&line.0);
        span::Id::from_u64(NEXT.fetch_add(1, SeqCst))
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        hear(&line.0);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        hear(&line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
