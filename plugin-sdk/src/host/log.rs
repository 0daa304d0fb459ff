//! Plugins' records in the host's log.
//!
//! **Promise.** A record is emitted through `tracing` with the target `plugin`, whatever the
//! plugin's own target, and with the fields `plugin` (the library), `plugin.target`,
//! `plugin.fields`, `plugin.file` and `plugin.line`. Its parent is the plugin's own span if there
//! is one (opened here too, as `plugin`), else the span in which the request was started. What is
//! not wanted is not sent. A record's text is bounded, and holds no secret that the plugin was
//! given.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::std_types::RStr;
use tracing::{Level, Span};

use super::redact::Redactor;
use crate::abi::{
    ABI_MAJOR, ABI_MINOR, AbiCHost, AbiLog, AbiToken, C_MAGIC, HostTable, HostTable_Ref, contain,
    record as kind,
};
#[cfg(target_os = "linux")]
use crate::wire::LogRecord;

/// No more than this of a text is logged.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// No more than this of each text of a span: whoever listens keeps it for as long as the span is
/// open.
const SPAN_TEXT_BYTES_MAX: usize = 4 * 1024;
/// No more spans than this are kept open for one library.
const SPANS_MAX: usize = 4096;

/// The log of one library.
pub(super) struct HostLog {
    plugin: String,
    table: OnceLock<HostTable_Ref>,
    c_table: OnceLock<AbiCHost>,
    /// In a child: its parent, who has the log.
    #[cfg(target_os = "linux")]
    elsewhere: Option<Box<dyn Elsewhere>>,
    /// The plugin's spans that are open, by its ids.
    open: Spans,
    redactor: Arc<Redactor>,
}

type Spans = Mutex<BTreeMap<u64, Span>>;

/// Another place for the log.
#[cfg(target_os = "linux")]
pub(crate) trait Elsewhere: Send + Sync + 'static {
    /// Whether a record of this level is wanted there.
    fn is_wanted(&self, level: u8) -> bool;
    /// Takes a record there.
    fn take(&self, record: LogRecord);
}

/// The spans in which the requests under way were started, by their ids.
static CALLS: Spans = Mutex::new(BTreeMap::new());

impl HostLog {
    /// The log of the library at `path`: one for each library, which lives for ever as that does.
    pub(super) fn of(path: &Path) -> &'static Self {
        static ALL: Mutex<BTreeMap<PathBuf, &HostLog>> = Mutex::new(BTreeMap::new());
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(path.to_owned()).or_insert_with(|| Self::leaked(path))
    }

    fn leaked(path: &Path) -> &'static Self {
        Box::leak(Box::new(Self::new(path, Arc::default())))
    }

    /// The log of the library at `path` and of nobody else. A child's spans have numbers of its
    /// own.
    pub(super) fn new(path: &Path, redactor: Arc<Redactor>) -> Self {
        let plugin = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self {
            plugin,
            table: OnceLock::new(),
            c_table: OnceLock::new(),
            #[cfg(target_os = "linux")]
            elsewhere: None,
            open: Mutex::default(),
            redactor,
        }
    }

    /// A log that is kept by somebody else.
    #[cfg(all(feature = "runner", target_os = "linux"))]
    pub(super) fn elsewhere(path: &Path, elsewhere: impl Elsewhere) -> &'static Self {
        Box::leak(Box::new(Self {
            elsewhere: Some(Box::new(elsewhere)),
            ..Self::new(path, Arc::default())
        }))
    }

    /// The name of the library, as records show it.
    #[cfg(target_os = "linux")]
    pub(super) fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Takes a record that a child has sent.
    #[cfg(target_os = "linux")]
    pub(super) fn relay(&self, record: &LogRecord) {
        self.take(&AbiLog {
            kind: record.kind,
            level: record.level,
            line: record.line,
            span: record.span,
            parent: record.parent,
            call: record.call,
            name: RStr::from_str(&record.name),
            target: RStr::from_str(&record.target),
            file: RStr::from_str(&record.file),
            message: RStr::from_str(&record.message),
            fields: RStr::from_str(&record.fields),
        });
    }

    /// What keeps the library's secrets out of what is shown of it.
    pub(super) fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    /// What is shown of a text: bounded, and without secrets.
    fn shown<'t>(&self, text: RStr<'t>) -> Cow<'t, str> {
        self.start_of(text, TEXT_BYTES_MAX)
    }

    fn start_of<'t>(&self, text: RStr<'t>, bytes_max: usize) -> Cow<'t, str> {
        match readable(text) {
            Cow::Borrowed(text) => self.redactor.clean_start(text, bytes_max),
            Cow::Owned(text) => {
                Cow::Owned(self.redactor.clean_start(&text, bytes_max).into_owned())
            }
        }
    }

    /// The table that a plugin logs through.
    pub(super) fn table(&'static self) -> HostTable_Ref {
        *self.table.get_or_init(|| {
            let data = AbiToken(std::ptr::from_ref(self).cast());
            HostTable { data, log_enabled, log }.leak_into_prefix()
        })
    }

    /// The same for a plugin in C.
    pub(super) fn c_table(&'static self) -> &'static AbiCHost {
        self.c_table.get_or_init(|| AbiCHost {
            magic: C_MAGIC,
            abi_major: ABI_MAJOR,
            abi_minor: ABI_MINOR,
            struct_size: size_of::<AbiCHost>(),
            data: AbiToken(std::ptr::from_ref(self).cast()),
            log_enabled,
            log,
        })
    }

    fn take(&self, log: &AbiLog<'_>) {
        match log.kind {
            kind::EVENT => self.event(log, &self.parent(log)),
            kind::OPEN => {
                let span = self.span(log, &self.parent(log));
                let mut open = lock(&self.open);
                if open.len() < SPANS_MAX {
                    open.insert(log.span, span);
                }
            }
            kind::CLOSE => {
                let span = lock(&self.open).remove(&log.span);
                drop(span); // after the lock: closing a span runs the subscriber
            }
            // Of a later minor version.
            _ => {}
        }
    }

    fn parent(&self, log: &AbiLog<'_>) -> Span {
        let own = lock(&self.open).get(&log.parent).cloned();
        own.or_else(|| lock(&CALLS).get(&log.call).cloned()).unwrap_or_else(Span::none)
    }

    fn event(&self, log: &AbiLog<'_>, parent: &Span) {
        let (target, fields) = (self.shown(log.target), self.shown(log.fields));
        macro_rules! emit {
            ($level:expr) => {
                tracing::event!(
                    target: "plugin",
                    parent: parent.id(),
                    $level,
                    plugin = self.plugin,
                    plugin.target = &*target,
                    plugin.fields = &*fields,
                    plugin.file = &*self.shown(log.file),
                    plugin.line = log.line,
                    "{}",
                    self.shown(log.message)
                )
            };
        }
        match log.level {
            1 => emit!(Level::ERROR),
            2 => emit!(Level::WARN),
            3 => emit!(Level::INFO),
            4 => emit!(Level::DEBUG),
            _ => emit!(Level::TRACE),
        }
    }

    fn span(&self, log: &AbiLog<'_>, parent: &Span) -> Span {
        let [name, target, fields] =
            [log.name, log.target, log.fields].map(|text| self.start_of(text, SPAN_TEXT_BYTES_MAX));
        macro_rules! make {
            ($level:expr) => {
                tracing::span!(
                    target: "plugin",
                    parent: parent.id(),
                    $level,
                    "plugin",
                    plugin = self.plugin,
                    plugin.span = &*name,
                    plugin.target = &*target,
                    plugin.fields = &*fields,
                )
            };
        }
        match log.level {
            1 => make!(Level::ERROR),
            2 => make!(Level::WARN),
            3 => make!(Level::INFO),
            4 => make!(Level::DEBUG),
            _ => make!(Level::TRACE),
        }
    }
}

/// The span of a request, known to the log until this drops.
pub(crate) struct CallSpan(u64);

impl CallSpan {
    /// Makes the current span the parent of what a new request logs.
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        lock(&CALLS).insert(id, Span::current());
        Self(id)
    }

    pub(super) fn id(&self) -> u64 {
        self.0
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        let span = lock(&CALLS).remove(&self.0);
        drop(span); // after the lock: closing a span runs the subscriber
    }
}

fn lock(spans: &Spans) -> MutexGuard<'_, BTreeMap<u64, Span>> {
    // No code that can panic runs under this lock.
    spans.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The log behind a token of [`HostLog::table`].
fn behind(token: AbiToken) -> &'static HostLog {
    // SAFETY: `table` puts a reference that lives for ever there, and a plugin only gives back
    // what it was given.
    unsafe { &*token.0.cast::<HostLog>() }
}

fn is_wanted(level: u8) -> bool {
    match level {
        1 => tracing::event_enabled!(target: "plugin", Level::ERROR),
        2 => tracing::event_enabled!(target: "plugin", Level::WARN),
        3 => tracing::event_enabled!(target: "plugin", Level::INFO),
        4 => tracing::event_enabled!(target: "plugin", Level::DEBUG),
        _ => tracing::event_enabled!(target: "plugin", Level::TRACE),
    }
}

/// The most detailed level that is wanted at present, 0 if none is.
#[cfg(target_os = "linux")]
pub(super) fn level_wanted() -> u8 {
    (1..=5).rev().find(|level| is_wanted(*level)).unwrap_or(0)
}

extern "C" fn log_enabled(token: AbiToken, level: u8, _target: RStr<'_>) -> bool {
    contain(|| {
        #[cfg(target_os = "linux")]
        if let Some(elsewhere) = &behind(token).elsewhere {
            return elsewhere.is_wanted(level);
        }
        let _ = token;
        is_wanted(level)
    })
    .unwrap_or(false)
}

extern "C" fn log(token: AbiToken, log: AbiLog<'_>) {
    // A panic of the host's subscriber has nowhere to be reported but in that subscriber.
    let _ = contain(|| {
        #[cfg(target_os = "linux")]
        if let Some(elsewhere) = &behind(token).elsewhere {
            return elsewhere.take(record(&log));
        }
        behind(token).take(&log);
    });
}

/// A record that can leave the process.
#[cfg(target_os = "linux")]
fn record(log: &AbiLog<'_>) -> LogRecord {
    LogRecord {
        kind: log.kind,
        level: log.level,
        line: log.line,
        span: log.span,
        parent: log.parent,
        call: log.call,
        name: carried(log.name),
        target: carried(log.target),
        file: carried(log.file),
        message: carried(log.message),
        fields: carried(log.fields),
    }
}

/// The part of a text that leaves the process: what can be shown, and enough more for a secret that
/// lies across the end of that to be found.
#[cfg(target_os = "linux")]
fn carried(text: RStr<'_>) -> String {
    let text = readable(text);
    text[..text.floor_char_boundary(TEXT_BYTES_MAX + 4096)].to_owned()
}

/// A text of the plugin's. One in C may send what is no text, which is replaced, and nothing at a
/// null pointer.
fn readable(text: RStr<'_>) -> Cow<'_, str> {
    if text.is_empty() {
        return Cow::Borrowed("");
    }
    let bytes = text.as_rslice().as_slice();
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(&bytes[..bytes.len().min(2 * TEXT_BYTES_MAX)]),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fmt::Debug;

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    /// Keeps how long the texts of all spans are.
    #[derive(Clone, Default)]
    struct Lengths(Arc<Mutex<Vec<usize>>>);

    impl Visit for Lengths {
        fn record_str(&mut self, _: &Field, value: &str) {
            self.0.lock().expect("no panic under the lock").push(value.len());
        }
        fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
    }

    impl Subscriber for Lengths {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            span.record(&mut self.clone());
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn what_is_kept_of_a_span_is_short() {
        let long = || "x".repeat(TEXT_BYTES_MAX);
        let record = LogRecord {
            kind: kind::OPEN,
            level: 1,
            line: 1,
            span: 1,
            parent: 0,
            call: 0,
            name: long(),
            target: long(),
            file: long(),
            message: long(),
            fields: long(),
        };
        let (log, lengths) = (HostLog::new(Path::new("/p.so"), Arc::default()), Lengths::default());
        tracing::subscriber::with_default(lengths.clone(), || log.relay(&record));
        let lengths = lengths.0.lock().expect("no panic under the lock");
        assert_eq!(lengths[..], [4, SPAN_TEXT_BYTES_MAX, SPAN_TEXT_BYTES_MAX, SPAN_TEXT_BYTES_MAX]);
    }
}
