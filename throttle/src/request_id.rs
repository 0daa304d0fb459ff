//! The name of a request, from the moment it is made until its permit is gone.

use std::fmt;

/// The identity of a request, and of the permit that it becomes.
///
/// An admission gives each request its own, in the order of arrival, and never the same one
/// again. It is what a [`Snapshot`](crate::Snapshot) shows and what
/// [`Admission::force_release`](crate::Admission::force_release) takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(crate) u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}
