//! What the host allows.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::resource::{Resource, Scope};

/// What the host allows: how many units each limit has, and how fair to be.
///
/// Each limit is counted on its own. A lane that keeps some capacity free for one kind of
/// work is simply one more limit with a name of its own (`streams.log` beside `streams`),
/// so that shrinking one never closes another.
///
/// A workload's policy can make these numbers smaller, never larger. A claim to a limit
/// that neither the host nor a policy names is refused.
///
/// # Examples
///
/// ```
/// use throttle::{Limits, Scope};
///
/// let limits = Limits::new()
///     .node("streams", 4)
///     .node("streams.log", 2)
///     .workload("sqlite", "streams", 2)
///     .each(Scope::Instance, "streams", 1);
/// # let _ = limits;
/// ```
#[derive(Clone, Debug)]
#[must_use = "limits do nothing until they are given to an admission"]
pub struct Limits {
    pub(crate) exact: BTreeMap<(Resource, String), u32>,
    pub(crate) each: BTreeMap<(Scope, String), u32>,
    pub(crate) overtakes_max: u32,
    pub(crate) priority_step: Duration,
    pub(crate) claim_within: Duration,
}

impl Limits {
    /// No limits yet, with 64 overtakes at most, five minutes for each priority level and
    /// 30 seconds to come for a permit.
    pub fn new() -> Self {
        Self {
            exact: BTreeMap::new(),
            each: BTreeMap::new(),
            overtakes_max: 64,
            priority_step: Duration::from_secs(5 * 60),
            claim_within: Duration::from_secs(30),
        }
    }

    /// Sets the limit `limit` of the node.
    ///
    /// 0 is a pause: whoever needs it waits until it is raised.
    pub fn node(self, limit: impl Into<String>, capacity: u32) -> Self {
        self.resource(Resource::node(), limit, capacity)
    }

    /// Sets the limit `limit` of the workload `workload`.
    pub fn workload(
        self,
        workload: impl Into<String>,
        limit: impl Into<String>,
        capacity: u32,
    ) -> Self {
        self.resource(Resource::workload(workload), limit, capacity)
    }

    /// Sets the limit `limit` of one resource.
    pub fn resource(mut self, resource: Resource, limit: impl Into<String>, capacity: u32) -> Self {
        self.exact.insert((resource, limit.into()), capacity);
        self
    }

    /// Sets the limit `limit` of every resource of `scope` that has none of its own.
    pub fn each(mut self, scope: Scope, limit: impl Into<String>, capacity: u32) -> Self {
        self.each.insert((scope, limit.into()), capacity);
        self
    }

    /// How often the first of those who lack units of a limit may be passed by later, smaller
    /// requests.
    ///
    /// Once it was passed this often, its units count as taken for all who come later. While
    /// a limit that it needs is paused it keeps nobody waiting, and nothing is counted.
    /// 0 serves strictly in order; a larger number uses the limit better.
    pub fn overtakes_max(mut self, overtakes_max: u32) -> Self {
        self.overtakes_max = overtakes_max;
        self
    }

    /// The head start that one level of [`Priority`](crate::Priority) is worth, up to 36 years.
    pub fn priority_step(mut self, priority_step: Duration) -> Self {
        self.priority_step = priority_step;
        self
    }

    /// How long a granted permit waits for its future to be polled.
    ///
    /// A grant is a hand-off: from then on the permit is held, whether the future is polled
    /// or not. The first [`tick`](crate::Admission::tick) after this time takes the permit
    /// back; without a tick it stays.
    pub fn claim_within(mut self, claim_within: Duration) -> Self {
        self.claim_within = claim_within;
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}
