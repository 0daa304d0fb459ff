//! What an author supplies: an item to back up, and how to look at it from outside.

use std::error::Error;

use serde_json::Value;

use crate::ItemId;

/// Why a fixture could not do what it was asked.
pub type FixtureError = Box<dyn Error + Send + Sync>;

/// A system with one item in it, that the kit fills, changes, empties and looks at.
///
/// **The kit guarantees** that it calls from one thread, that [`seed`](Fixture::seed) comes before
/// anything else, and that nothing of the plugin's is at work meanwhile, except where a method says
/// so.
///
/// **The author guarantees** that `seed` makes the same content each time, whatever was there
/// before, and that [`digest`](Fixture::digest) is equal exactly if the content is.
pub trait Fixture {
    /// The item. Its workload says which one of the plugin is checked.
    fn item(&self) -> ItemId;

    /// The workload's configuration. None by default.
    fn config(&self) -> Value {
        Value::Null
    }

    /// Makes the item, with the same content each time.
    ///
    /// # Errors
    ///
    /// Why it could not be made; ends the kit's work.
    fn seed(&mut self) -> Result<(), FixtureError>;

    /// Waits until the item counts as old: where times are all that tells whether it has changed,
    /// what was written a moment ago cannot be told from what is written now. Does nothing by
    /// default.
    ///
    /// # Errors
    ///
    /// Why it never will.
    fn settle(&mut self) -> Result<(), FixtureError> {
        Ok(())
    }

    /// Changes the item's content, by as little as must not be missed.
    ///
    /// # Errors
    ///
    /// Why it could not be changed; ends the kit's work.
    fn mutate(&mut self) -> Result<(), FixtureError>;

    /// Removes the item, as a disaster would.
    ///
    /// # Errors
    ///
    /// Why it could not be removed; ends the kit's work.
    fn wipe(&mut self) -> Result<(), FixtureError>;

    /// The item's content in a few words; `None` if there is no item.
    ///
    /// # Errors
    ///
    /// Why the content cannot be read: that counts as a damaged item.
    fn digest(&mut self) -> Result<Option<String>, FixtureError>;

    /// Where a second copy of the item can be restored to, in the workload's own terms; `None` if
    /// there is no such place.
    fn elsewhere(&self) -> Option<String> {
        None
    }

    /// As [`digest`](Fixture::digest), of the copy at [`elsewhere`](Fixture::elsewhere).
    ///
    /// # Errors
    ///
    /// As `digest`.
    fn digest_elsewhere(&mut self) -> Result<Option<String>, FixtureError> {
        Ok(None)
    }

    /// Another item of the same workload, which [`seed`](Fixture::seed) makes too, so that both are
    /// backed up at the same time; `None` if there is no other.
    fn neighbour(&self) -> Option<ItemId> {
        None
    }

    /// What is left of runs that have ended: a freeze, a snapshot, a lock, a file. Nothing by
    /// default, so that nothing is found.
    ///
    /// # Errors
    ///
    /// Why it could not be looked for.
    fn leftovers(&mut self) -> Result<Vec<String>, FixtureError> {
        Ok(Vec::new())
    }

    /// Texts that must appear in no log, fault, journal or note: the passwords in the
    /// configuration, say.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}
