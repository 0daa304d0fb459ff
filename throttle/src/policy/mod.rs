//! What a workload declares about its own work.
//!
//! **Promise.** A policy is data: it is read, checked once by [`Policy::compile`], and then
//! only looked up. No code of a plugin runs while a request is decided.

mod compile;
mod compiled;
mod conditional;
mod declared;
mod error;
mod rule;
mod version;

pub(crate) use compiled::ClassIndex;
pub use compiled::CompiledPolicy;
pub use conditional::Conditional;
pub use declared::{Class, Policy};
pub use error::{PolicyError, PolicyErrorKind};
pub use rule::Rule;
pub use version::EngineVersion;
