//! A small cache in which each value is fetched once, however many ask at the same time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::error::Result;

/// Keeps the `capacity` values that were asked for last.
pub(crate) struct Cache<K, V> {
    capacity: usize,
    cells: Mutex<Cells<K, V>>,
}

/// Most recently used first. The capacity is a few dozen: a scan beats a map.
type Cells<K, V> = VecDeque<(K, Arc<OnceCell<V>>)>;

impl<K: PartialEq + Copy, V: Clone> Cache<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, cells: Mutex::default() }
    }

    /// The value of `key`, fetched if it is not there. A failed fetch is not remembered.
    pub(crate) async fn get(&self, key: K, fetch: impl AsyncFnOnce() -> Result<V>) -> Result<V> {
        let cell = self.cell(key);
        cell.get_or_try_init(|| fetch()).await.cloned()
    }

    fn cell(&self, key: K) -> Arc<OnceCell<V>> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let found = cells.iter().position(|(other, _)| *other == key);
        let entry = match found.and_then(|at| cells.remove(at)) {
            Some(entry) => entry,
            None => (key, Arc::default()),
        };
        let cell = Arc::clone(&entry.1);
        cells.push_front(entry);
        cells.truncate(self.capacity);
        cell
    }
}
