//! Where a test's records are kept, over the deaths of its processes.

use crate::{Journal, RunId};

/// Where records are kept while nobody has a journal open: a file, say.
///
/// Every closure that answers with a journal is one: it is called once for each process. An
/// implementer whose medium can be damaged writes the trait out, so that
/// [`journal_suite`](super::journal_suite) tests that too.
pub trait Medium {
    /// The journal on it.
    type Journal: Journal;

    /// Opens the journal, as a new process does. The process before has gone: its journal was
    /// dropped.
    fn open(&self) -> Self::Journal;

    /// Damages record `seq` of `run`, behind the back of the journal, which nobody has open.
    /// False, the default, if this medium cannot be damaged.
    fn damage(&self, run: &RunId, seq: u64, damage: Damage) -> bool {
        let _ = (run, seq, damage);
        false
    }
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// It is gone, as if it had never been written.
    Remove,
    /// Its body is rubbish.
    Alter,
}

impl<J: Journal, F: Fn() -> J> Medium for F {
    type Journal = J;

    fn open(&self) -> J {
        self()
    }
}
