//! Keys derived from keys, and the sealed box that everything at rest is made of.
//!
//! **Promise.** What [`BoxKey::open`] returns is what [`BoxKey::seal`] was given, under the same
//! key, number and label; anything else is refused.
//!
//! **How.** AES-256-GCM. A key seals boxes of one object only: it is derived from a parent key and
//! the 32 random bytes (the salt) in the object's head, so box numbers can serve as nonces and no
//! limit on random nonces applies. The label (associated data) is the object's name, so that
//! objects cannot be passed off as one another.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroize;

use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;

/// Length of the tag at the end of every box.
pub(crate) const TAG_BYTES: usize = 16;
/// Length of the random bytes that every object starts with.
pub(crate) const SALT_BYTES: usize = 32;

/// The 32 random bytes of one object.
pub(crate) type Salt = [u8; SALT_BYTES];

/// Bytes drawn from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::io("random bytes of the system", std::io::Error::other(error.to_string()))
    })?;
    Ok(bytes)
}

/// A secret that other keys are derived from.
#[derive(Clone)]
pub(crate) struct Secret([u8; 32]);

impl Secret {
    pub(crate) fn generate() -> Result<Self> {
        Ok(Self(random()?))
    }

    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// BLAKE3 in its key derivation mode over this secret followed by `material`.
    pub(crate) fn derive(&self, context: &'static str, material: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0).update(material);
        Self(*hasher.finalize().as_bytes())
    }

    /// A 16-byte id of `name` that says nothing about it to anyone without this secret.
    pub(crate) fn hide(&self, name: &[u8]) -> [u8; 16] {
        short(&blake3::keyed_hash(&self.0, name))
    }
}

impl From<&Key> for Secret {
    fn from(key: &Key) -> Self {
        Self(*key.bytes())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The first 16 bytes of a hash.
pub(crate) fn short(hash: &blake3::Hash) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&hash.as_bytes()[..16]);
    id
}

/// The key of one object's boxes.
pub(crate) struct BoxKey(LessSafeKey);

impl BoxKey {
    /// The key of the object that starts with `salt`.
    pub(crate) fn new(parent: &Secret, context: &'static str, salt: &Salt) -> Self {
        let secret = parent.derive(context, salt);
        let key = UnboundKey::new(&AES_256_GCM, secret.bytes())
            .expect("an AES-256 key has 32 bytes, and so has every secret");
        Self(LessSafeKey::new(key))
    }

    /// Encrypts `bytes` where they lie and appends the tag.
    pub(crate) fn seal(&self, number: u64, label: &[u8], bytes: &mut Vec<u8>) -> Result<()> {
        self.0
            .seal_in_place_append_tag(nonce(number), Aad::from(label), bytes)
            .map_err(|_| Error::new(ErrorKind::Input, "box to encrypt", "it is too long"))
    }

    /// Decrypts `bytes` where they lie; the plain bytes are the slice that comes back.
    /// `None` when key, number, label or any bit is not what it was.
    pub(crate) fn open<'b>(
        &self,
        number: u64,
        label: &[u8],
        bytes: &'b mut [u8],
    ) -> Option<&'b mut [u8]> {
        self.0.open_in_place(nonce(number), Aad::from(label), bytes).ok()
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}
