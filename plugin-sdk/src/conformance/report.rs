//! What the kit found, as a table and as JSON.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What the kit found out about a plugin. Its `Display` is the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The plugin, as the kit was told of it.
    pub subject: String,
    /// How it was run.
    pub mode: String,
    /// The checks, in the order in which they were made.
    pub checks: Vec<Check>,
}

/// One check and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Check {
    /// Which group it belongs to.
    pub group: Group,
    /// Its name, unique in the group.
    pub name: String,
    /// How much it counts.
    pub grade: Grade,
    /// What came of it.
    pub verdict: Verdict,
    /// What was tried, what is wrong, or why nothing was tried.
    pub detail: String,
}

/// What a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Group {
    /// The library, its manifest and its graphs.
    Load,
    /// Backup, change, loss, restore.
    RoundTrip,
    /// The process dies, and another one goes on.
    Lifecycle,
    /// Runs are asked to stop.
    Cancel,
    /// The host's services fail.
    Errors,
    /// Somebody panics.
    Panic,
    /// Buffers of all sizes, and a slow archive.
    Stream,
    /// Operations at the same time.
    Concurrency,
    /// Requests that make no sense.
    Fuzz,
    /// Output, secrets, threads.
    Hygiene,
}

/// How much a check counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// A plugin that fails it must not be used.
    Must,
    /// A plugin that fails it could be better.
    Should,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not hold.
    Failed,
    /// It could not be tried; the detail says why.
    Skipped,
}

impl Group {
    /// All groups, in the order in which they are tried.
    pub const ALL: [Group; 10] = [
        Group::Load,
        Group::RoundTrip,
        Group::Lifecycle,
        Group::Cancel,
        Group::Errors,
        Group::Panic,
        Group::Stream,
        Group::Concurrency,
        Group::Fuzz,
        Group::Hygiene,
    ];

    /// The group as one lower-case word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Group::Load => "load",
            Group::RoundTrip => "round_trip",
            Group::Lifecycle => "lifecycle",
            Group::Cancel => "cancel",
            Group::Errors => "errors",
            Group::Panic => "panic",
            Group::Stream => "stream",
            Group::Concurrency => "concurrency",
            Group::Fuzz => "fuzz",
            Group::Hygiene => "hygiene",
        }
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Group::ALL.into_iter().find(|group| group.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is no group"))
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Check {
    /// Whether the plugin must not be used because of it.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.grade == Grade::Must && self.verdict == Verdict::Failed
    }

    fn word(&self) -> &'static str {
        match (self.verdict, self.grade) {
            (Verdict::Passed, _) => "ok",
            (Verdict::Failed, Grade::Must) => "FAIL",
            (Verdict::Failed, Grade::Should) => "warn",
            (Verdict::Skipped, _) => "-",
        }
    }
}

impl Report {
    /// Whether everything holds that must.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.checks.iter().any(Check::is_broken)
    }

    /// What does not hold although it must.
    pub fn broken(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.is_broken())
    }

    /// The check `name` of `group`.
    #[must_use]
    pub fn check(&self, group: Group, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.group == group && check.name == name)
    }

    /// What a program that runs the kit exits with: 0 if everything holds that must, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.passed())
    }

    fn count(&self, verdict: Verdict, grade: Grade) -> usize {
        let counted = |check: &&Check| check.verdict == verdict && check.grade == grade;
        self.checks.iter().filter(counted).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.subject, self.mode)?;
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for check in &self.checks {
            let grade = match check.grade {
                Grade::Must => "must",
                Grade::Should => "should",
            };
            let (group, name, word) = (check.group, &check.name, check.word());
            writeln!(f, "{group:11}  {name:width$}  {grade:6}  {word:4}  {}", check.detail)?;
        }
        let passed = self.checks.iter().filter(|check| check.verdict == Verdict::Passed).count();
        let skipped = self.checks.iter().filter(|check| check.verdict == Verdict::Skipped).count();
        write!(
            f,
            "{passed} of {} hold, {} broken, {} warnings, {skipped} not tried",
            self.checks.len(),
            self.count(Verdict::Failed, Grade::Must),
            self.count(Verdict::Failed, Grade::Should),
        )
    }
}
