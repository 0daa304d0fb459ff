//! Keeps secrets that a plugin was given out of what it says.
//!
//! **Promise.** Once a plugin was given a secret, the host shows that value neither in the plugin's
//! log records nor in its faults and panics, where it is replaced by `***`. An answer or a call of
//! the plugin that holds it elsewhere (a state's data, a note of a point, a name) is refused: such
//! a thing would be written down, and cannot be replaced without being falsified.
//!
//! **Limits.** It is for mistakes. The value is found as it is, escaped as JSON or Rust's `Debug`
//! escape it, or percent-encoded, in a document or in one inside of it; and so is each longer line
//! of a secret of several lines. A value that was encoded otherwise (base64) or cut up is not found. Values shorter than
//! [`SHORTEST`] bytes are not looked for: they would be found everywhere. The bytes of streams are
//! not searched: a backup of a database may well contain its own password.
//!
//! **Cost.** None before the first secret. After that each record, call and reply is searched for
//! at most [`PATTERNS_MAX`] patterns; the oldest are forgotten first.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use fsm_core::Fault;
use memchr::memmem;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{
    abi::{BoxFuture, HostCalls, Reply, TaskFault},
    message::{self, call},
};

/// Values of fewer bytes are not looked for.
const SHORTEST: usize = 4;
/// Lines of fewer bytes are not looked for by themselves.
const SHORTEST_LINE: usize = 16;
/// No more patterns than this are looked for.
const PATTERNS_MAX: usize = 256;
const INSTEAD: &str = "***";

/// The secrets that one library was given, and how they are looked for.
#[derive(Default)]
pub(crate) struct Redactor(RwLock<VecDeque<Zeroizing<String>>>);

impl Redactor {
    /// Looks for `secret` from now on.
    pub(crate) fn learn(&self, secret: &[u8]) {
        let text = Zeroizing::new(String::from_utf8_lossy(secret).into_owned());
        let lines = text.lines().filter(|line| line.len() >= SHORTEST_LINE && **line != **text);
        let whole = std::iter::once(text.trim_end_matches(['\r', '\n']));
        let wanted: Vec<_> = whole.chain(lines).flat_map(forms).collect();
        let mut patterns = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for pattern in wanted {
            if pattern.len() >= SHORTEST && !patterns.contains(&pattern) {
                patterns.push_back(pattern);
            }
        }
        let excess = patterns.len().saturating_sub(PATTERNS_MAX);
        patterns.drain(..excess);
    }

    fn patterns(&self) -> RwLockReadGuard<'_, VecDeque<Zeroizing<String>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a secret is in there.
    pub(crate) fn finds(&self, bytes: &[u8]) -> bool {
        self.patterns().iter().any(|pattern| memmem::find(bytes, pattern.as_bytes()).is_some())
    }

    /// The text without secrets.
    pub(crate) fn clean<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut clean = Cow::Borrowed(text);
        for pattern in self.patterns().iter() {
            if memmem::find(clean.as_bytes(), pattern.as_bytes()).is_some() {
                clean = Cow::Owned(clean.replace(pattern.as_str(), INSTEAD));
            }
        }
        clean
    }

    /// At most the first `bytes_max` bytes of the text, without secrets. No more than that is
    /// searched, and a secret that lies across the end is found all the same.
    pub(crate) fn clean_start<'t>(&self, text: &'t str, bytes_max: usize) -> Cow<'t, str> {
        let longest = self.patterns().iter().map(|pattern| pattern.len()).max().unwrap_or(0);
        let searched = &text[..text.floor_char_boundary(bytes_max.saturating_add(longest))];
        match self.clean(searched) {
            Cow::Borrowed(text) => Cow::Borrowed(&text[..text.floor_char_boundary(bytes_max)]),
            Cow::Owned(mut text) => {
                text.truncate(text.floor_char_boundary(bytes_max));
                Cow::Owned(text)
            }
        }
    }

    /// What a plugin answered, without secrets.
    pub(crate) fn answer(&self, answer: Result<Reply, TaskFault>) -> Result<Reply, TaskFault> {
        match answer {
            Ok(Reply { result: Ok(body), .. }) if self.finds(&body) => {
                // The fault of a step is part of its outcome.
                let clean = self.document(&body, |document| {
                    for verdict in ["fault", "unreadable"] {
                        if let Some(fault) =
                            document.pointer_mut(&format!("/body/verdict/{verdict}"))
                        {
                            self.texts(fault);
                        }
                    }
                });
                Ok(clean.map_or_else(refusal, Reply::ok))
            }
            Ok(Reply { result: Err(error), .. }) if self.finds(&error) => {
                Ok(Reply::error(self.fault(error)))
            }
            Err(TaskFault::Panicked(text)) => {
                Err(TaskFault::Panicked(self.clean(&text).into_owned()))
            }
            answer => answer,
        }
    }

    /// A fault's document, without secrets.
    pub(crate) fn fault(&self, document: Bytes) -> Bytes {
        if !self.finds(&document) {
            return document;
        }
        let clean = self.document(&document, |document| {
            if let Some(fault) = document.get_mut("body") {
                self.texts(fault);
            }
        });
        clean.unwrap_or_else(|| message::encode_fault(&leak("an error")))
    }

    /// The document after `change`, if there is no secret in it any more.
    fn document(&self, document: &[u8], change: impl FnOnce(&mut Value)) -> Option<Bytes> {
        let mut value: Value = serde_json::from_slice(document).ok()?;
        change(&mut value);
        let document = serde_json::to_vec(&value).ok()?;
        (!self.finds(&document)).then(|| document.into())
    }

    /// Cleans the texts of a fault.
    fn texts(&self, fault: &mut Value) {
        match fault {
            Value::String(text) => *text = self.clean(text).into_owned(),
            Value::Array(texts) => texts.iter_mut().for_each(|text| self.texts(text)),
            Value::Object(fields) => fields.values_mut().for_each(|text| self.texts(text)),
            _ => {}
        }
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} patterns)", self.patterns().len())
    }
}

/// How a text may look in a document, in a debugging print, or in an address; and that inside of a
/// document, as a state's data are a document inside of a document. Mostly they are all the same.
fn forms(text: &str) -> Vec<Zeroizing<String>> {
    let mut percent = Zeroizing::new(String::with_capacity(text.len() * 3));
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                percent.push(char::from(byte));
            }
            // Writing to a string does not fail.
            _ => drop(write!(percent, "%{byte:02X}")),
        }
    }
    let debug = Zeroizing::new(text.escape_debug().to_string());
    let mut forms = vec![Zeroizing::new(text.to_owned()), debug, in_json(text), percent];
    let inner: Vec<_> = forms.iter().map(|form| in_json(form)).collect();
    forms.extend(inner);
    forms
}

/// A text as it stands between the quotes of a JSON string.
fn in_json(text: &str) -> Zeroizing<String> {
    // A string always has a form in JSON.
    let json = Zeroizing::new(serde_json::to_string(text).unwrap_or_default());
    let inner = json.get(1..json.len().saturating_sub(1));
    Zeroizing::new(inner.unwrap_or_default().to_owned())
}

fn leak(what: &str) -> Fault {
    let message = format!("{what} of the plugin holds one of its secrets, and was not kept");
    Fault::bug("secret.leaked", message).advise("report it to the plugin's author")
}

fn refusal() -> Reply {
    Reply::error(message::encode_fault(&leak("an answer")))
}

/// A plugin's host that learns the secrets which it gives, and takes none of them back.
pub(crate) struct Discreet {
    calls: Arc<dyn HostCalls>,
    redactor: Arc<Redactor>,
}

impl Discreet {
    pub(crate) fn new(calls: Arc<dyn HostCalls>, redactor: Arc<Redactor>) -> Self {
        Self { calls, redactor }
    }
}

impl HostCalls for Discreet {
    fn call(&self, op: &str, body: Bytes) -> BoxFuture<Reply> {
        if self.redactor.finds(&body) {
            tracing::warn!(op, "a plugin's call holds one of its secrets, and was refused");
            return Box::pin(std::future::ready(Reply::error(message::encode_fault(&leak(
                "a call",
            )))));
        }
        let answer = self.calls.call(op, body);
        if op != call::SECRET {
            return answer;
        }
        let redactor = Arc::clone(&self.redactor);
        Box::pin(async move {
            let answer = answer.await;
            if let Ok(secret) = &answer.result {
                redactor.learn(secret);
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hunter2 \"CANARY\"@";

    fn redactor() -> Redactor {
        let redactor = Redactor::default();
        redactor.learn(SECRET.as_bytes());
        redactor
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(redactor().clean(text), expected);
    }

    #[test]
    fn a_secret_is_found_in_each_of_its_forms() {
        check("nothing", "nothing");
        check(&format!("pw={SECRET};"), "pw=***;");
        check(&format!("{SECRET}{SECRET}"), "******");
        check(&serde_json::json!({ "pw": SECRET }).to_string(), r#"{"pw":"***"}"#);
        check(&format!("{SECRET:?}"), "\"***\"");
        let inner = serde_json::json!({ "pw": SECRET }).to_string();
        check(&serde_json::json!({ "data": inner }).to_string(), r#"{"data":"{\"pw\":\"***\"}"}"#);
        check("db://sa:hunter2%20%22CANARY%22%40@host", "db://sa:***@host");
        assert!(redactor().finds(SECRET.as_bytes()) && !redactor().finds(b"hunter2"));
    }

    #[test]
    fn lines_of_a_key_are_found_by_themselves_and_short_values_not_at_all() {
        let redactor = Redactor::default();
        redactor.learn(b"-----BEGIN KEY-----\nMHcCAQEEIIrYSSNQFaA2Hwf1\nzz\n-----END KEY-----\n");
        assert_eq!(redactor.clean("line MHcCAQEEIIrYSSNQFaA2Hwf1."), "line ***.");
        assert_eq!(redactor.clean("zz"), "zz");
        redactor.learn(b"abc");
        assert_eq!(redactor.clean("abc"), "abc");
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let redactor = Redactor::default();
        for n in 0..2 * PATTERNS_MAX {
            redactor.learn(format!("secret-{n:04}").as_bytes());
        }
        assert_eq!(redactor.patterns().len(), PATTERNS_MAX);
        assert!(!redactor.finds(b"secret-0000") && redactor.finds(b"secret-0511"));
    }

    #[test]
    fn a_secret_across_the_end_of_what_is_shown_does_not_show_its_beginning() {
        let text = format!("{}{SECRET} and more", "x".repeat(10));
        assert_eq!(redactor().clean_start(&text, 14), format!("{}*** ", "x".repeat(10)));
        assert_eq!(redactor().clean_start("short", 14), "short");
    }

    #[test]
    fn texts_of_faults_are_cleaned_and_what_would_be_kept_is_refused() {
        let redactor = redactor();
        let fault = Fault::user("login", format!("no login with {SECRET}")).advise(SECRET);
        let reply = Reply::error(message::encode_fault(&fault));
        let Ok(Reply { result: Err(error), .. }) = redactor.answer(Ok(reply)) else {
            panic!("an error")
        };
        assert_eq!(
            message::decode_fault(&error),
            Fault::user("login", "no login with ***").advise("***")
        );

        let outcome = fsm_core::Outcome::from(fault);
        let reply = Reply::ok(message::encode(&outcome).expect("it has a form"));
        let Ok(Reply { result: Ok(body), .. }) = redactor.answer(Ok(reply)) else {
            panic!("an outcome")
        };
        let outcome: fsm_core::Outcome = message::decode(&body).expect("an outcome");
        let clean = Fault::user("login", "no login with ***").advise("***");
        assert_eq!(outcome, fsm_core::Outcome::from(clean));

        let reply = Reply::ok(message::encode(&vec![SECRET]).expect("it has a form"));
        let Ok(Reply { result: Err(error), .. }) = redactor.answer(Ok(reply)) else {
            panic!("an error")
        };
        assert_eq!(message::decode_fault(&error).code(), "secret.leaked");
        let panicked = redactor.answer(Err(TaskFault::Panicked(SECRET.to_owned())));
        assert_eq!(panicked.expect_err("a panic"), TaskFault::Panicked("***".to_owned()));
    }
}
