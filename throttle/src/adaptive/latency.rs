//! How long chunks take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::pressure::Pressure;

/// The mean time that a chunk takes, in microseconds. Clones add to the same mean.
///
/// Whoever moves chunks [records](Self::record) them; a window without a chunk says nothing.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use throttle::{ChunkLatency, Pressure};
///
/// let mut latency = ChunkLatency::default();
/// latency.clone().record(Duration::from_millis(10));
/// latency.clone().record(Duration::from_millis(30));
/// assert_eq!(latency.sample(), Some(20_000));
/// assert_eq!(latency.sample(), None);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ChunkLatency {
    window: Arc<Window>,
}

#[derive(Debug, Default)]
struct Window {
    chunks: AtomicU64,
    micros: AtomicU64,
}

impl ChunkLatency {
    /// Adds one chunk to the present window.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // A chunk that is counted in one window and timed in the next shifts two means by
        // a little, which is not worth a lock for every chunk.
        self.window.micros.fetch_add(micros, Ordering::Relaxed);
        self.window.chunks.fetch_add(1, Ordering::Relaxed);
    }
}

impl Pressure for ChunkLatency {
    fn sample(&mut self) -> Option<u64> {
        let chunks = self.window.chunks.swap(0, Ordering::Relaxed);
        let micros = self.window.micros.swap(0, Ordering::Relaxed);
        micros.checked_div(chunks)
    }
}
