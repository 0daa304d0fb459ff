//! What a test of a machine needs: a clock that it drives, and an executor that it can see.

mod draw;
mod environment;
mod executor;
mod intercepted;

pub use environment::ManualEnvironment;
pub use intercepted::Intercepted;
