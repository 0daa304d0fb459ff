//! Work that the workload starts by itself: its programs call, and the host answers.
//!
//! Some systems do not wait to be backed up: they start a program of their vendor and hand it
//! pipes. That program connects to an [`Endpoint`] of the host, and says in its first message what
//! it wants. The host asks the workload where the call belongs ([`Workload::route`]): to an
//! operation that is under way, to a new one, or nowhere. Then it gives the connection to a step of
//! that operation's run ([`Host::call`], [`Host::next_call`]); whatever else is said, and every
//! descriptor that is passed, is between the program and the step.
//!
//! **On the wire** a call begins with one message: its length as four bytes, the most significant
//! first, then that many bytes. Nothing else of the conversation is prescribed. Descriptors are
//! passed after the first message has been answered; what comes along with it is closed.
//!
//! [`Workload::route`]: crate::Workload::route
//! [`Host::call`]: crate::Host::call
//! [`Host::next_call`]: crate::Host::next_call

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ItemId, OperationId, PointId, PointKind, RunPlan, abi::OwnedDescriptor};

/// A place where programs of the workload call: a socket that the host owns.
///
/// ```
/// use plugin_sdk::{Caller, Endpoint};
/// use std::time::Duration;
///
/// let endpoint = Endpoint::new("H4C")
///     .caller(Caller::User("h4cadm".to_owned()))
///     .first_message(1 << 20, Duration::from_secs(5));
/// assert_eq!(endpoint.connections_max, 256);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Endpoint {
    /// Its name, unique in the workload: 1 to 64 ASCII letters, digits and `-_.`, the first not a
    /// `.`. The socket is `WORKLOAD/NAME.sock` in the directory that the host's configuration
    /// names.
    pub name: String,
    /// Who may call; nobody else is heard.
    pub callers: Vec<Caller>,
    /// How long the first message may be. 64 KiB by default; the host allows 1 MiB at most, and
    /// does not start with an endpoint that asks for more.
    pub first_bytes_max: u32,
    /// How soon the first message must be there. 5 s by default.
    pub first_within: Duration,
    /// How many calls may wait at once: those that have said nothing yet, and those that no step
    /// has taken yet. One more is closed at once. 256 by default. Work that must not wait behind
    /// other work has an endpoint of its own.
    pub connections_max: u32,
}

/// Somebody who may call. Names are looked up when the host starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Caller {
    /// Processes of this user.
    User(String),
    /// Processes of the user with this number.
    Uid(u32),
    /// Processes whose effective group is this one; supplementary groups do not count.
    Group(String),
    /// Processes whose effective group has this number.
    Gid(u32),
}

/// The process at the other end, as the kernel knew it when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Peer {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its number; 0 if the system does not say. It may be another process's by now.
    pub pid: u32,
}

/// A call: who called where, and said what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IncomingCall {
    /// A name that no operation has yet: for the operation that is made of the call.
    pub id: OperationId,
    /// The endpoint's name.
    pub endpoint: String,
    /// Who called.
    pub peer: Peer,
    /// The first message, without its length.
    pub first: Vec<u8>,
}

/// A call that a step has taken over.
#[derive(Debug)]
#[non_exhaustive]
pub struct Taken {
    /// Who called, and what was said first.
    pub call: IncomingCall,
    /// The connection, a blocking stream socket; what follows the first message is still in it.
    /// It is the step's alone: when it is dropped, the caller sees the end.
    pub connection: OwnedDescriptor,
}

/// Where a call belongs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Route {
    /// To the run of an operation that is under way, whose claims it borrows. A step of the run
    /// takes it with [`Host::next_call`](crate::Host::next_call).
    Attach {
        /// Which operation; it is of the same workload.
        operation: OperationId,
        /// What the caller is told if the host cannot pass the call on; empty to only hang up.
        refusal: Vec<u8>,
    },
    /// To a new operation. A step of its run takes it with [`Host::call`](crate::Host::call).
    Create(Box<Create>),
    /// Nowhere.
    Refuse {
        /// Why, as a stable code for the host's log.
        code: String,
        /// What the caller is told; empty to only hang up.
        answer: Vec<u8>,
    },
}

/// An operation to make of a call.
///
/// It is durable before any step sees the call. If the caller hangs up, or runs out of patience,
/// before a step has taken the call, the operation is cancelled. (A caller that closes only the half
/// that it writes to has said everything, and has not hung up.) Two such operations are never made
/// one, whatever the rules of the manifest say of equal work. A call that was lost with the
/// agent's process is not taken any more: an operation that had not begun ends as cancelled, one
/// that had begun goes on and finds [`Host::call`](crate::Host::call) refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Create {
    /// The operation's name. One that exists already is refused.
    pub operation: OperationId,
    /// What it works on; of the same workload.
    pub item: ItemId,
    /// What it does.
    pub work: Work,
    /// The machine that does it, on what, and what must be held before it starts.
    pub plan: RunPlan,
    /// How long the caller can wait until a step takes the call; without end by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<Duration>,
    /// What the caller is told if it comes to nothing; empty to only hang up.
    #[serde(default)]
    pub refusal: Vec<u8>,
}

/// What an operation that is made of a call does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Work {
    /// Makes a point of this kind; its machine ends in [`Sealed`](crate::Sealed).
    Backup(PointKind),
    /// Gives a point back. Its chain is planned, and known to be there, before the run starts.
    Restore(PointId),
    /// Something else. Its result is the data of the state that its machine ends in.
    Other,
}

impl Endpoint {
    /// An endpoint at which nobody may call yet.
    pub fn new(name: impl Into<String>) -> Self {
        Endpoint {
            name: name.into(),
            callers: Vec::new(),
            first_bytes_max: 64 << 10,
            first_within: Duration::from_secs(5),
            connections_max: 256,
        }
    }

    /// Adds somebody who may call.
    #[must_use]
    pub fn caller(mut self, caller: Caller) -> Self {
        self.callers.push(caller);
        self
    }

    /// How long the first message may be, and how soon it must be there.
    #[must_use]
    pub fn first_message(mut self, bytes_max: u32, within: Duration) -> Self {
        (self.first_bytes_max, self.first_within) = (bytes_max, within);
        self
    }

    /// How many calls may wait at once.
    #[must_use]
    pub fn connections_max(mut self, connections: u32) -> Self {
        self.connections_max = connections;
        self
    }
}

impl Peer {
    /// A process by its numbers.
    pub const fn new(uid: u32, gid: u32, pid: u32) -> Self {
        Peer { uid, gid, pid }
    }
}

impl IncomingCall {
    /// A call, as a host makes it; also for tests of [`Workload::route`](crate::Workload::route).
    pub fn new(
        id: OperationId,
        endpoint: impl Into<String>,
        peer: Peer,
        first: impl Into<Vec<u8>>,
    ) -> Self {
        IncomingCall { id, endpoint: endpoint.into(), peer, first: first.into() }
    }
}

impl Taken {
    pub(crate) fn new(call: IncomingCall, connection: OwnedDescriptor) -> Self {
        Taken { call, connection }
    }
}

impl Route {
    /// Nowhere: the caller is told `answer`, the host's log `code`.
    pub fn refuse(code: impl Into<String>, answer: impl Into<Vec<u8>>) -> Self {
        Route::Refuse { code: code.into(), answer: answer.into() }
    }

    /// To the run of `operation`; the caller is told `refusal` if that cannot be.
    pub fn attach(operation: OperationId, refusal: impl Into<Vec<u8>>) -> Self {
        Route::Attach { operation, refusal: refusal.into() }
    }
}

impl From<Create> for Route {
    fn from(create: Create) -> Self {
        Route::Create(Box::new(create))
    }
}

impl Create {
    /// A backup of `item`, done by `plan`, that ends in a point of `kind`.
    pub fn backup(operation: OperationId, item: ItemId, kind: PointKind, plan: RunPlan) -> Self {
        Self::new(operation, item, Work::Backup(kind), plan)
    }

    /// A restore of `point`, done by `plan`.
    pub fn restore(operation: OperationId, item: ItemId, point: PointId, plan: RunPlan) -> Self {
        Self::new(operation, item, Work::Restore(point), plan)
    }

    /// Something else about `item`, done by `plan`.
    pub fn other(operation: OperationId, item: ItemId, plan: RunPlan) -> Self {
        Self::new(operation, item, Work::Other, plan)
    }

    fn new(operation: OperationId, item: ItemId, work: Work, plan: RunPlan) -> Self {
        Create { operation, item, work, plan, patience: None, refusal: Vec::new() }
    }

    /// How long the caller can wait until a step takes the call.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// What the caller is told if it comes to nothing.
    #[must_use]
    pub fn refusal(mut self, answer: impl Into<Vec<u8>>) -> Self {
        self.refusal = answer.into();
        self
    }
}
