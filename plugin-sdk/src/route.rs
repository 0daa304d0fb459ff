//! Work that comes from the workload: what has arrived, and where it belongs.
//!
//! Some systems start a backup themselves and hand the bytes over (SAP HANA starts a program and
//! gives it pipes). The host owns the socket on which such callers arrive. It knows which runs are
//! under way, and the workload knows what the caller means; so the workload says which run the
//! caller belongs to, and the host does the rest.

use fsm_core::Fault;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ItemId, OperationId, RunPlan, manifest::Operation};

/// A caller that has connected to one of the host's sockets and said what it wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Arrival {
    /// The name of the socket.
    pub endpoint: String,
    /// What the caller said, as the workload's own program writes it. It comes from outside: it
    /// may be anything.
    pub hello: Value,
    /// Who the caller is, by the operating system.
    #[serde(default)]
    pub peer: Option<Peer>,
}

impl Arrival {
    /// A caller at `endpoint`, of whom nothing but its words is known.
    pub fn new(endpoint: impl Into<String>, hello: Value) -> Self {
        Arrival { endpoint: endpoint.into(), hello, peer: None }
    }

    /// The same caller, known to the operating system.
    #[must_use]
    pub fn peer(mut self, peer: Peer) -> Self {
        self.peer = Some(peer);
        self
    }
}

/// Who is at the other end of a connection, by the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Peer {
    /// The user.
    pub user: u32,
    /// The process.
    pub process: u32,
}

impl Peer {
    /// The process `process` of the user `user`.
    pub fn new(user: u32, process: u32) -> Self {
        Peer { user, process }
    }
}

/// A run of the workload that is under way, and could be what a caller belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ActiveRun {
    /// The operation that the run carries out: what a [`Route::Attach`] names.
    pub operation: OperationId,
    /// The item that it works on.
    pub item: ItemId,
    /// Its machine.
    pub machine: String,
    /// The state that it is in.
    pub state: String,
}

impl ActiveRun {
    /// A run of `machine`, in `state`.
    pub fn new(
        operation: OperationId,
        item: ItemId,
        machine: impl Into<String>,
        state: impl Into<String>,
    ) -> Self {
        ActiveRun { operation, item, machine: machine.into(), state: state.into() }
    }
}

/// Where an arrival belongs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Route {
    /// To the run of this operation, which is among the active ones.
    Attach {
        /// The operation.
        operation: OperationId,
    },
    /// To an operation of its own.
    Start(NewWork),
    /// Nowhere: the caller is told so.
    Refuse(Fault),
}

/// An operation that the workload itself asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NewWork {
    /// What makes the work recognisable in the caller's own terms. A caller that comes back with
    /// the same key finds the operation that it started.
    pub key: String,
    /// The item that is worked on.
    pub item: ItemId,
    /// What kind of work it is.
    pub operation: Operation,
    /// How it is done.
    pub plan: RunPlan,
}

impl NewWork {
    /// Work on `item`, done as `plan` says.
    pub fn new(key: impl Into<String>, item: ItemId, operation: Operation, plan: RunPlan) -> Self {
        NewWork { key: key.into(), item, operation, plan }
    }
}
