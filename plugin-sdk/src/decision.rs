//! What is asked of a workload, and what it decides to do about it.

use std::fmt;

use fsm_core::{Data, Fault, Machine, State};
use serde::{Deserialize, Serialize};

use crate::{ItemId, PointId, PointKind, PointMeta, Until};

/// Names one operation; chosen by whoever asks for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(String);

impl From<&str> for OperationId {
    fn from(id: &str) -> Self {
        OperationId(id.to_owned())
    }
}

impl OperationId {
    /// Wraps the id.
    pub fn new(id: impl Into<String>) -> Self {
        OperationId(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A backup that somebody wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Wanted {
    /// The operation that wants it.
    pub operation: OperationId,
    /// What kind of point.
    pub kind: PointKind,
    /// Whether an unchanged item is backed up all the same.
    #[serde(default)]
    pub even_if_unchanged: bool,
}

impl Wanted {
    /// A point of `kind`, unless nothing has changed.
    pub fn new(operation: OperationId, kind: PointKind) -> Self {
        Wanted { operation, kind, even_if_unchanged: false }
    }

    /// Backs an unchanged item up all the same.
    #[must_use]
    pub fn even_if_unchanged(mut self) -> Self {
        self.even_if_unchanged = true;
        self
    }
}

/// A restore that somebody wants. The chain is planned and known to be present.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RestoreRequest {
    /// The operation that wants it.
    pub operation: OperationId,
    /// The item that the points are of.
    pub item: ItemId,
    /// The points to apply, in this order; the last one is the one that was asked for.
    pub chain: Vec<PointMeta>,
    /// Where to, in the workload's own terms (a path, a database's name); `None` is where it came
    /// from.
    pub target: Option<String>,
    /// Whether something that is there already may be replaced.
    pub overwrite: Overwrite,
    /// Where to stop, inside what the last point covers; `None` is its end. Only asked of a
    /// workload whose manifest says that it can ([`Manifest::restores_until`]).
    ///
    /// [`Manifest::restores_until`]: crate::Manifest::restores_until
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
}

impl RestoreRequest {
    /// A restore of `chain` to where it came from, refusing to replace anything.
    pub fn new(operation: OperationId, item: ItemId, chain: Vec<PointMeta>) -> Self {
        RestoreRequest {
            operation,
            item,
            chain,
            target: None,
            overwrite: Overwrite::Refuse,
            until: None,
        }
    }
}

/// Whether a restore may replace what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overwrite {
    /// A target that exists is refused.
    #[default]
    Refuse,
    /// A target that exists is replaced, once the restored data is whole.
    Replace,
}

/// What a workload decided about a backup. Journaled before any run exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decision {
    /// Do it, so.
    Run(RunPlan),
    /// Nothing needs to be done: the newest point still says it all.
    Skip {
        /// Why, for people.
        reason: String,
        /// The point whose data would be stored again.
        unchanged_since: PointId,
    },
}

/// Which machine runs, on what, and what it needs to hold meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunPlan {
    /// The machine's name, within the workload.
    pub machine: String,
    /// Its initial state's data.
    pub input: Data,
    /// What must be held before it starts.
    pub claims: Vec<Claim>,
    /// Why it is done, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl RunPlan {
    /// A run of machine `M` that starts with `input`. Without claims it does work of class
    /// `data` on the item, over one stream.
    ///
    /// # Errors
    ///
    /// A [`Bug`](fsm_core::Class::Bug) fault if serde cannot write `input`.
    pub fn new<M: Machine>(input: M::Initial) -> Result<Self, Fault>
    where
        M::Initial: State<M>,
    {
        Ok(RunPlan {
            machine: M::NAME.to_owned(),
            input: Data::encode(&input)?,
            claims: Vec::new(),
            reason: None,
        })
    }

    /// Adds a claim.
    #[must_use]
    pub fn claim(mut self, claim: Claim) -> Self {
        self.claims.push(claim);
        self
    }

    /// Says why it is done, for people.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

/// What a run needs to hold while it works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Claim {
    /// To do work of this class on the item, by the rules of the manifest.
    Item {
        /// The class.
        class: String,
    },
    /// To do work of this class on the whole instance.
    Instance {
        /// The class.
        class: String,
    },
    /// To have this many streams open.
    Streams {
        /// How many, at least 1.
        count: u32,
    },
}
