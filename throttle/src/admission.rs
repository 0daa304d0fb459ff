//! The door that every operation goes through.

use crate::acquire::Acquire;
use crate::acquire_error::AcquireError;
use crate::clock::{Clock, Instant};
use crate::core::{Adopted, Opening, Patience, Submitted};
use crate::drain::Drain;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::permit::Permit;
use crate::policy::{CompiledPolicy, PolicyError};
use crate::prepared::Prepared;
use crate::request::Request;
use crate::request_id::RequestId;
use crate::resource::Resource;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::sync::Arc;
use crate::ticket::Ticket;

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
        Self { shared: Shared::new(limits, clock, Opening::AtOnce) }
    }

    /// An admission that grants nothing before it is [opened](Self::open).
    ///
    /// For a start that has to [adopt](Self::adopt) what an earlier process has left: who
    /// asks meanwhile queues, also for [capacity](Permit::reacquire) that it had before, and
    /// [`try_acquire`](Self::try_acquire) is refused.
    pub fn recovering(limits: Limits, clock: impl Clock) -> Self {
        Self { shared: Shared::new(limits, clock, Opening::AfterAdoption) }
    }

    /// Begins to grant, to those who queued meanwhile first.
    ///
    /// What the rules reject beside what was adopted is rejected now. Calling it again does
    /// nothing.
    pub fn open(&self) {
        self.shared.apply(|core| core.open());
    }

    /// Whether requests are granted; see [`recovering`](Self::recovering).
    pub fn is_open(&self) -> bool {
        self.shared.apply(|core| core.is_open())
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
        self.shared.apply(|core| core.register(workload, policy))
    }

    /// Replaces the policy of a workload, at once.
    ///
    /// Whoever holds a permit keeps it, also beside work that the new policy would keep
    /// apart. Whoever waits is looked at again and waits by the new rules; nobody who waits
    /// is rejected. A class that the new policy does not know by name or alias excludes
    /// everything until nobody has it any more.
    ///
    /// # Errors
    ///
    /// [`NotRegistered`](crate::PolicyErrorKind::NotRegistered) if the workload has no
    /// policy yet.
    pub fn replace(&self, workload: &str, policy: CompiledPolicy) -> Result<(), PolicyError> {
        self.shared.apply(|core| core.replace(workload, policy))
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
    /// something unknown, asks for more than there can ever be, is rejected by a
    /// rule, would wait while its owner holds a permit, expires, or the admission is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in line and takes nothing.
    pub fn acquire(&self, request: Request) -> Acquire {
        Acquire::new(Ticket::once(Arc::clone(&self.shared), request))
    }

    /// Takes every claim of the request now, or none.
    ///
    /// It obeys the same order as [`acquire`](Self::acquire): it does not start before a
    /// waiter that it conflicts with.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and
    /// [`WouldWait`](crate::AcquireErrorKind::WouldWait), or
    /// [`Coalesced`](crate::AcquireErrorKind::Coalesced), instead of waiting.
    pub fn try_acquire(&self, request: Request) -> Result<Permit, AcquireError> {
        match self
            .shared
            .apply_now(|core, now| core.submit(&request, None, Patience::Refuse, now))?
        {
            Submitted::Granted(id) => Ok(self.permit(id, request)),
            Submitted::Queued(_) => unreachable!("a request without patience is not queued"),
        }
    }

    /// Looks the names of a request up, so that it can be handed in many times.
    ///
    /// Nothing is asked for yet: see [`Prepared::acquire`] and [`Prepared::try_acquire`].
    ///
    /// # Errors
    ///
    /// What [`acquire`](Self::acquire) would say whatever others do: the request is
    /// malformed, names something unknown or asks for more than there can ever be, or the
    /// admission is closed.
    pub fn prepare(&self, request: Request) -> Result<Prepared, AcquireError> {
        Prepared::new(&self.shared, request)
    }

    /// Takes back what an operation held before a restart.
    ///
    /// Call it for every unfinished operation before anything new is asked for. Capacity
    /// is taken whatever the limits say; until the excess was given back nobody else is
    /// admitted to that limit. An operation that is to queue for its capacity again is
    /// [adopted without it](Self::adopt_exclusions).
    ///
    /// # Errors
    ///
    /// [`Conflicting`](crate::AcquireErrorKind::Conflicting) with every conflict if others
    /// hold what is asked for; then nothing is taken. Otherwise as
    /// [`acquire`](Self::acquire), but it is never rejected, coalesced or unsatisfiable.
    pub fn adopt(&self, request: Request) -> Result<Permit, AcquireError> {
        let id =
            self.shared.apply_now(|core, now| core.adopt(&request, Adopted::Everything, now))?;
        Ok(self.permit(id, request))
    }

    /// Takes the exclusions back that an operation held before a restart, and leaves its
    /// capacity to [`Permit::reacquire`].
    ///
    /// That queues at the place of a request made now, which is the old place if the
    /// request says how long it has [waited already](Request::already_waited).
    ///
    /// # Errors
    ///
    /// As [`adopt`](Self::adopt).
    pub fn adopt_exclusions(&self, request: Request) -> Result<Permit, AcquireError> {
        let id =
            self.shared.apply_now(|core, now| core.adopt(&request, Adopted::Exclusions, now))?;
        Ok(self.permit(id, request))
    }

    fn permit(&self, id: RequestId, request: Request) -> Permit {
        Permit::at_once(Ticket::once(Arc::clone(&self.shared), request), id)
    }

    /// Gives a permit back that nobody gives back, such as one that was leaked.
    ///
    /// False if there is no such permit. Whoever still has it works without one from then
    /// on: this is for an operator who knows that nobody does.
    pub fn force_release(&self, id: RequestId) -> bool {
        let is_released = self.shared.apply(|core| core.force_release(id));
        if is_released {
            tracing::warn!(%id, "permit released by force");
        }
        is_released
    }

    /// Changes the host's number for a limit, at once.
    ///
    /// Nobody loses a permit. If more is held than there is now, nobody is admitted to the
    /// limit until enough was given back. A request that waits for more units than there
    /// are now runs alone. 0 is a pause.
    pub fn set_capacity(&self, resource: &Resource, limit: &str, capacity: u32) {
        self.shared.apply(|core| core.set_capacity(resource, limit, capacity));
    }

    /// Who holds what, who waits, and for what each of them truly waits.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.apply_now(|core, now| core.snapshot(now))
    }

    /// How many units of a limit are held at this moment.
    pub fn used(&self, resource: &Resource, limit: &str) -> u64 {
        self.shared.apply(|core| core.used(resource, limit))
    }

    /// What was counted since the admission was made.
    pub fn metrics(&self) -> Metrics {
        self.shared.apply(|core| core.metrics())
    }

    /// Does what is due: requests expire whose deadline has come, and permits return that
    /// nobody came for in time. Returns when it has something to do next.
    ///
    /// The admission has no timer. Whoever embeds it calls this at the time that was
    /// returned, or at any regular interval; a runtime's timer task does. Asking for a
    /// permit or a snapshot lets requests expire, too, but takes no permit back. A permit
    /// that is granted later may make the next time earlier, so ask
    /// [`next_tick`](Self::next_tick) again after a while.
    pub fn tick(&self) -> Option<Instant> {
        self.shared.apply_now(|core, now| core.tick(now))
    }

    /// When [`tick`](Self::tick) has something to do; `None` if nothing is due at any time.
    pub fn next_tick(&self) -> Option<Instant> {
        self.shared.apply(|core| core.next_tick())
    }

    /// Ends the admission: whoever waits, and whoever asks later, is refused.
    ///
    /// Permits stay valid and are given back as ever. There is no way back.
    pub fn close(&self) {
        self.shared.apply(|core| core.close());
    }

    /// Waits until nobody holds a permit; [close](Self::close) it first.
    ///
    /// It closes nothing by itself: on an open admission it is ready at the first moment at
    /// which nobody holds anything, and somebody may be granted something right after. A
    /// grant that nobody came for counts as held; a leaked permit keeps it waiting until it
    /// is [released by force](Self::force_release).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub fn drain(&self) -> Drain {
        Drain::new(Arc::clone(&self.shared))
    }

    /// Whether the admission was closed.
    pub fn is_closed(&self) -> bool {
        self.shared.apply(|core| core.is_closed())
    }
}
