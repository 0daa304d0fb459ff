//! A plugin that panics in its manifest, with a payload that panics again when it is dropped.
#![forbid(unsafe_code)]

use bytes::Bytes;
use plugin_sdk::abi::{Entry, Instance};

struct Rude;

impl Entry for Rude {
    fn manifest() -> Vec<u8> {
        std::panic::panic_any(DropsBadly)
    }

    fn init(_: Bytes) -> Result<Box<dyn Instance>, Vec<u8>> {
        std::panic::panic_any(DropsBadly)
    }
}

plugin_sdk::export_entry!(Rude);

struct DropsBadly;
impl Drop for DropsBadly {
    fn drop(&mut self) {
        panic!("in drop");
    }
}
