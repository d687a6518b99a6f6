//! The atomics by which processes agree (claim words, the board of a pool), under a name of this
//! crate's: the model of these protocols (`tests/model`) puts others in their place, and so runs
//! the very files that are shipped.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
