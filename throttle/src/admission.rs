//! The door that every operation goes through.

use crate::acquire::Acquire;
use crate::acquire_error::AcquireError;
use crate::clock::{Clock, Instant};
use crate::core::{Patience, Submitted};
use crate::limits::Limits;
use crate::permit::Permit;
use crate::policy::{CompiledPolicy, PolicyError};
use crate::request::Request;
use crate::resource::Resource;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::sync::Arc;

/// The door that every operation goes through before it works.
///
/// Clones are handles to the same admission. It needs no runtime, no thread and no timer:
/// everything happens inside the calls that are made on it, on its futures and on its
/// permits, each of them under one short lock.
///
/// # Examples
///
/// ```
/// use throttle::{Admission, Class, Limits, Policy, Request, Resource, SystemClock};
///
/// # futures::executor::block_on(async {
/// let admission = Admission::new(Limits::new().node("streams", 4), SystemClock::new());
/// admission.register("sqlite", Policy::new().class(Class::new("data")).compile()?)?;
///
/// let permit = admission
///     .acquire(
///         Request::new("op-17")
///             .exclusion("sqlite", Resource::item("sqlite/main/orders.db"), "data")
///             .capacity(Resource::node(), "streams", 1),
///     )
///     .await?;
/// assert_eq!(admission.snapshot().holders[0].owner, "op-17");
///
/// drop(permit);
/// assert!(admission.snapshot().holders.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Admission {
    shared: Arc<Shared>,
}

impl Admission {
    /// An admission with the host's limits, on the given clock.
    pub fn new(limits: Limits, clock: impl Clock) -> Self {
        Self { shared: Shared::new(limits, clock) }
    }

    /// Makes the classes of a workload known, with their rules and limits.
    ///
    /// From then on each limit is the smallest that the host or any policy declares for
    /// it. Permits that exceed it stay valid.
    ///
    /// # Errors
    ///
    /// [`AlreadyRegistered`](crate::PolicyErrorKind::AlreadyRegistered) if the workload
    /// has a policy; the old one stays.
    pub fn register(&self, workload: &str, policy: CompiledPolicy) -> Result<(), PolicyError> {
        self.shared.apply(|core, _| core.register(workload, policy))
    }

    /// Waits until every claim of the request can be granted and takes them together.
    ///
    /// Requests are considered in the order of their arrival, less a head start for their
    /// priority. On exclusions that order is strict between requests that conflict. On
    /// limits a smaller request may pass a larger one that does not fit, a bounded number
    /// of times (see [`Limits::overtakes_max`]).
    ///
    /// Give capacity back before you wait for an exclusion: two operations that hold one
    /// and wait for the other wait for ever.
    ///
    /// # Errors
    ///
    /// By [`AcquireErrorKind`](crate::AcquireErrorKind): the request is malformed, names
    /// something unknown, asks for more than there can ever be, is rejected or coalesced
    /// by a rule, expires, or the admission is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in line and takes nothing.
    pub fn acquire(&self, request: Request) -> Acquire {
        Acquire::new(Arc::clone(&self.shared), request)
    }

    /// Takes every claim of the request now, or none.
    ///
    /// It obeys the same order as [`acquire`](Self::acquire): it does not start before a
    /// waiter that it conflicts with.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and
    /// [`WouldWait`](crate::AcquireErrorKind::WouldWait) instead of waiting.
    pub fn try_acquire(&self, request: Request) -> Result<Permit, AcquireError> {
        match self.shared.apply(|core, now| core.submit(&request, Patience::Refuse, now))? {
            Submitted::Granted(id) => Ok(Permit::new(Arc::clone(&self.shared), id, &request)),
            Submitted::Queued(_) => unreachable!("a request without patience is not queued"),
        }
    }

    /// Takes back what an operation held before a restart.
    ///
    /// Call it for every unfinished operation before anything new is asked for. Capacity
    /// is taken whatever the limits say; until the excess was given back nobody else is
    /// admitted to that limit. An operation that is to queue for its capacity again leaves
    /// it out here and asks for it with [`acquire`](Self::acquire), saying how long it has
    /// [waited already](Request::already_waited).
    ///
    /// # Errors
    ///
    /// [`Conflicting`](crate::AcquireErrorKind::Conflicting) with every conflict if others
    /// hold what is asked for; then nothing is taken. Otherwise as
    /// [`acquire`](Self::acquire), but it is never rejected, coalesced or unsatisfiable.
    pub fn adopt(&self, request: Request) -> Result<Permit, AcquireError> {
        let id = self.shared.apply(|core, now| core.adopt(&request, now))?;
        Ok(Permit::new(Arc::clone(&self.shared), id, &request))
    }

    /// Changes the host's number for a limit, at once.
    ///
    /// Nobody loses a permit. If more is held than there is now, nobody is admitted to the
    /// limit until enough was given back. A request that waits for more units than there
    /// are now runs alone. 0 is a pause.
    pub fn set_capacity(&self, resource: &Resource, limit: &str, capacity: u32) {
        self.shared.apply(|core, _| core.set_capacity(resource, limit, capacity));
    }

    /// Who holds what, who waits, and for what each of them truly waits.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.apply(|core, now| core.snapshot(now))
    }

    /// Lets requests expire whose deadline has come, and returns the next deadline.
    ///
    /// Whoever uses deadlines calls this when the next one comes.
    pub fn tick(&self) -> Option<Instant> {
        self.shared.apply(|core, now| core.tick(now))
    }

    /// Ends the admission: whoever waits, and whoever asks later, is refused.
    ///
    /// Permits stay valid and are given back as ever. There is no way back.
    pub fn close(&self) {
        self.shared.apply(|core, _| core.close());
    }

    /// Whether the admission was closed.
    pub fn is_closed(&self) -> bool {
        self.shared.apply(|core, _| core.is_closed())
    }

    /// How often a request was looked at, to see whether it can start, since the admission
    /// was made.
    ///
    /// A measure of the work that was done which is the same on every machine: a request
    /// that waits is looked at a few times in all, however many wait beside it.
    pub fn looks(&self) -> u64 {
        self.shared.apply(|core, _| core.looks())
    }
}
