//! What a plugin says of itself before any of its work is asked for.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use throttle::Policy;

use crate::PointKind;

/// What one workload of a plugin says of itself. Constant: the same on every call.
///
/// ```
/// use plugin_sdk::{Manifest, Operation, PointKind};
/// use throttle::{Class, Policy};
///
/// let manifest = Manifest::new("plugin-sqlite", "0.1.0", "sqlite")
///     .operation(Operation::Discover)
///     .operation(Operation::Backup(PointKind::Full))
///     .operation(Operation::Restore)
///     .throttle(Policy::new().class(Class::new("data")).class(Class::new("restore")));
/// assert_eq!(manifest.workload, "sqlite");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// The plugin's name.
    pub plugin: String,
    /// The plugin's version (semver.org).
    pub version: String,
    /// The workload that this is about.
    pub workload: String,
    /// What may be asked for.
    #[serde(default)]
    pub operations: Vec<Operation>,
    /// The workload's configuration as a JSON Schema; null if it takes none.
    #[serde(default)]
    pub config_schema: Value,
    /// The kinds of work that it does, which of them may run together, and how much of it. Left
    /// empty it is one kind, `data`, one at a time on each item.
    #[serde(default)]
    pub throttle: Policy,
    /// The names of the secrets that it asks its host for. Others are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Whether a restore can stop inside what a point covers
    /// ([`RestoreRequest::until`](crate::RestoreRequest::until)).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restores_until: bool,
    /// Whether programs of the workload call by themselves: then the host asks for its
    /// [`endpoints`](crate::Workload::endpoints).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ingress: bool,
}

/// Something that may be asked of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operation {
    /// List its items.
    Discover,
    /// Make a point of this kind.
    Backup(PointKind),
    /// Restore a point.
    Restore,
}

impl Manifest {
    /// A manifest of workload `workload` in version `version` of plugin `plugin`.
    pub fn new(
        plugin: impl Into<String>,
        version: impl Into<String>,
        workload: impl Into<String>,
    ) -> Self {
        Manifest {
            plugin: plugin.into(),
            version: version.into(),
            workload: workload.into(),
            operations: Vec::new(),
            config_schema: Value::Null,
            throttle: Policy::default(),
            secrets: Vec::new(),
            restores_until: false,
            ingress: false,
        }
    }

    /// Adds something that may be asked for.
    #[must_use]
    pub fn operation(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }

    /// Describes the configuration.
    #[must_use]
    pub fn config_schema(mut self, schema: Value) -> Self {
        self.config_schema = schema;
        self
    }

    /// Declares a secret that it asks its host for, by name.
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>) -> Self {
        self.secrets.push(name.into());
        self
    }

    /// Offers restores that stop inside what a point covers.
    #[must_use]
    pub fn restores_until(mut self) -> Self {
        self.restores_until = true;
        self
    }

    /// Says that programs of the workload call by themselves.
    #[must_use]
    pub fn ingress(mut self) -> Self {
        self.ingress = true;
        self
    }

    /// Declares the throttle rules.
    #[must_use]
    pub fn throttle(mut self, policy: Policy) -> Self {
        self.throttle = policy;
        self
    }
}

/// The whole library's manifest, as it crosses the boundary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginManifest {
    /// The version of this document's form.
    pub schema: u16,
    /// The version of the SDK that the library was built with.
    pub sdk: String,
    /// One manifest a workload.
    pub workloads: Vec<Manifest>,
}
