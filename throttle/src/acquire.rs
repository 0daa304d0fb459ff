//! The wait for a permit.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::acquire_error::AcquireError;
use crate::core::{Claimed, Submitted};
use crate::permit::Permit;
use crate::request_id::RequestId;
use crate::sync::Arc;
use crate::ticket::Ticket;

/// The wait for a permit, from [`Admission::acquire`](crate::Admission::acquire) or
/// [`Prepared::acquire`](crate::Prepared::acquire).
///
/// The request takes its place in line when the future is polled for the first time. A
/// future that was granted its permit holds it from then on, whether it is polled or not:
/// poll it, or drop it. If neither happens for long enough
/// ([`Limits::claim_within`](crate::Limits::claim_within)), the next
/// [`tick`](crate::Admission::tick) takes the permit back; the request is in line again, at
/// its old place, as soon as the future is polled.
///
/// # Cancel safety
///
/// Dropping the future gives up the place in line and takes nothing.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Acquire {
    ticket: Arc<Ticket>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    New,
    Queued(RequestId),
    Done,
}

impl Acquire {
    pub(crate) fn new(ticket: Arc<Ticket>) -> Self {
        Self { ticket, stage: Stage::New }
    }

    fn permit(&self, member: RequestId, claimed: Claimed) -> Permit {
        Permit::new(Arc::clone(&self.ticket), member, claimed)
    }
}

impl Future for Acquire {
    type Output = Result<Permit, AcquireError>;

    /// # Panics
    ///
    /// If it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = context.waker();
        let outcome = match self.stage {
            Stage::New => match self.ticket.shared.enqueue(&self.ticket, waker.clone()) {
                Ok(Submitted::Granted(id)) => Ok(Permit::at_once(Arc::clone(&self.ticket), id)),
                Ok(Submitted::Queued(id)) => {
                    self.stage = Stage::Queued(id);
                    tracing::debug!(%id, owner = self.ticket.request.owner(), "request waits");
                    return Poll::Pending;
                }
                Err(error) => Err(error),
            },
            Stage::Queued(id) => {
                match self.ticket.shared.poll(id, self.ticket.request.owner(), waker) {
                    Poll::Ready(Ok(claimed)) => Ok(self.permit(id, claimed)),
                    Poll::Ready(Err(error)) => Err(error),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Stage::Done => panic!("the wait for a permit was polled after it was over"),
        };
        self.stage = Stage::Done;
        if let Err(error) = &outcome {
            tracing::debug!(%error, "request not granted");
        }
        Poll::Ready(outcome)
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if let Stage::Queued(id) = self.stage {
            self.ticket.shared.abandon(id);
        }
    }
}
