//! The name of a request, from the moment it is made until its permit is gone.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// The identity of a request, and of the permit that it becomes.
///
/// An admission gives each request its own, in the order of arrival, and never the same one
/// again. It is what a [`Snapshot`](crate::Snapshot) shows and what
/// [`Admission::force_release`](crate::Admission::force_release) takes.
#[derive(Clone, Copy)]
pub struct RequestId {
    /// How many requests came before it: unique, and decides the order.
    pub(crate) number: u64,
    /// Where the admission keeps it; used again by others later.
    pub(crate) slot: u32,
}

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for RequestId {}

impl PartialOrd for RequestId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RequestId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number.cmp(&other.number)
    }
}

impl Hash for RequestId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestId").field(&self.number).finish()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.number)
    }
}
