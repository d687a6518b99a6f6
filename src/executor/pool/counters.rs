//! What a pool has done so far, counted as it happens.
//!
//! Calls and the worker table count here, and [`Pool::stats`](super::Pool::stats) reads without
//! waiting for them. Each counter is right by itself; together they are no snapshot.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of [`PoolStats`](super::PoolStats), under the same names.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) calls: AtomicU64,
    pub(super) inline_calls: AtomicU64,
    pub(super) hot_calls: AtomicU64,
    pub(super) deaths: AtomicU64,
    pub(super) recycled: AtomicU64,
}

/// Counts one more, and returns the count with it. Relaxed: no other data depends on a counter.
pub(super) fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}
