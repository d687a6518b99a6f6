//! The atomics through which processes agree: the claim words and the job board of a pool.
//!
//! The protocols take them from here and not from `std`. The model of these protocols
//! (`tests/model`) puts loom's atomics in their place, and so runs the very files that are shipped.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
