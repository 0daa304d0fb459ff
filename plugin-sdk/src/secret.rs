//! Something that must not be seen: a password, a token, a private key.

use std::fmt;

use bytes::Bytes;
use fsm_core::Fault;
use zeroize::Zeroizing;

/// A secret's bytes. Overwritten when dropped; not shown by `Debug`; neither cloned nor serialised.
///
/// What is [`expose`](Secret::expose)d is out of its hands: a copy that a driver makes of it is
/// not overwritten.
///
/// ```
/// use plugin_sdk::Secret;
///
/// let secret = Secret::new("hunter2");
/// assert_eq!(secret.expose(), b"hunter2");
/// assert_eq!(format!("{secret:?}"), "Secret(***)");
/// ```
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Secret(Zeroizing::new(bytes.into()))
    }

    /// The bytes, exactly as the host's store has them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text.
    ///
    /// # Errors
    ///
    /// A [`User`](fsm_core::Class::User) fault with code `secret.not_text` if they are no UTF-8.
    pub fn expose_str(&self) -> Result<&str, Fault> {
        std::str::from_utf8(&self.0).map_err(|_| {
            Fault::user("secret.not_text", "a secret is not the text that it should be")
                .advise("store it again, as UTF-8")
        })
    }

    /// The bytes as they cross the boundary: overwritten once the other side has let go of them.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(Owned(self))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

struct Owned(Secret);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}
