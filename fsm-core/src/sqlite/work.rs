//! Work that somebody lends a connection's thread.

use std::{
    any::{Any, TypeId},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
};

use futures::channel::oneshot;
use rusqlite::Connection;

use crate::{JournalError, JournalErrorKind};

/// Something to do with a connection, or to be told why that is not possible.
pub(super) struct Work {
    run: Box<Run>,
    /// Whether its errors tell what became of the transaction.
    pub(super) is_plain: bool,
}

type Run = dyn FnOnce(Result<&Connection, JournalErrorKind>) -> Done + Send;

/// What work has come to.
pub(super) struct Done {
    pub(super) keep: Keep,
    /// To be called once it is known whether the changes are durable.
    pub(super) acknowledge: Acknowledge,
}

pub(super) type Acknowledge = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Changes,
    /// Why, if the work failed with an error of the store.
    Nothing(Option<JournalErrorKind>),
}

impl Work {
    /// `work`, and the future of its result.
    pub(super) fn new<T, E, F>(
        work: F,
    ) -> (Self, impl Future<Output = Result<T, E>> + Send + 'static + use<T, E, F>)
    where
        T: Send + 'static,
        E: From<JournalError> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let (done, result) = oneshot::channel::<Result<T, E>>();
        let run: Box<Run> = Box::new(move |connection| {
            let outcome = match connection {
                Ok(connection) => work(connection),
                Err(kind) => Err(JournalError::new(kind, "state database").into()),
            };
            let keep = match &outcome {
                Ok(_) => Keep::Changes,
                Err(error) => Keep::Nothing(
                    (error as &dyn Any).downcast_ref::<JournalError>().map(JournalError::kind),
                ),
            };
            let acknowledge: Acknowledge = Box::new(move |durable| {
                let outcome = match (outcome, durable) {
                    (Ok(_), Err(error)) => Err(error.into()),
                    (outcome, _) => outcome,
                };
                // Nobody may be waiting any more.
                let _ = done.send(outcome);
            });
            Done { keep, acknowledge }
        });
        let result = async move { result.await.unwrap_or_else(|_| Err(dropped().into())) };
        (Work { run, is_plain: TypeId::of::<E>() == TypeId::of::<JournalError>() }, result)
    }

    /// Does it; `None` if it panicked, and then whoever waits hears that it was dropped.
    pub(super) fn run(self, connection: &Connection) -> Option<Done> {
        match catch_unwind(AssertUnwindSafe(|| (self.run)(Ok(connection)))) {
            Ok(done) => Some(done),
            Err(payload) => {
                // Its destructor could panic again.
                std::mem::forget(payload);
                None
            }
        }
    }

    /// Tells whoever waits that it was not done.
    pub(super) fn refuse(self, kind: JournalErrorKind) {
        ((self.run)(Err(kind)).acknowledge)(Ok(()));
    }
}

/// What somebody hears whose job was dropped.
pub(super) fn dropped() -> JournalError {
    JournalError::new(JournalErrorKind::Storage, "state database")
        .caused_by("the store's thread dropped the work, or the work panicked")
}

/// Does work one by one, on a connection that cannot write.
pub(super) fn read_loop(connection: &Connection, queue: &mpsc::Receiver<Work>) {
    while let Ok(work) = queue.recv() {
        // Without it each statement would see another moment, and a run whose records are pruned
        // between two of them would look damaged.
        let moment = match connection.unchecked_transaction() {
            Ok(moment) => moment,
            Err(error) => {
                work.refuse(super::error::kind(&error));
                continue;
            }
        };
        let done = work.run(connection);
        drop(moment);
        if let Some(done) = done {
            (done.acknowledge)(Ok(()));
        }
    }
}
