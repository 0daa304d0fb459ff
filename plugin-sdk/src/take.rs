//! One attempt to produce streams.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names one attempt to produce streams. Known to the host before anything is asked of the
/// outside world, so it can be used there (as the name of a backup set, say).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TakeId(String);

impl TakeId {
    /// Wraps the id.
    pub fn new(id: impl Into<String>) -> Self {
        TakeId(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TakeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
