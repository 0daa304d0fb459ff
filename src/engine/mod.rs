//! The engine: what ties plugins, runs, permits and the archive together.
//!
//! **Promise.** An operation that was acknowledged is carried to an end, over any number of
//! restarts, and ends once. What a backup acknowledged can be restored with the archive and its
//! key alone.
//!
//! **How.** Each operation has one task (`execute`): it has the workload `decide`, journals the
//! decision together with the run's first record, waits for its `claims` (or finds that another
//! operation does its work: `coalesce`), lets the run execute, and writes down what came of it.
//! Another task, `tend`, gives what a run does not need to others meanwhile. A start reads the
//! unfinished operations and gives each its task again. `reception` makes operations of what the
//! workloads' programs ask for.

mod builder;
mod claims;
mod coalesce;
mod coverage;
mod decide;
mod execute;
mod handle;
mod reception;
mod recover;
mod requests;
mod sleep;
mod state_dir;
mod tend;
mod waiting;

pub use self::{
    builder::EngineBuilder,
    handle::{Engine, Shutdown},
    recover::LostExclusion,
    requests::{BackupRequest, Operation, RestoreTo},
};
