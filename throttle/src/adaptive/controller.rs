//! From pressure to limits.

use std::num::{NonZeroU32, NonZeroU64};

/// What pressure is bearable, and how far the limits may give way to it.
///
/// The thresholds are in the unit of the [`Pressure`](super::Pressure) that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bearable {
    soft: u64,
    hard: u64,
    capacity_min: NonZeroU32,
    bytes_per_second_min: NonZeroU64,
    calm_windows: u32,
}

impl Bearable {
    /// Up to `soft` all is well; above it less is admitted; above `hard` bytes move slower,
    /// too. A `hard` below `soft` counts as `soft`.
    ///
    /// At least one unit and one MiB/s are left; three calm windows are waited for.
    pub fn new(soft: u64, hard: u64) -> Self {
        Self {
            soft,
            hard: hard.max(soft),
            capacity_min: NonZeroU32::MIN,
            bytes_per_second_min: const { NonZeroU64::new(1 << 20).expect("not zero") },
            calm_windows: 3,
        }
    }

    /// The capacity that is left under any pressure.
    #[must_use]
    pub fn capacity_min(self, capacity_min: NonZeroU32) -> Self {
        Self { capacity_min, ..self }
    }

    /// The rate that is left under any pressure.
    #[must_use]
    pub fn bytes_per_second_min(self, bytes_per_second_min: NonZeroU64) -> Self {
        Self { bytes_per_second_min, ..self }
    }

    /// How many windows in a row have to be calm before the limits rise again.
    #[must_use]
    pub fn calm_windows(self, calm_windows: u32) -> Self {
        Self { calm_windows, ..self }
    }
}

/// Decides once a window what the limits are. Pure: it reads no clock and sets nothing.
///
/// - Above the soft threshold the capacity becomes one less than what is used, or one less
///   than it was if that is smaller: nobody is admitted, and nobody is stopped.
/// - Above the hard threshold the rate becomes 70 % of what it was.
/// - After enough calm windows each further one gives back one unit and 5 % of the rate.
/// - Without a reading both are as configured.
///
/// # Examples
///
/// ```
/// use throttle::{Bearable, Controller};
///
/// let mut controller = Controller::new(Bearable::new(20, 30));
/// let mib = 1 << 20;
/// controller.configure(4, Some(100 * mib));
/// assert_eq!(controller.window(Some(25), 4), (3, Some(100 * mib)));
/// assert_eq!(controller.window(Some(35), 3), (2, Some(70 * mib)));
/// assert_eq!(controller.window(None, 2), (4, Some(100 * mib)));
/// ```
#[derive(Clone, Debug)]
pub struct Controller {
    bearable: Bearable,
    configured: (u32, Option<u64>),
    capacity: u32,
    bytes_per_second: Option<u64>,
    calm: u32,
}

impl Controller {
    /// A controller that still has nothing to give.
    pub fn new(bearable: Bearable) -> Self {
        Self { bearable, configured: (0, None), capacity: 0, bytes_per_second: None, calm: 0 }
    }

    /// Sets what there is without pressure: a capacity and a rate; `None` is unlimited.
    ///
    /// What is configured below a minimum is not raised to it, and an unlimited rate stays
    /// unlimited. When this changes, what was taken away meanwhile is given back first.
    pub fn configure(&mut self, capacity: u32, bytes_per_second: Option<u64>) {
        if self.configured != (capacity, bytes_per_second) {
            self.configured = (capacity, bytes_per_second);
            self.reset();
        }
    }

    /// One window has passed, with this pressure and `used` units in use. Returns the
    /// capacity and the rate for the next one.
    pub fn window(&mut self, pressure: Option<u64>, used: u64) -> (u32, Option<u64>) {
        match pressure {
            None => self.reset(),
            Some(pressure) if pressure > self.bearable.soft => {
                self.calm = 0;
                let used = u32::try_from(used).unwrap_or(u32::MAX);
                let lower = self.capacity.min(used).saturating_sub(1);
                // A limit that is configured below the minimum, or paused, stays there.
                let floor = self.bearable.capacity_min.get().min(self.configured.0);
                self.capacity = lower.max(floor);
                if pressure > self.bearable.hard
                    && let Some(rate) = &mut self.bytes_per_second
                {
                    let configured = self.configured.1.unwrap_or(u64::MAX);
                    let floor = self.bearable.bytes_per_second_min.get().min(configured);
                    *rate = (*rate / 10 * 7 + *rate % 10 * 7 / 10).max(floor);
                }
            }
            Some(_) => {
                self.calm = self.calm.saturating_add(1);
                if self.calm > self.bearable.calm_windows {
                    self.capacity = self.capacity.saturating_add(1).min(self.configured.0);
                    if let (Some(rate), Some(configured)) =
                        (&mut self.bytes_per_second, self.configured.1)
                    {
                        *rate = rate.saturating_add((configured / 20).max(1)).min(configured);
                    }
                }
            }
        }
        self.present()
    }

    /// The capacity and the rate for the present window.
    pub(super) fn present(&self) -> (u32, Option<u64>) {
        (self.capacity, self.bytes_per_second)
    }

    fn reset(&mut self) {
        (self.capacity, self.bytes_per_second) = self.configured;
        self.calm = 0;
    }
}
