//! What can be wrong with a policy.

use std::fmt;

/// What is wrong with a policy, coarsely enough to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyErrorKind {
    /// A name is empty, or contains one of the characters that pairs are written with.
    MalformedName,
    /// A name or alias stands for two classes.
    DuplicateClass,
    /// There are more classes than [`Policy::CLASSES_MAX`](crate::Policy::CLASSES_MAX).
    TooManyClasses,
    /// A pair is not written as `a/b` or `a>b`.
    MalformedPair,
    /// A rule is not written as `wait`, `allow`, `reject(code)` or `coalesce`.
    MalformedRule,
    /// A pair names a class that the policy does not have.
    UnknownClass,
    /// A rejection between two classes does not say which of them is the running one.
    RejectWithoutDirection,
    /// Classes that are not the same cannot stand in for each other.
    CoalesceAcrossClasses,
    /// Two rules that are equally specific say different things about a pair.
    AmbiguousRules,
    /// A policy cannot close a limit; only the host can.
    ZeroLimit,
    /// A version is not written as numbers with dots between them.
    MalformedVersion,
    /// A condition is not written like `engine<9` or `engine>=9,engine<13`.
    MalformedCondition,
    /// The policy has conditions and was compiled without a version.
    VersionNeeded,
    /// The workload already has a policy.
    AlreadyRegistered,
    /// The workload has no policy that could be replaced.
    NotRegistered,
}

/// A policy that cannot be used. See [`PolicyError::kind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {subject}")]
pub struct PolicyError {
    kind: PolicyErrorKind,
    subject: String,
}

impl PolicyError {
    pub(crate) fn new(kind: PolicyErrorKind, subject: impl Into<String>) -> Self {
        Self { kind, subject: subject.into() }
    }

    /// What is wrong; match on this, with a `_` arm.
    pub fn kind(&self) -> PolicyErrorKind {
        self.kind
    }

    /// The class, pair, rule, limit or workload that it is about.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl fmt::Display for PolicyErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MalformedName => "name is empty or contains one of / > *",
            Self::DuplicateClass => "class is declared twice",
            Self::TooManyClasses => "policy has more than 64 classes",
            Self::MalformedPair => "pair is not written as a/b or a>b",
            Self::MalformedRule => "rule is not wait, allow, reject(code) or coalesce",
            Self::UnknownClass => "class is not declared",
            Self::RejectWithoutDirection => "rejection does not say which class is running",
            Self::CoalesceAcrossClasses => "only requests of one class can coalesce",
            Self::AmbiguousRules => "rules disagree about a pair",
            Self::ZeroLimit => "limit of a policy is zero",
            Self::MalformedVersion => "version is not numbers with dots between them",
            Self::MalformedCondition => "condition is not a comparison such as engine<9",
            Self::VersionNeeded => "rules depend on the version of the engine",
            Self::AlreadyRegistered => "workload already has a policy",
            Self::NotRegistered => "workload has no policy yet",
        })
    }
}
