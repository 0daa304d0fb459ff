//! The messages that cross the boundary: requests to the plugin, calls to the host.
//!
//! All are JSON. Unknown fields are tolerated in both directions, and an unknown request or call
//! is answered with a fault that names it, so that either side may be newer. A change that an
//! older reader would misunderstand raises [`SCHEMA`].

use std::num::NonZeroUsize;

use bytes::Bytes;
use fsm_core::{Data, Fault, StepCall, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    IncomingCall, ItemId, OperationId, PointId, PointKind, PointMeta, PointNotes, Receipt,
    RestoreRequest, TakeId, Until, Wanted,
};

/// The version of the messages' form.
pub const SCHEMA: u16 = 1;

/// What a host asks of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
#[non_exhaustive]
#[allow(
    clippy::large_enum_variant,
    reason = "a request is one at a time: made to be written, or read to be served"
)]
pub enum Request {
    /// [`Workload::discover`](crate::Workload::discover); the reply is a list of items.
    Discover {
        /// Which workload.
        workload: String,
    },
    /// [`Workload::decide`](crate::Workload::decide); the reply is a decision.
    Decide {
        /// Which item.
        item: ItemId,
        /// What is wanted.
        wanted: Wanted,
        /// The item's newest points, oldest first.
        points: Vec<PointMeta>,
    },
    /// [`Workload::plan`](crate::Workload::plan), or
    /// [`Workload::plan_until`](crate::Workload::plan_until); the reply is a list of point ids.
    Plan {
        /// Which item.
        item: ItemId,
        /// All points of the item.
        points: Vec<PointMeta>,
        /// The point to restore.
        target: PointId,
        /// Where the restore stops, if not at the point's end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Until>,
    },
    /// [`Workload::restore`](crate::Workload::restore); the reply is a run plan.
    Restore {
        /// What is wanted.
        restore: RestoreRequest,
    },
    /// The graphs of [`Workload::machines`](crate::Workload::machines).
    Machines {
        /// Which workload.
        workload: String,
    },
    /// [`Workload::endpoints`](crate::Workload::endpoints); the reply is a list of endpoints.
    Endpoints {
        /// Which workload.
        workload: String,
    },
    /// [`Workload::route`](crate::Workload::route); the reply is a [`Route`](crate::Route).
    Route {
        /// Which workload.
        workload: String,
        /// The call.
        call: IncomingCall,
    },
    /// One step of a run; the reply is an [`Outcome`](fsm_core::Outcome).
    Step {
        /// The operation that the run belongs to.
        operation: OperationId,
        /// The item that it works on.
        item: ItemId,
        /// The step.
        call: StepCall,
    },
    /// [`Machine::migrate`](fsm_core::Machine::migrate); the reply is a [`Migrated`].
    Migrate {
        /// Which workload.
        workload: String,
        /// Which machine.
        machine: String,
        /// The version that wrote the state.
        from: u32,
        /// The state's name.
        state: String,
        /// Its data.
        data: Data,
    },
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// As [`decode`]; and a [`Permanent`](fsm_core::Class::Permanent) fault with code
    /// `request.unknown` if it is none that this version knows, which tells a newer host to do
    /// without.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Named {
            request: String,
        }
        decode(bytes).map_err(|fault| match decode::<Named>(bytes) {
            Ok(Named { request }) if !KNOWN.contains(&&*request) => {
                let message = format!("this plugin's SDK knows no request `{request}`");
                Fault::permanent("request.unknown", message)
            }
            _ => fault,
        })
    }
}

/// The names of the requests, as they are written.
const KNOWN: [&str; 9] =
    ["discover", "decide", "plan", "restore", "machines", "endpoints", "route", "step", "migrate"];

/// A state translated to the machine's present version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Migrated {
    /// The state's name.
    pub state: String,
    /// Its data.
    pub data: Data,
}

/// What a step asks of its host: the names of the calls.
pub mod call {
    /// [`TakeBegin`](super::TakeBegin) → [`TakeBegun`](super::TakeBegun).
    pub const TAKE_BEGIN: &str = "take.begin";
    /// [`TakeFinish`](super::TakeFinish) → a list of receipts.
    pub const TAKE_FINISH: &str = "take.finish";
    /// [`StreamOpen`](super::StreamOpen) → a sink, whose end is a receipt.
    pub const STREAM_OPEN: &str = "stream.open";
    /// [`SourceOpen`](super::SourceOpen) → a source.
    pub const SOURCE_OPEN: &str = "source.open";
    /// [`Seal`](super::SealCall) → the point's id.
    pub const SEAL: &str = "seal";
    /// Nothing → an [`IncomingCall`](crate::IncomingCall) and its connection: the call that the
    /// operation was made of.
    pub const INGRESS_CALL: &str = "ingress.call";
    /// Nothing → an [`IncomingCall`](crate::IncomingCall) and its connection: the next one that is
    /// attached to the operation, once there is one.
    pub const INGRESS_NEXT: &str = "ingress.next";
    /// [`SecretGet`](super::SecretGet) → the secret's bytes, as they are: no document holds them.
    pub const SECRET: &str = "secret";
    /// [`Intent`](super::Intent) → nothing.
    pub const EFFECT_INTENT: &str = "effect.intent";
    /// A [`Progress`](fsm_core::Progress) → nothing.
    pub const PROGRESS: &str = "progress";
    /// Nothing → a [`Timestamp`](fsm_core::Timestamp).
    pub const NOW: &str = "clock.now";
}

/// Begins a take, or finds the finished one of an earlier attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeBegin {
    /// The step's own name for what it takes; unique in its run.
    pub name: String,
}

/// A take that was begun, or found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeBegun {
    /// Its id.
    pub take: TakeId,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// Its receipts, if an earlier attempt finished it.
    pub finished: Option<Vec<Receipt>>,
    /// What that attempt learned while it produced the streams.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub facts: Value,
}

/// Finishes a take: all of its streams are durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeFinish {
    /// Its id.
    pub take: TakeId,
    /// What was learned while its streams were produced: kept with the take, and given to whoever
    /// adopts it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub facts: Value,
}

/// Opens a stream of a take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOpen {
    /// The take.
    pub take: TakeId,
    /// The stream's name, unique in the take.
    pub stream: String,
}

/// Opens a stream of a point for reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceOpen {
    /// The point.
    pub point: PointId,
    /// The stream's name.
    pub stream: String,
}

/// Seals receipts into a recovery point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SealCall {
    /// Unique in the run; sealing twice under one key finds the first point.
    pub key: String,
    /// What the point holds.
    pub kind: PointKind,
    /// The points that it needs directly.
    pub base: Vec<PointId>,
    /// The moment that it restores.
    pub taken_at: Timestamp,
    /// The plugin's notes.
    pub notes: PointNotes,
    /// Its streams.
    pub receipts: Vec<Receipt>,
}

/// Asks for a secret. Served to every request, not only to steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretGet {
    /// Its name, one of those that the workload's manifest declares.
    pub name: String,
}

/// Records that an effect is about to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The effect's name.
    pub effect: String,
}

/// A message with the version of its form.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    schema: u16,
    body: T,
}

/// Writes `body` with the version of its form.
///
/// # Errors
///
/// A [`Bug`](fsm_core::Class::Bug) fault if it has no JSON form.
pub fn encode<T: Serialize>(body: &T) -> Result<Bytes, Fault> {
    let encoded = serde_json::to_vec(&Envelope { schema: SCHEMA, body });
    encoded.map(Bytes::from).map_err(|error| {
        Fault::bug("message.encode", "a message has no JSON form").caused_by(&error)
    })
}

/// What a host tells a plugin beside its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Terms {
    /// How many threads the plugin should start for work that does not block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<NonZeroUsize>,
}

impl Terms {
    /// Nothing is said.
    pub fn new() -> Self {
        Terms::default()
    }

    /// Says how many threads to start for work that does not block.
    #[must_use]
    pub fn workers(mut self, workers: NonZeroUsize) -> Self {
        self.workers = Some(workers);
        self
    }
}

/// Writes a plugin's configuration, as [`encode`] does, with the host's terms beside it. A plugin
/// that knows nothing of them reads the configuration alone.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_config<T: Serialize>(config: &T, terms: Terms) -> Result<Bytes, Fault> {
    #[derive(Serialize)]
    struct WithTerms<T> {
        schema: u16,
        body: T,
        host: Terms,
    }
    let encoded = serde_json::to_vec(&WithTerms { schema: SCHEMA, body: config, host: terms });
    encoded.map(Bytes::from).map_err(|error| {
        Fault::bug("message.encode", "a configuration has no JSON form").caused_by(&error)
    })
}

/// The host's terms beside a configuration; none if it says none, or says them in another form.
pub(crate) fn decode_terms(config: &[u8]) -> Terms {
    #[derive(Deserialize)]
    struct Beside {
        #[serde(default)]
        host: Terms,
    }
    serde_json::from_slice(config).map(|Beside { host }| host).unwrap_or_default()
}

/// Reads what [`encode`] wrote.
///
/// # Errors
///
/// A [`Bug`](fsm_core::Class::Bug) fault with code `message.schema` if the message is of a newer
/// form, `message.decode` if it cannot be read.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    #[derive(Deserialize)]
    struct Version {
        schema: u16,
    }
    let unreadable = |error: serde_json::Error| {
        Fault::bug("message.decode", "a message from the other side cannot be read")
            .caused_by(&error)
    };
    let Version { schema } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if schema > SCHEMA {
        let message = format!("the other side speaks message schema {schema}, this one {SCHEMA}");
        return Err(Fault::bug("message.schema", message).advise("upgrade this side"));
    }
    let envelope: Envelope<T> = serde_json::from_slice(bytes).map_err(unreadable)?;
    Ok(envelope.body)
}

/// Writes a fault as a reply's error document.
pub fn encode_fault(fault: &Fault) -> Bytes {
    // Faults are made of strings and numbers, which always have a JSON form.
    encode(fault).unwrap_or_default()
}

/// What there is instead of a receipt for a stream that its host closed before its end.
pub(crate) fn cut_short() -> Fault {
    Fault::bug("stream.cut_short", "the host closed the stream before its end, and gave no reason")
}

/// Reads a reply's error document; whatever it is, the answer is a fault.
///
/// What a peer of another version leaves out is as if it had not been said. A class that this
/// version does not know reads as [`Permanent`](fsm_core::Class::Permanent): nobody tries again for
/// a reason that nobody here understands.
pub fn decode_fault(bytes: &[u8]) -> Fault {
    decode(bytes).unwrap_or_else(|fault| fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_requests_are_those_that_there_are() {
        let unknown = br#"{"schema":1,"body":{"request":"dance"}}"#;
        let expected = decode::<Request>(unknown).expect_err("unknown").chain()[0].clone();
        // serde lists the names: "unknown variant `dance`, expected one of `discover`, ...".
        let (_, names) = expected.split_once("expected one of ").expect("a list of names");
        let (names, _) = names.split_once(" at line").unwrap_or((names, ""));
        let names: Vec<&str> = names.split(", ").map(|name| name.trim_matches('`')).collect();
        assert_eq!(names, KNOWN);
    }
}
