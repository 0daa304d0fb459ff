//! A plugin whose jobs need tokio.
#![forbid(unsafe_code)]

#[path = "../tests/fixtures/on_tokio.rs"]
mod on_tokio;

plugin_sdk::export_entry!(on_tokio::OnTokio);
