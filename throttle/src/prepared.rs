//! A request that is made once and handed in many times.

use crate::acquire::Acquire;
use crate::acquire_error::AcquireError;
use crate::core::{Patience, Submitted};
use crate::permit::Permit;
use crate::request::Request;
use crate::shared::Shared;
use crate::sync::Arc;
use crate::ticket::Ticket;

/// A request whose names an admission has looked up, from
/// [`Admission::prepare`](crate::Admission::prepare).
///
/// Handing it in compares numbers instead of names: it is for whoever asks for the same
/// again and again, such as a permit for every file of one backup. Each time is a request of
/// its own, with an identity and a place in line of its own. Clones are the same prepared
/// request.
///
/// While one exists, the admission remembers the resources and limits that it names, and
/// shows the limits in a [`Snapshot`](crate::Snapshot) even when nobody uses them.
///
/// # Examples
///
/// ```
/// use throttle::{Admission, Limits, ManualClock, Request, Resource};
///
/// # fn main() -> Result<(), throttle::AcquireError> {
/// let admission = Admission::new(Limits::new().node("files", 2), ManualClock::new());
/// let file = admission.prepare(Request::new("op-17").capacity(Resource::node(), "files", 1))?;
/// for _ in 0..1_000 {
///     let permit = file.try_acquire()?;
///     assert_eq!(permit.owner(), "op-17");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a prepared request does nothing until it is handed in"]
pub struct Prepared {
    ticket: Arc<Ticket>,
}

impl Prepared {
    pub(crate) fn new(shared: &Arc<Shared>, request: Request) -> Result<Self, AcquireError> {
        let prepared = Some(shared.apply(|core| core.prepare(&request))?);
        Ok(Self { ticket: Arc::new(Ticket { shared: Arc::clone(shared), request, prepared }) })
    }

    /// Waits until every claim can be granted and takes them together; see
    /// [`Admission::acquire`](crate::Admission::acquire).
    ///
    /// # Errors
    ///
    /// As [`Admission::acquire`](crate::Admission::acquire). A name can become unknown after
    /// the request was prepared, if a policy is [replaced](crate::Admission::replace): what
    /// counts is what the names mean when the request is handed in.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in line and takes nothing.
    pub fn acquire(&self) -> Acquire {
        Acquire::new(Arc::clone(&self.ticket))
    }

    /// Takes every claim now, or none; see
    /// [`Admission::try_acquire`](crate::Admission::try_acquire).
    ///
    /// Nothing is allocated for a request of up to four different claims that is granted.
    ///
    /// # Errors
    ///
    /// As [`Admission::try_acquire`](crate::Admission::try_acquire).
    pub fn try_acquire(&self) -> Result<Permit, AcquireError> {
        let Ticket { shared, request, prepared } = &*self.ticket;
        let submit =
            shared.apply_now(|core, now| core.submit(request, *prepared, Patience::Refuse, now));
        match submit? {
            Submitted::Granted(id) => Ok(Permit::at_once(Arc::clone(&self.ticket), id)),
            Submitted::Queued(_) => unreachable!("a request without patience is not queued"),
        }
    }

    /// What is asked for, and by whom.
    pub fn request(&self) -> &Request {
        &self.ticket.request
    }
}
