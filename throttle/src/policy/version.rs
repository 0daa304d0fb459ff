//! The version of the system that a workload works on, and conditions on it.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{PolicyError, PolicyErrorKind};

/// The version of the system that a workload works on: numbers with dots between them.
///
/// Missing numbers are zero, so `9` and `9.0` are the same version.
///
/// # Examples
///
/// ```
/// use throttle::EngineVersion;
///
/// let old: EngineVersion = "8.0.760".parse()?;
/// let new: EngineVersion = "16.0".parse()?;
/// assert!(old < new);
/// assert_eq!(new, "16".parse()?);
/// # Ok::<(), throttle::PolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EngineVersion {
    /// Without zeros at the end.
    numbers: Vec<u64>,
}

impl Ord for EngineVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        // Without zeros at the end the longer one of two that begin alike is the later one.
        self.numbers.cmp(&other.numbers)
    }
}

impl PartialOrd for EngineVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for EngineVersion {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let number = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
            true => part.parse().ok(),
            false => None,
        };
        let numbers: Option<Vec<u64>> = text.split('.').map(number).collect();
        let mut numbers =
            numbers.ok_or_else(|| PolicyError::new(PolicyErrorKind::MalformedVersion, text))?;
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        Ok(Self { numbers })
    }
}

impl fmt::Display for EngineVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, rest) = self.numbers.split_first().unwrap_or((&0, &[]));
        write!(f, "{first}")?;
        rest.iter().try_for_each(|number| write!(f, ".{number}"))
    }
}

impl TryFrom<String> for EngineVersion {
    type Error = PolicyError;

    fn try_from(text: String) -> Result<Self, PolicyError> {
        text.parse()
    }
}

impl From<EngineVersion> for String {
    fn from(version: EngineVersion) -> Self {
        version.to_string()
    }
}

/// Comparisons with a version, all of which have to hold: `engine>=9,engine<13`.
#[derive(Debug)]
pub(super) struct Condition {
    bounds: Vec<(Comparison, EngineVersion)>,
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

impl Condition {
    pub(super) fn parse(text: &str) -> Result<Self, PolicyError> {
        let malformed = || PolicyError::new(PolicyErrorKind::MalformedCondition, text);
        let bound = |part: &str| {
            let part = part.trim().strip_prefix("engine").ok_or_else(malformed)?.trim_start();
            // The longer signs first: each begins with a shorter one.
            let signs = [
                ("<=", Comparison::LessOrEqual),
                (">=", Comparison::GreaterOrEqual),
                ("<", Comparison::Less),
                (">", Comparison::Greater),
                ("=", Comparison::Equal),
            ];
            let (comparison, version) = signs
                .into_iter()
                .find_map(|(sign, comparison)| Some((comparison, part.strip_prefix(sign)?)))
                .ok_or_else(malformed)?;
            let version = version.trim().parse().map_err(|_| malformed())?;
            Ok((comparison, version))
        };
        Ok(Self { bounds: text.split(',').map(bound).collect::<Result<_, _>>()? })
    }

    pub(super) fn holds(&self, engine: &EngineVersion) -> bool {
        self.bounds.iter().all(|(comparison, version)| match comparison {
            Comparison::Less => engine < version,
            Comparison::LessOrEqual => engine <= version,
            Comparison::Equal => engine == version,
            Comparison::GreaterOrEqual => engine >= version,
            Comparison::Greater => engine > version,
        })
    }
}
