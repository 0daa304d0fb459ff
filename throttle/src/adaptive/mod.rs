//! Limits that follow the pressure on the node. Off unless somebody uses it.
//!
//! **Promise.** What comes out lies between the minimum and what is configured. Work that
//! runs is never touched: less is admitted, and bytes move slower. Without a reading the
//! configured limits hold.
//!
//! **How.** Two thresholds, as operations last hours and a round-trip time says nothing
//! about them: above the soft one the capacity falls, above the hard one the rate falls,
//! too. Both rise again only after several calm windows in a row.

mod controller;
mod governor;
mod latency;
mod pressure;
mod psi;

pub use controller::{Bearable, Controller};
pub use governor::Governor;
pub use latency::ChunkLatency;
pub use pressure::{ManualPressure, Pressure};
pub use psi::{PressureStall, StallFile};
