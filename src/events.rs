//! What an engine tells its subscribers while it works.

use fsm_core::{Fault, Progress, Timestamp};
use plugin_sdk::{ItemId, OperationId, Peer, PointId};
use tokio::sync::broadcast;

use crate::operation::Phase;

/// Something that happened. Told at most once to each subscriber; the truth is in
/// [`Engine::operations`](crate::Engine::operations) and in the archive.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// An operation came to a phase.
    Phase {
        /// Which operation.
        operation: OperationId,
        /// The phase.
        phase: Phase,
    },
    /// An operation's run entered a state, durably.
    State {
        /// Which operation.
        operation: OperationId,
        /// The state's name.
        state: String,
    },
    /// A step reported how far it has come.
    Progress {
        /// Which operation.
        operation: OperationId,
        /// How far.
        progress: Progress,
    },
    /// An attempt at a step failed; another one follows.
    AttemptFailed {
        /// Which operation.
        operation: OperationId,
        /// Which attempt, counted from 1.
        attempt: u32,
        /// Why.
        fault: Fault,
    },
    /// A recovery point exists.
    Sealed {
        /// Of which item.
        item: ItemId,
        /// The point.
        point: PointId,
    },
    /// A stream between an operation's step and the archive was opened.
    StreamOpened {
        /// Which operation.
        operation: OperationId,
        /// The stream's name.
        stream: String,
    },
    /// A stream was closed: its bytes are durable, or it came to nothing.
    StreamClosed {
        /// Which operation.
        operation: OperationId,
        /// The stream's name.
        stream: String,
    },
    /// A program of the workload has called, and its call waits for a step of this operation,
    /// which may have been made of it.
    Called {
        /// Which operation.
        operation: OperationId,
        /// Where it called.
        endpoint: String,
        /// Who called.
        peer: Peer,
    },
    /// A call came to nothing. Of callers whom nobody asked for, not each is told of.
    CallRefused {
        /// Whose endpoint it is.
        workload: String,
        /// Where it called.
        endpoint: String,
        /// Who called.
        peer: Peer,
        /// Why, as a stable code: the workload's own, or one that begins with `ingress.` or
        /// `call.`, or the code of a fault.
        code: String,
        /// Why, for people.
        why: String,
    },
    /// An operation is one with another, of which one is enough: it ends with that one's outcome.
    Coalesced {
        /// Which operation.
        operation: OperationId,
        /// The one that does the work.
        into: OperationId,
    },
    /// An operation waits for long, and others may use its streams meanwhile. What it excludes
    /// others from stays excluded.
    CapacityReturned {
        /// Which operation.
        operation: OperationId,
        /// What it does instead of working.
        why: String,
    },
    /// An operation that had given its streams back has them again, and goes on.
    CapacityTaken {
        /// Which operation.
        operation: OperationId,
    },
    /// An operation stands still. Its run waits for an operator ([`Engine::resume`]), or goes on
    /// after the cause is mended and the engine started again: its plugin is missing, say, or the
    /// state directory is full. Or a step of it does not stop, and what it excludes stays excluded
    /// until it does.
    ///
    /// [`Engine::resume`]: crate::Engine::resume
    Stuck {
        /// Which operation.
        operation: OperationId,
        /// Why.
        why: String,
    },
    /// A plugin's code keeps a thread of this program's: it was called and has not returned for 30
    /// seconds. Told once for each such call. Other work may wait for that thread; a plugin in a
    /// process of its own ([`Isolation::Process`](crate::Isolation::Process)) cannot do that.
    PluginBlocks {
        /// Which plugin.
        plugin: String,
        /// The thread's name; empty if it has none.
        thread: String,
        /// When it was called.
        since: Timestamp,
    },
    /// This subscriber was too slow and missed this many events.
    Lagged(u64),
}

/// A subscription. Slow readers miss events and are told; they never hold the engine up.
#[derive(Debug)]
pub struct Events(pub(crate) broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` after the engine is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Event::Lagged(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_subscriber_that_is_too_slow_is_told_how_much_it_missed() {
        let sender = broadcast::Sender::new(2);
        let mut events = Events(sender.subscribe());
        let event = |n: u32| Event::Stuck { operation: OperationId::new("op"), why: n.to_string() };
        for n in 0..5 {
            sender.send(event(n)).expect("there is a subscriber");
        }
        drop(sender);
        assert_eq!(events.next().await, Some(Event::Lagged(3)));
        assert_eq!(events.next().await, Some(event(3)));
        assert_eq!(events.next().await, Some(event(4)));
        assert_eq!(events.next().await, None);
    }
}
