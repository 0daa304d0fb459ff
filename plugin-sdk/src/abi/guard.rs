//! Panics stop here.
//!
//! **Promise.** No panic leaves a function that the other side calls. A panic that unwinds out of
//! an `extern "C"` function aborts the process, so every such function runs its work in
//! [`contain`].

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `work` and turns a panic into its text.
///
/// Unwind safety is asserted: after a panic every caller here either drops the object or answers
/// "panicked" for good, so nobody looks at a half-changed value.
pub(crate) fn contain<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(panic_text)
}

/// Runs `work`, which nobody waits for, and reports a panic in the log.
pub(crate) fn contain_quietly(what: &str, work: impl FnOnce()) {
    if let Err(panic) = contain(work) {
        // The log itself is foreign code (a subscriber), so it gets the same treatment.
        let _ = contain(|| tracing::error!(what, panic, "a panic was contained"));
    }
}

/// The text of a panic. A payload that is not text is forgotten, never dropped: its `Drop` may
/// panic again, this time with nothing left to catch it.
fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let payload = match payload.downcast::<String>() {
        Ok(text) => return *text,
        Err(other) => other,
    };
    match payload.downcast::<&'static str>() {
        Ok(text) => (*text).to_owned(),
        Err(other) => {
            mem::forget(other);
            "a panic whose payload is not text".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct DropsBadly;
    impl Drop for DropsBadly {
        fn drop(&mut self) {
            panic!("the payload's drop");
        }
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        let contained = contain(|| std::panic::panic_any(DropsBadly));
        assert_eq!(contained, Err("a panic whose payload is not text".to_owned()));
    }

    #[test]
    fn the_text_of_a_formatted_panic_survives() {
        let row = 7;
        assert_eq!(contain(|| panic!("bad row {row}")), Err("bad row 7".to_owned()));
    }
}
