//! What is protected: an item of an instance of a workload.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use throttle::EngineVersion;

/// Names one item everywhere and for ever: `workload/instance/name`.
///
/// Workload and instance are not empty and hold no `/`; the name is not empty and may hold any
/// character.
///
/// ```
/// use plugin_sdk::ItemId;
///
/// let id = ItemId::new("sqlite", "local", "/srv/orders.db")?;
/// assert_eq!(id.to_string(), "sqlite/local//srv/orders.db");
/// assert_eq!(id.to_string().parse::<ItemId>()?, id);
/// # Ok::<(), plugin_sdk::InvalidItemId>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ItemId {
    text: String,
    instance_at: usize,
    name_at: usize,
}

/// The text names no item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an item is named `workload/instance/name`, not {0:?}")]
pub struct InvalidItemId(String);

impl ItemId {
    /// Puts an id together.
    ///
    /// # Errors
    ///
    /// [`InvalidItemId`] if a part is empty, or if workload or instance hold a `/`.
    pub fn new(workload: &str, instance: &str, name: &str) -> Result<Self, InvalidItemId> {
        let text = format!("{workload}/{instance}/{name}");
        if workload.contains('/') || instance.contains('/') {
            return Err(InvalidItemId(text));
        }
        text.parse()
    }

    /// The workload.
    pub fn workload(&self) -> &str {
        &self.text[..self.instance_at - 1]
    }

    /// The instance.
    pub fn instance(&self) -> &str {
        &self.text[self.instance_at..self.name_at - 1]
    }

    /// The item's own name.
    pub fn name(&self) -> &str {
        &self.text[self.name_at..]
    }

    /// The whole id as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for ItemId {
    type Err = InvalidItemId;

    fn from_str(text: &str) -> Result<Self, InvalidItemId> {
        let parts: Vec<&str> = text.splitn(3, '/').collect();
        match parts[..] {
            [workload, instance, name]
                if !workload.is_empty() && !instance.is_empty() && !name.is_empty() =>
            {
                let instance_at = workload.len() + 1;
                let name_at = instance_at + instance.len() + 1;
                Ok(ItemId { text: text.to_owned(), instance_at, name_at })
            }
            _ => Err(InvalidItemId(text.to_owned())),
        }
    }
}

impl TryFrom<String> for ItemId {
    type Error = InvalidItemId;

    fn try_from(text: String) -> Result<Self, InvalidItemId> {
        text.parse()
    }
}

impl From<ItemId> for String {
    fn from(id: ItemId) -> String {
        id.text
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ItemId").field(&self.text).finish()
    }
}

/// One thing that discovery found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Item {
    /// Its id.
    pub id: ItemId,
    /// Its size in bytes, if that is known without reading it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The version of the system that its instance runs, if the rules of the manifest's policy
    /// depend on it ([`Policy::when`](throttle::Policy::when)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<EngineVersion>,
    /// What else the plugin knows of it (recovery model, page size), for people.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub attributes: Value,
}

impl Item {
    /// An item of which only the id is known.
    pub fn new(id: ItemId) -> Self {
        Item { id, size_bytes: None, engine_version: None, attributes: Value::Null }
    }

    /// Adds its size.
    #[must_use]
    pub fn size_bytes(mut self, size_bytes: u64) -> Self {
        self.size_bytes = Some(size_bytes);
        self
    }

    /// Adds the version of the system that its instance runs.
    #[must_use]
    pub fn engine_version(mut self, version: EngineVersion) -> Self {
        self.engine_version = Some(version);
        self
    }

    /// Adds what else is known.
    #[must_use]
    pub fn attributes(mut self, attributes: Value) -> Self {
        self.attributes = attributes;
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use super::*;

    #[test]
    fn an_item_of_a_plugin_that_knows_no_versions_is_read() {
        let known: Item = serde_json::from_str(r#"{ "id": "sqlite/local/a.db" }"#).unwrap();
        assert_eq!(known.engine_version, None);
        let item = known.engine_version("16.0.4".parse().unwrap());
        let text = serde_json::to_string(&item).unwrap();
        assert_eq!(text, r#"{"id":"sqlite/local/a.db","engine_version":"16.0.4"}"#);
        assert_eq!(serde_json::from_str::<Item>(&text).unwrap(), item);
    }
}
