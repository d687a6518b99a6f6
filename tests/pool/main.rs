//! Pools: their workers, their life, and the threads that share them.

#[path = "../support/mod.rs"]
mod support;

// Deaths in the workers of a pool.
mod pool_faults;
// Guarded calls of a pool, and what its processes keep.
mod pool_guard;
// From the making of a pool to its end.
mod pool_life;
// Several threads that share a pool.
mod pool_threads;
// Callers with threads that hold locks at the fork.
mod threaded;
