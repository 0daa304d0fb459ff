//! Small sealed objects: holds, pins, checkpoints, and the head and body of a point.
//!
//! `magic | 32-byte salt | box`. The key of the box derives from a parent key and the salt; its
//! label is the object's path in the archive, so that no record passes for another.

use bytes::Bytes;

use crate::crypto::{BoxKey, SALT_BYTES, Salt, Secret, random};
use crate::error::{Error, Result};
use crate::squeeze::{expanded, squeezed};

pub(crate) const MAGIC_BYTES: usize = 8;
pub(crate) const HEAD_BYTES: usize = MAGIC_BYTES + SALT_BYTES;
/// No record expands to more than this, whatever it says.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 30;

const CONTEXT: &str = "mercury archive v1 record";

/// What kind of record an object is: its first eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Magic(pub(crate) [u8; MAGIC_BYTES]);

impl Magic {
    pub(crate) const ROOT_KEY: Self = Self(*b"MRCYROT1");
    pub(crate) const ITEM_KEY: Self = Self(*b"MRCYKEY1");
    pub(crate) const PIN: Self = Self(*b"MRCYPIN1");
    pub(crate) const CHECKPOINT: Self = Self(*b"MRCYCHK1");
    pub(crate) const HOLD: Self = Self(*b"MRCYHLD1");
    pub(crate) const POINT: Self = Self(*b"MRCYPNT1");
}

/// The sealing side of an object with one or more boxes.
pub(crate) struct Sealer {
    key: BoxKey,
    salt: Salt,
}

impl Sealer {
    pub(crate) fn new(parent: &Secret) -> Result<Self> {
        let salt = random()?;
        Ok(Self { key: BoxKey::new(parent, CONTEXT, &salt), salt })
    }

    pub(crate) fn head(&self, magic: Magic) -> Vec<u8> {
        [&magic.0[..], &self.salt].concat()
    }

    pub(crate) fn seal(&self, number: u64, path: &str, payload: &[u8]) -> Result<Vec<u8>> {
        if payload.len() > RECORD_BYTES_MAX {
            return Err(Error::input(path, "its record would be too long to be read again"));
        }
        let mut content = squeezed(payload)?;
        self.key.seal(number, path.as_bytes(), &mut content)?;
        Ok(content)
    }
}

/// The opening side.
pub(crate) struct Opener {
    key: BoxKey,
}

impl Opener {
    /// Reads the head of `object`, which is the object at `path`.
    pub(crate) fn new(parent: &Secret, magic: Magic, path: &str, object: &[u8]) -> Result<Self> {
        let Some((head, _)) = object.split_at_checked(HEAD_BYTES) else {
            return Err(Error::damaged(path, "it ends too early"));
        };
        let (found, salt) = head.split_at(MAGIC_BYTES);
        if found != magic.0 {
            return Err(Error::damaged(path, "it is not what its path says"));
        }
        let mut bytes = [0; SALT_BYTES];
        bytes.copy_from_slice(salt);
        Ok(Self { key: BoxKey::new(parent, CONTEXT, &bytes) })
    }

    pub(crate) fn open(&self, number: u64, path: &str, sealed: &[u8]) -> Result<Bytes> {
        let mut content = sealed.to_vec();
        let plain = self
            .key
            .open(number, path.as_bytes(), &mut content)
            .map(|plain| plain.len())
            .ok_or_else(|| Error::damaged(path, "its seal is broken"))?;
        content.truncate(plain);
        expanded(content, RECORD_BYTES_MAX)
            .ok_or_else(|| Error::damaged(path, "its content cannot be unpacked"))
    }
}

/// A whole object with one box.
pub(crate) fn seal_record(
    parent: &Secret,
    magic: Magic,
    path: &str,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let sealer = Sealer::new(parent)?;
    let mut object = sealer.head(magic);
    object.extend(sealer.seal(0, path, payload)?);
    Ok(object)
}

/// The payload of an object with one box.
pub(crate) fn open_record(
    parent: &Secret,
    magic: Magic,
    path: &str,
    object: &[u8],
) -> Result<Bytes> {
    let opener = Opener::new(parent, magic, path, object)?;
    opener.open(0, path, &object[HEAD_BYTES..])
}
