//! An effect on the outside world, as the closure that causes it sees it.

/// What is known of an effect when it is about to run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Effect {
    /// `run/entry/name`: the same at every attempt and after every restart. Hand it to the
    /// outside world as the idempotency key, or as the name of what is made there.
    pub key: String,
    /// An earlier attempt may have run the effect already: look before repeating it. Only
    /// [`Context::once`](crate::Context::once) can tell; it is false for
    /// [`Context::effect`](crate::Context::effect).
    pub maybe_ran: bool,
}
