//! The plugin of the tests of ingress, as a library.
#![allow(missing_docs, unreachable_pub, reason = "a test's own plugin")]

#[path = "called.rs"]
mod called;

plugin_sdk::export!(called::Called);
