//! How hard it is for the node.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that says how hard it is for the node.
///
/// The caller asks once a window. The unit is the implementer's own; the thresholds of a
/// [`Controller`](super::Controller) are in the same one. More is harder.
pub trait Pressure: Send + fmt::Debug {
    /// The pressure over the last window; `None` if it is not known.
    fn sample(&mut self) -> Option<u64>;
}

/// A [`Pressure`] that a test sets. Clones show the same one.
///
/// # Examples
///
/// ```
/// use throttle::{ManualPressure, Pressure};
///
/// let pressure = ManualPressure::new();
/// pressure.set(Some(30));
/// assert_eq!(pressure.clone().sample(), Some(30));
/// ```
#[derive(Clone, Debug)]
pub struct ManualPressure {
    value: Arc<AtomicU64>,
}

/// Stands for a pressure that is not known.
const UNKNOWN: u64 = u64::MAX;

impl ManualPressure {
    /// A pressure that is not known yet.
    pub fn new() -> Self {
        Self { value: Arc::new(AtomicU64::new(UNKNOWN)) }
    }

    /// Sets the pressure.
    pub fn set(&self, pressure: Option<u64>) {
        self.value.store(pressure.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }
}

impl Default for ManualPressure {
    fn default() -> Self {
        Self::new()
    }
}

impl Pressure for ManualPressure {
    fn sample(&mut self) -> Option<u64> {
        Some(self.value.load(Ordering::Relaxed)).filter(|&value| value != UNKNOWN)
    }
}
