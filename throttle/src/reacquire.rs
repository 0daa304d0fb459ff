//! The wait for capacity that a permit gave back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::acquire_error::{AcquireError, AcquireErrorKind};
use crate::core::Submitted;
use crate::permit::Permit;
use crate::request_id::RequestId;

/// The wait for capacity that a permit gave back, from [`Permit::reacquire`].
///
/// # Cancel safety
///
/// Dropping the future gives up the place in line and takes nothing.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Reacquire<'permit> {
    permit: &'permit Permit,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    New,
    Queued(RequestId),
    Done,
}

impl<'permit> Reacquire<'permit> {
    pub(crate) fn new(permit: &'permit Permit) -> Self {
        Self { permit, stage: Stage::New }
    }

    fn merge(&self, part: RequestId) -> Result<(), AcquireError> {
        let whole = self.permit.id();
        let is_whole = self.permit.shared().apply(|core| core.merge(part, whole));
        match is_whole {
            true => Ok(()),
            false => Err(AcquireError::new(self.permit.owner(), AcquireErrorKind::Released)),
        }
    }
}

impl Future for Reacquire<'_> {
    type Output = Result<(), AcquireError>;

    /// # Panics
    ///
    /// If it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (shared, owner) = (self.permit.shared(), self.permit.owner());
        let waker = context.waker();
        let outcome = match self.stage {
            Stage::New => match shared.reenqueue(self.permit.id(), owner, waker.clone()) {
                Ok(None) => Ok(()),
                Ok(Some(Submitted::Granted(part))) => self.merge(part),
                Ok(Some(Submitted::Queued(part))) => {
                    self.stage = Stage::Queued(part);
                    return Poll::Pending;
                }
                Err(error) => Err(error),
            },
            Stage::Queued(part) => match shared.poll(part, owner, waker) {
                Poll::Ready(Ok(_)) => self.merge(part),
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => return Poll::Pending,
            },
            Stage::Done => panic!("the wait for capacity was polled after it was over"),
        };
        self.stage = Stage::Done;
        Poll::Ready(outcome)
    }
}

impl Drop for Reacquire<'_> {
    fn drop(&mut self) {
        if let Stage::Queued(part) = self.stage {
            self.permit.shared().abandon(part);
        }
    }
}
