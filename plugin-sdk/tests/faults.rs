//! A fault crosses whole, and what a peer of another version leaves out or adds does no harm.

use std::time::Duration;

use plugin_sdk::message::{decode_fault, encode_fault};
use plugin_sdk::{Class, Fault};
use proptest::prelude::*;
use serde_json::{Value, json};

const CLASSES: [Class; 8] = [
    Class::Retryable,
    Class::User,
    Class::Permanent,
    Class::Chain,
    Class::Fenced,
    Class::Bug,
    Class::Cancelled,
    Class::Interrupted,
];

/// An error with causes, as a plugin's libraries make them.
#[derive(Debug)]
struct Cause(String, Option<Box<Cause>>);

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.1.as_deref().map(|cause| cause as _)
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    let words = proptest::collection::vec(".{0,40}", 0..4);
    let parts = (
        proptest::sample::select(&CLASSES[..]),
        "[a-z._]{1,20}",
        ".{0,200}",
        proptest::option::of(".{0,80}"),
        proptest::option::of(any::<u64>()),
        words,
    );
    parts.prop_map(|(class, code, message, advice, wait_ms, causes)| {
        let mut fault = Fault::new(class, code, message);
        if let Some(advice) = advice {
            fault = fault.advise(advice);
        }
        if let Some(wait_ms) = wait_ms {
            fault = fault.retry_after(Duration::from_millis(wait_ms));
        }
        let chain =
            causes.into_iter().rfold(None, |cause, text| Some(Box::new(Cause(text, cause))));
        match chain {
            Some(cause) => fault.caused_by(&*cause),
            None => fault,
        }
    })
}

proptest! {
    #[test]
    fn class_code_message_chain_and_advice_survive(fault in fault()) {
        prop_assert_eq!(decode_fault(&encode_fault(&fault)), fault);
    }

    #[test]
    fn a_field_that_is_added_or_left_out_changes_no_other(fault in fault(), left_out in 0..3_usize) {
        let mut document: Value = serde_json::from_slice(&encode_fault(&fault)).expect("JSON");
        let left_out = ["advice", "retry_after_ms", "chain"][left_out];
        let body = document["body"].as_object_mut().expect("an object");
        body.remove(left_out);
        body.insert("colour".to_owned(), json!({ "of": ["a", "later", "version"] }));
        document["trace"] = json!(7);
        let read = decode_fault(document.to_string().as_bytes());
        prop_assert_eq!(read.class(), fault.class());
        prop_assert_eq!(read.code(), fault.code());
        prop_assert_eq!(read.message(), fault.message());
        prop_assert_eq!(read.advice(), fault.advice().filter(|_| left_out != "advice"));
        prop_assert_eq!(read.wait(), fault.wait().filter(|_| left_out != "retry_after_ms"));
        let chain = if left_out == "chain" { &[] } else { fault.chain() };
        prop_assert_eq!(read.chain(), chain);
    }

    #[test]
    fn whatever_a_peer_sends_reads_as_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let fault = decode_fault(&bytes);
        prop_assert_eq!((fault.class(), fault.code()), (Class::Bug, "message.decode"));
    }
}

#[test]
fn a_class_of_a_later_version_keeps_its_code_and_is_not_tried_again() {
    let document = json!({
        "schema": 1,
        "body": { "class": "lunar", "code": "moon.full", "message": "wait a month" },
    });
    let fault = decode_fault(document.to_string().as_bytes());
    assert_eq!((fault.class(), fault.code()), (Class::Permanent, "moon.full"));
    assert!(!fault.is_retryable());
}

#[test]
fn each_class_is_read_as_it_is_written() {
    for class in CLASSES {
        let written = serde_json::to_value(class).expect("a word");
        assert_eq!(written, class.as_str());
        assert_eq!(serde_json::from_value::<Class>(written).expect("a class"), class);
    }
}
