//! Where each object lies. No name that a caller gave appears in a path.

use crate::crypto::Secret;

/// The object that makes a place an archive.
pub(crate) const ARCHIVE: &str = "archive.json";
/// Bytes in the id that stands for a name in a path.
pub(crate) const HIDDEN_BYTES: usize = 16;

/// The archive's own secrets, wrapped by the key with this check value.
pub(crate) fn root_key(check: &[u8; 16]) -> String {
    format!("keys/{}", hex::encode(check))
}

/// The paths of one item.
#[derive(Clone, Debug)]
pub(crate) struct ItemPaths {
    directory: String,
}

impl ItemPaths {
    pub(crate) fn new(directory: String) -> Self {
        Self { directory }
    }

    /// Whether a directory at the top of an archive is an item.
    pub(crate) fn is_item(directory: &str) -> bool {
        directory.len() == 2 * HIDDEN_BYTES
            && directory.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }

    pub(crate) fn directory(&self) -> &str {
        &self.directory
    }

    pub(crate) fn keys(&self) -> String {
        format!("{}/keys", self.directory)
    }

    pub(crate) fn key(&self, number: u64) -> String {
        format!("{}/keys/{number}", self.directory)
    }

    pub(crate) fn pack(&self, name: &blake3::Hash) -> String {
        let hex = name.to_hex();
        format!("{}/packs/{}/{hex}", self.directory, &hex.as_str()[..2])
    }

    pub(crate) fn points(&self) -> String {
        format!("{}/points", self.directory)
    }

    pub(crate) fn point(&self, seq: u64) -> String {
        format!("{}/points/{seq:020}", self.directory)
    }

    pub(crate) fn open(&self) -> String {
        format!("{}/open", self.directory)
    }

    pub(crate) fn take(&self, names: &Secret, take: &str) -> TakePaths {
        let id = hex::encode(names.hide(take.as_bytes()));
        TakePaths { directory: format!("{}/open/{id}", self.directory) }
    }
}

/// The paths of one open take.
#[derive(Clone, Debug)]
pub(crate) struct TakePaths {
    directory: String,
}

impl TakePaths {
    pub(crate) fn directory(&self) -> &str {
        &self.directory
    }

    pub(crate) fn pin(&self) -> String {
        self.checkpoint(0)
    }

    /// Number 0 is the pin; each later one records a pack.
    pub(crate) fn checkpoint(&self, number: u64) -> String {
        format!("{}/{number:08}", self.directory)
    }

    pub(crate) fn hold(&self, names: &Secret, stream: &str) -> String {
        format!("{}/hold-{}", self.directory, hex::encode(names.hide(stream.as_bytes())))
    }
}

/// What a path below `open/` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenObject {
    Pin,
    Checkpoint(u64),
    Hold,
}

/// Tells from its last part what the object below `open/<take>/` is; `None` for a stranger.
pub(crate) fn open_object(path: &str) -> Option<OpenObject> {
    let name = path.rsplit('/').next()?;
    if name.starts_with("hold-") {
        return Some(OpenObject::Hold);
    }
    match decimal(name)? {
        0 => Some(OpenObject::Pin),
        number => Some(OpenObject::Checkpoint(number)),
    }
}

/// The number that ends a path, if it is nothing but digits.
pub(crate) fn decimal(path: &str) -> Option<u64> {
    let name = path.rsplit('/').next()?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    name.parse().ok()
}
