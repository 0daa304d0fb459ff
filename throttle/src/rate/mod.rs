//! How fast bytes may move.

mod bucket;
mod byte_rate;
mod sleep;
mod tree;

pub use bucket::Rate;
pub use byte_rate::{AcquireBytes, ByteRate};
pub use sleep::{Sleep, Sleeping};
