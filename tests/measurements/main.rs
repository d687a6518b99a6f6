//! What takes long or needs a quiet machine: `cargo measure figures_calls`, one module at a time.

#[path = "../support/mod.rs"]
mod support;

// The rivals of placing an array.
mod figures;
// The cost of a call.
mod figures_calls;
// The cost of guards and deaths.
mod figures_faults;
// Sums in the cache.
mod figures_kernels;
// Operations against rayon.
mod figures_operations;
// Calls of a pool.
mod figures_pool;
// Matrices of many GiB.
mod large;
// Ten thousand calls of every ending.
mod soak;
// As many calls of one pool.
mod pool_soak;
