//! The key that a caller keeps: everything in an archive opens with it, and nothing without it.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroize;

use crate::error::{Error, Result};

/// A key-encryption key: 32 secret bytes, wiped from memory when dropped.
///
/// It encrypts no data itself: each item has a data key of its own, stored in the archive wrapped
/// by this one. Losing the key loses the archive.
///
/// # Examples
///
/// ```
/// use archive::Key;
///
/// let key = Key::generate()?;
/// let kept: String = key.to_hex().to_string();
/// let again: Key = kept.parse()?;
/// assert_eq!(again.to_hex().as_str(), kept);
/// assert_eq!(format!("{key:?}"), "Key(..)");
/// # Ok::<(), archive::Error>(())
/// ```
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// Wraps 32 bytes that the caller drew or derived. They should be as good as random.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Draws a new key from the operating system.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage) if the system has no randomness to give.
    pub fn generate() -> Result<Self> {
        Ok(Self(crate::crypto::random()?))
    }

    /// The key as 64 hexadecimal digits, in a string that is wiped when dropped.
    #[must_use]
    pub fn to_hex(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(hex::encode(self.0))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Key {
    type Err = Error;

    /// Parses 64 hexadecimal digits; white space around them is ignored.
    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes)
            .map_err(|_| Error::input("key", "a key is 64 hexadecimal digits"))?;
        Ok(Self(bytes))
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}
