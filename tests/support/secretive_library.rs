//! The plugin of the test of secrets, as a library.
#![allow(missing_docs, unreachable_pub, reason = "a test's own plugin")]

#[path = "secretive.rs"]
mod secretive;

plugin_sdk::export!(secretive::Secretive);
