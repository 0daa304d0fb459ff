//! Texts that are longer than a reference has room for.

#[doc = include_str!("authoring.md")]
pub mod authoring {}
