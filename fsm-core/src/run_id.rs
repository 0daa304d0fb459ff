//! The name of a run.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Names one run, for ever.
///
/// Chosen by whoever starts the run: starting the same id again finds the same run. 1 to 200
/// bytes of ASCII letters, digits and `-_.:/@`.
///
/// ```
/// use fsm_core::RunId;
///
/// let id: RunId = "ticket-4711/1".parse()?;
/// assert_eq!(id.as_str(), "ticket-4711/1");
/// assert!("two words".parse::<RunId>().is_err());
/// # Ok::<(), fsm_core::InvalidRunId>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(Arc<str>);

/// The text cannot name a run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a run id is 1 to 200 of `A-Z a-z 0-9 - _ . : / @`, not {0:?}")]
pub struct InvalidRunId(String);

impl RunId {
    /// Checks and wraps `id`.
    ///
    /// # Errors
    ///
    /// [`InvalidRunId`] if `id` is empty, longer than 200 bytes or holds another character.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidRunId> {
        let id = id.into();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/@".contains(&b);
        if id.is_empty() || id.len() > 200 || !id.bytes().all(allowed) {
            return Err(InvalidRunId(id.chars().take(220).collect()));
        }
        Ok(RunId(id.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for RunId {
    type Err = InvalidRunId;

    fn from_str(id: &str) -> Result<Self, InvalidRunId> {
        RunId::new(id)
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidRunId;

    fn try_from(id: String) -> Result<Self, InvalidRunId> {
        RunId::new(id)
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
