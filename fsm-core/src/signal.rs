//! What somebody outside tells a run.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Data;

/// Something that somebody outside tells a run: a name, and the data that goes with it.
///
/// A signal is durable before its sender hears that it was accepted, and is kept until a state
/// takes it with [`Context::take`](crate::Context::take). It has an id of the sender's choice: the
/// same id again is the same signal.
///
/// ```
/// use fsm_core::Signal;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Payment { cents: u64 }
///
/// impl Signal for Payment {
///     const NAME: &'static str = "payment";
/// }
/// ```
pub trait Signal: Serialize + DeserializeOwned + Send + 'static {
    /// The signal's name. Persisted: renaming the type is safe.
    const NAME: &'static str;
}

/// A signal that a run has been told and has not taken yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The sender's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What goes with it.
    pub data: Data,
}
