//! What a pool has done so far, counted as it happens.

use std::sync::atomic::{AtomicU64, Ordering};

/// For [`PoolStats`](super::PoolStats).
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) calls: AtomicU64,
    pub(super) inline_calls: AtomicU64,
    pub(super) hot_calls: AtomicU64,
    pub(super) deaths: AtomicU64,
    pub(super) recycled: AtomicU64,
}

/// Counts one more; the count with it.
pub(super) fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}
