//! What the engine remembers: items, recovery points, operations, takes.
//!
//! **Promise.** An operation is durable before it is acknowledged, together with the first record
//! of its run. Everything about recovery points is only a copy of what is in the archive, kept so
//! that an operator can read it with any SQLite tool, and is made anew when it is lost.
//!
//! One table an idea, in the store that the journal of runs uses: `mercury_operation`,
//! `mercury_item`, `mercury_point`, `mercury_take`. The views `operations`, `items` and
//! `recovery_points` show them in words.

mod operations;
mod points;
mod schema;
mod takes;

use fsm_core::sqlite::Store;

use crate::Error;

pub(crate) use self::{
    operations::{Accepted, MadeOf, Planned, Terms},
    takes::{FinishedStream, TakeRow},
};

/// The engine's tables in a store.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    store: Store,
}

impl Catalog {
    /// The tables of `store`, made or brought up to date.
    pub(crate) fn new(store: Store) -> Result<Self, Error> {
        store.migrate("mercury", schema::STEPS)?;
        Ok(Catalog { store })
    }

    /// Lets another engine have the store. What is asked of this one meanwhile is written as long
    /// as no other one runs.
    pub(crate) fn release(&self) -> impl Future<Output = ()> + use<> {
        // Asked for at once, also if nobody waits for it.
        let released = self.store.release();
        async move {
            if let Err(error) = released.await {
                tracing::warn!(%error, "the store stays locked");
            }
        }
    }
}
