//! What a claim is about: a named thing of a certain scope.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How wide a resource reaches.
///
/// The order is from narrow to wide. A request is examined in that order, so that it
/// waits for the thing that concerns it alone before it waits for what everybody shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Scope {
    /// Whatever the host and its plugins agree on: a device, a snapshot provider.
    Custom,
    /// One thing that is protected on its own, such as a database.
    Item,
    /// One running system, such as a database server.
    Instance,
    /// A kind of system, such as `sqlite`.
    Workload,
    /// The computer on which all of it runs.
    Node,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Custom => "custom",
            Self::Item => "item",
            Self::Instance => "instance",
            Self::Workload => "workload",
            Self::Node => "node",
        })
    }
}

/// A thing that operations share: a [`Scope`] and a key that is unique in it.
///
/// By convention the key of an instance or an item begins with the name of its workload
/// and a slash (`sqlite/main`, `sqlite/main/orders.db`). A workload's policy sets limits
/// for the resources that are named like this, and for no others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resource {
    scope: Scope,
    key: String,
}

impl Resource {
    /// The node; there is only one.
    pub fn node() -> Self {
        Self { scope: Scope::Node, key: String::new() }
    }

    /// The workload of this name.
    pub fn workload(key: impl Into<String>) -> Self {
        Self { scope: Scope::Workload, key: key.into() }
    }

    /// The instance with this key, such as `sqlite/main`.
    pub fn instance(key: impl Into<String>) -> Self {
        Self { scope: Scope::Instance, key: key.into() }
    }

    /// The item with this key, such as `sqlite/main/orders.db`.
    pub fn item(key: impl Into<String>) -> Self {
        Self { scope: Scope::Item, key: key.into() }
    }

    /// A resource that only its users know the meaning of.
    pub fn custom(key: impl Into<String>) -> Self {
        Self { scope: Scope::Custom, key: key.into() }
    }

    /// How wide the resource reaches.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The name of the resource in its scope; empty for the node.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether a policy of `workload` may set limits for this resource.
    pub(crate) fn belongs_to(&self, workload: &str) -> bool {
        self.scope == Scope::Node
            || self
                .key
                .strip_prefix(workload)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope {
            Scope::Node => write!(f, "node"),
            scope => write!(f, "{scope} {}", self.key),
        }
    }
}
