//! A controller with its hands on an admission and a byte rate.

use std::num::NonZeroU64;

use super::controller::{Bearable, Controller};
use super::pressure::Pressure;
use crate::admission::Admission;
use crate::rate::{ByteRate, Rate};
use crate::resource::Resource;

/// Adapts one limit of an admission, and one byte rate, to the pressure on the node.
///
/// Nothing happens by itself: whoever wants adaptive limits makes one and calls
/// [`window`](Self::window) at a regular interval, such as every ten seconds. While it is in
/// use the capacity and the rate are its own to set; what an operator wants goes to
/// [`configure`](Self::configure).
///
/// # Examples
///
/// ```
/// use throttle::{
///     Admission, Bearable, ByteRate, Governor, Limits, ManualClock, ManualPressure, Request,
///     Resource,
/// };
///
/// let clock = ManualClock::new();
/// let admission = Admission::new(Limits::new().node("streams", 4), clock.clone());
/// let rate = ByteRate::new(clock.clone(), clock);
/// let pressure = ManualPressure::new();
/// let mut governor = Governor::new(Bearable::new(20, 30), pressure.clone())
///     .limit(&admission, Resource::node(), "streams")
///     .rate(&rate);
/// governor.configure(4, None);
///
/// let running = admission.try_acquire(Request::new("op").capacity(Resource::node(), "streams", 2))?;
/// pressure.set(Some(25));
/// governor.window();
/// assert_eq!(admission.snapshot().limits[0].capacity, 1);
/// # drop(running);
/// # Ok::<(), throttle::AcquireError>(())
/// ```
#[derive(Debug)]
#[must_use = "it adapts nothing until its windows are counted"]
pub struct Governor<P> {
    controller: Controller,
    is_configured: bool,
    pressure: P,
    limit: Option<(Admission, Resource, String)>,
    rate: Option<ByteRate>,
}

impl<P: Pressure> Governor<P> {
    /// A governor that adapts nothing yet.
    pub fn new(bearable: Bearable, pressure: P) -> Self {
        let controller = Controller::new(bearable);
        Self { controller, is_configured: false, pressure, limit: None, rate: None }
    }

    /// Adapts the limit `limit` of `resource`.
    pub fn limit(self, admission: &Admission, resource: Resource, limit: &str) -> Self {
        Self { limit: Some((admission.clone(), resource, limit.to_owned())), ..self }
    }

    /// Adapts this rate. Its burst is the default of [`Rate`].
    pub fn rate(self, rate: &ByteRate) -> Self {
        Self { rate: Some(rate.clone()), ..self }
    }

    /// Sets what there is without pressure, at once; see [`Controller::configure`].
    pub fn configure(&mut self, capacity: u32, bytes_per_second: Option<NonZeroU64>) {
        self.controller.configure(capacity, bytes_per_second.map(NonZeroU64::get));
        self.is_configured = true;
        self.set(self.controller.present());
    }

    /// One window has passed: reads the pressure and sets the limits for the next one. Sets
    /// nothing before it was [configured](Self::configure).
    pub fn window(&mut self) {
        if !self.is_configured {
            return;
        }
        let used = self
            .limit
            .as_ref()
            .map_or(0, |(admission, resource, limit)| admission.used(resource, limit));
        let pressure = self.pressure.sample();
        let (capacity, rate) = self.controller.window(pressure, used);
        self.set((capacity, rate));
        tracing::trace!(pressure, capacity, rate, "limits for the next window");
    }

    fn set(&self, (capacity, bytes_per_second): (u32, Option<u64>)) {
        if let Some((admission, resource, limit)) = &self.limit {
            admission.set_capacity(resource, limit, capacity);
        }
        if let Some(rate) = &self.rate {
            let bytes_per_second = bytes_per_second.and_then(NonZeroU64::new);
            rate.set_rate(bytes_per_second.map(Rate::bytes_per_second));
        }
    }
}
