//! Who vouches for a library: detached minisign signatures.

use std::fmt;

use minisign_verify::{PublicKey, Signature};

use super::error::{LoadError, LoadErrorKind};
use super::image::Image;

/// The public half of a vendor's minisign key (<https://jedisct1.github.io/minisign/>).
///
/// A library is signed with `minisign -S -m libacme.so`, which makes `libacme.so.minisig`.
///
/// ```
/// use plugin_sdk::host::SigningKey;
///
/// let key = SigningKey::parse("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3")?;
/// # Ok::<(), plugin_sdk::host::InvalidKey>(())
/// ```
#[derive(Clone)]
pub struct SigningKey(PublicKey);

/// A text that is no public key of minisign's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKey;

impl SigningKey {
    /// Reads a public key: its line of base64, or the whole content of `minisign.pub`.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`].
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let text = text.trim();
        let key = match text.contains('\n') {
            true => PublicKey::decode(text),
            false => PublicKey::from_base64(text),
        };
        key.map(Self).map_err(|_| InvalidKey)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a public key is a line of base64 that minisign has written")
    }
}

impl std::error::Error for InvalidKey {}

/// Checks that one of `keys` has signed the image's bytes.
pub(super) fn check(image: &Image, signature: &str, keys: &[SigningKey]) -> Result<(), LoadError> {
    let bad = |what: &str| LoadError::new(LoadErrorKind::BadSignature, image.path(), what);
    let signature = Signature::decode(signature).map_err(|error| {
        bad("has a damaged signature; install library and signature anew").caused_by(error)
    })?;
    let mut foreign = true;
    for key in keys {
        // Fails for a signature of another key, and for one that is not over a hash.
        let Ok(mut verifier) = key.0.verify_stream(&signature) else { continue };
        foreign = false;
        image.pieces(|piece| verifier.update(piece))?;
        if verifier.finalize().is_ok() {
            return Ok(());
        }
    }
    Err(bad(if foreign {
        "is signed with a key that this agent does not trust; install the vendor's own build"
    } else {
        "does not fit its signature; install library and signature anew, together"
    }))
}
