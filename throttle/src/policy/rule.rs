//! What happens when two classes meet on one resource.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{PolicyError, PolicyErrorKind};

/// What happens to a new request when work of another class runs on the same resource.
///
/// Written as text: `wait`, `allow`, `reject(some-code)`, `coalesce`. A pair of classes
/// without a rule waits.
///
/// # Examples
///
/// ```
/// use throttle::Rule;
///
/// let rule: Rule = "reject(backup-running)".parse()?;
/// assert_eq!(rule, Rule::reject("backup-running"));
/// # Ok::<(), throttle::PolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Rule {
    /// Both may run at the same time.
    Allow,
    /// The new request waits until the running work is done.
    Wait,
    /// The new request is refused with this code while the other work runs.
    ///
    /// That is decided once, when the request arrives. A request that was put in line
    /// behind others is not refused later.
    Reject(String),
    /// The new request waits; if its equal (by [`Request::coalesce_key`]) is waiting
    /// already, the two are one: they wait in one place and share one permit.
    ///
    /// [`Request::coalesce_key`]: crate::Request::coalesce_key
    Coalesce,
}

impl Rule {
    /// A rule that refuses with `code`.
    pub fn reject(code: impl Into<String>) -> Self {
        Self::Reject(code.into())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::Wait => f.write_str("wait"),
            Self::Reject(code) => write!(f, "reject({code})"),
            Self::Coalesce => f.write_str("coalesce"),
        }
    }
}

impl FromStr for Rule {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        match text {
            "allow" => Ok(Self::Allow),
            "wait" => Ok(Self::Wait),
            "coalesce" => Ok(Self::Coalesce),
            _ => text
                .strip_prefix("reject(")
                .and_then(|rest| rest.strip_suffix(')'))
                .filter(|code| !code.is_empty())
                .map(Self::reject)
                .ok_or_else(|| PolicyError::new(PolicyErrorKind::MalformedRule, text)),
        }
    }
}

impl TryFrom<String> for Rule {
    type Error = PolicyError;

    fn try_from(text: String) -> Result<Self, PolicyError> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}
